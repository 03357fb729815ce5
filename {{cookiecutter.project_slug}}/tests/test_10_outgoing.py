"""Attacks on the guard of outgoing requests (10.T3, SSRF), and on its client, with real servers on loopback."""

from __future__ import annotations

import gzip
import ipaddress
import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask

from app.security import outgoing, urls
from app.security.outgoing import Fetched, Internal, OutgoingURLError, check_outgoing_url, fetch_outgoing
from tests.origin import Origin

# IANA's IPv4 and IPv6 Special-Purpose Address Registries: every row that is not "globally reachable".
REGISTRIES = """
    0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
    192.0.0.8/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
    ::1/128 ::/128 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:2::/48 2001:10::/28
    2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10
""".split()  # noqa: SIM905 - a table
# Cloud metadata services, multicast, unassigned space, and IPv4 addresses in IPv6: mapped, compatible, translated,
# NAT64, 6to4, Teredo, ISATAP (in a prefix that is public).
PRIVATE = """
    169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 161.26.0.10 166.9.0.1 fd00:ec2::254
    fd20:ce::254 fe80::a9fe:a9fe 224.0.0.1 239.255.255.250 ff02::1 ff0e::1 fec0::1 4000::1 1000::1
    ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:93.184.216.34 ::127.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::7f00:1
    64:ff9b:1::a00:1 2002:7f00:1:: 2002:a00:1::1 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:f5ff:fffe
    2a00:1450::5efe:10.0.0.1 2a00:1450::200:5efe:169.254.169.254 ::5efe:10.0.0.1
""".split()  # noqa: SIM905 - a table
PUBLIC = """
    93.184.216.34 1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15
    168.63.129.17 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.31.196.1 192.88.98.255 192.88.100.0
    192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255 161.25.0.1 166.7.0.1 166.12.0.1
    2000::1 2001:200::1 2001:4860:4860::8888 2003::1 2606:2800:220:1::1 2620:4f:8000::1 2a00:1450:4001::200e 3ffe::1
    2a00:1450::5eff:a00:1
""".split()  # noqa: SIM905 - a table


def edges(block: str) -> set[str]:
    network = ipaddress.ip_network(block)
    return {str(network[0]), str(network[-1])}


@pytest.mark.parametrize("address", sorted({*PRIVATE, *itertools.chain(*map(edges, REGISTRIES))}))
def test_10_T3_private_addresses_are_refused_by_name_and_by_number(address: str) -> None:
    written = f"[{address}]" if ":" in address else address
    for answers in ([address], ["93.184.216.34", address], [address, "2606:2800:220:1::1"]):
        with pytest.raises(OutgoingURLError):
            check_outgoing_url("https://name.example/", resolve=lambda host, port, answers=answers: answers)
    with pytest.raises(OutgoingURLError):
        check_outgoing_url(f"https://{written}/")


@pytest.mark.parametrize("address", PUBLIC)
def test_10_T3_public_addresses_are_not_refused(address: str) -> None:
    """Among them the neighbours of each block."""
    assert check_outgoing_url("https://name.example/", resolve=resolves_to(address)).address == address


def resolves_to(address: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: [address]


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://0/",
        "https://1.1.1.1.1/",
        "https://127.0.0.1./",
        "https://127.0.0.1../",
        "https://name.example./",
        "https://name..example/",
        "https://.name.example/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:0x7f.1]/",
        "https://[v1.name]/",
        "https://name.example:443:80/",
        "https://name.example:+443/",
        "https://name.example%00.test/",
        "https://name.example%2etest/",
        "https://n\u00e4me.example/",
        "https://name\u3002example/",
        "https://name.example\u2044@127.0.0.1/",
        " https://name.example/",
        "https:name.example",
        "https:\\\\name.example/",
        "https://127.0.0.1%2f@name.example/",
        "https://name.example@127.0.0.1/",
        "https://user:password@name.example/",
        "https://name.example\\@127.0.0.1/",
        "https://name.example\t/",
        "https://name.example/\r\nHost: internal",
        "https://name.example/ HTTP/1.1",
        "https://\u2460\u2461\u2467.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://",
        "https:///path",
        "//name.example/",
        "/path",
        "",
        "http://name.example/",
        "file:///etc/passwd",
        "gopher://name.example:6379/_",
        "ftp://name.example/",
        "dict://name.example:11211/",
        "javascript:alert(1)",
        "https://name.example:22/",
        "https://name.example:6379/",
        "https://name.example:0/",
        "https://name.example:99999/",
    ],
)
def test_10_T3_other_ways_inside_are_refused(url: str) -> None:
    """Even if the resolver, as some do, makes a public address of it."""
    with pytest.raises(OutgoingURLError):
        check_outgoing_url(url, resolve=resolves_to("93.184.216.34"))


def test_10_S5_a_host_of_many_accents_is_refused_before_it_is_normalized(normalized: list[int]) -> None:
    with pytest.raises(OutgoingURLError):
        check_outgoing_url("https://" + "\u0301\u0316" * 5000 + ".example/")
    assert normalized == []


def test_10_T3_a_name_without_an_address_is_refused() -> None:
    def fails(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    for resolve in (fails, lambda host, port: [], resolves_to("no address")):
        with pytest.raises(OutgoingURLError):
            check_outgoing_url("https://name.example/", resolve=resolve)
    with pytest.raises(OutgoingURLError):
        check_outgoing_url(f"https://{'a' * 64}.example/")  # no resolver takes it


def test_10_T3_a_rebinding_name_is_pinned_to_the_address_that_was_checked() -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    out = check_outgoing_url("https://Name.Example/a?b=c#d", resolve=lambda host, port: next(answers))
    assert (out.host, out.port, out.address, out.target) == ("name.example", 443, "93.184.216.34", "/a?b=c")
    assert next(answers) == ["127.0.0.1"], "the name was resolved twice"


def test_10_T3_http_and_other_ports_are_for_those_who_ask_for_them() -> None:
    out = check_outgoing_url(
        "http://name.example:8080", schemes=("http",), ports=(8080,), resolve=resolves_to("2606:2800:220:1::1")
    )
    assert (out.port, out.address, out.target) == (8080, "2606:2800:220:1::1", "/")


def test_10_S5_nothing_is_fetched_past_the_guard(app: Flask) -> None:
    """A module that can fetch asks check_outgoing_url, or names it in a comment that says why it need not."""
    fetching = re.compile(r"(?m)^\s*(import|from) (urllib\.request|urllib3|http\.client|requests|httpx|aiohttp)\b")
    code = {path: path.read_text(encoding="utf-8") for path in Path(app.root_path).rglob("*.py")}
    past = [path.name for path, text in code.items() if fetching.search(text) and "check_outgoing_url" not in text]
    assert past == []


LARGE = b"x" * 70_000
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        server.answers["/"] = OK
        yield server


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return str(tmp_path / "authority.pem")


def fetch(origin: Origin, path: str = "/", **options: Any) -> Fetched:
    """Fetch from a server on loopback, which is the only address inside that may be fetched then."""
    return fetch_outgoing(origin.url + path, internal=[Internal(origin.url, reason="this test")], **options)


def test_10_S5_what_is_fetched_is_the_answer_and_nothing_of_this_server_goes_along(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine localhost login alice password wonderland")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    origin.answers["/?a=b"] = OK
    fetched = fetch(origin, "/?a=b#c")
    assert (fetched.status, fetched.body, fetched.headers["content-type"]) == (200, b"hello", "text/plain")
    (asked,) = origin.requests
    names = {line.partition(":")[0].lower() for line in asked.splitlines()[1:] if line}
    assert names == {"host", "user-agent", "accept-encoding", "connection"}
    assert f"Host: {origin.url.removeprefix('http://')}\r\n" in asked
    assert asked.startswith("GET /?a=b HTTP/1.1\r\n")
    assert not re.search(r"urllib|python|\d\.\d+\.", asked)


def test_10_T3_loopback_is_refused_unless_it_is_named_with_its_scheme_and_port(origin: Origin) -> None:
    port = origin.server_address[1]
    elsewhere = [Internal(f"http://localhost:{port + 1}", "x"), Internal(f"https://localhost:{port}", "x")]
    for url in (origin.url, f"http://127.0.0.1:{port}", f"http://[::ffff:127.0.0.1]:{port}"):
        for internal in ([], elsewhere):
            with pytest.raises(OutgoingURLError):
                fetch_outgoing(url, schemes=("http",), ports=(port,), internal=internal)
    with pytest.raises(OutgoingURLError):  # the same server by another name
        fetch_outgoing(f"http://127.0.0.1:{port}/", internal=[Internal(origin.url, "x")])
    assert origin.requests == []
    assert fetch(origin).body == b"hello"


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://localhost:80", " "),
        ("http://localhost", "x"),
        ("localhost:80", "x"),
        ("http://*:80", "x"),
        ("ftp://localhost:21", "x"),
        ("http://localhost:80/path", "x"),
        ("http://user@localhost:80", "x"),
        ("http://LOCALHOST:80", "x"),
    ],
)
def test_10_S5_an_internal_service_has_a_reason_and_an_exact_origin(where: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"reason|origin"):
        Internal(where, reason)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://168.63.129.16/",
        "//127.0.0.1:SECOND/",
        "http://127.0.0.1:SECOND/",
        "http://[::ffff:7f00:1]:SECOND/",
        "http://localhost:SECOND/",
        "http://2130706433:SECOND/",
        "http://127.1:SECOND/",
        "http://user@localhost:FIRST/",
        "file:///etc/passwd",
        "gopher://localhost:SECOND/_x",
        "http://name.example:6379/",
    ],
)
@pytest.mark.parametrize("status", [301, 307])
def test_10_T3_a_redirect_leads_to_nothing_that_the_url_could_not(origin: Origin, target: str, status: int) -> None:
    with Origin() as second:
        second.answers["/"] = OK
        first_port, second_port = (str(server.server_address[1]) for server in (origin, second))
        target = target.replace("FIRST", first_port).replace("SECOND", second_port)
        origin.redirect("/start", target, status)
        with pytest.raises(OutgoingURLError):
            fetch(origin, "/start", schemes=("http", "https"))
        assert second.requests == []
        assert len(origin.requests) == 1


def test_10_T3_redirects_are_followed_five_times_and_not_from_https_to_http(
    origin: Origin, authority: trustme.CA, ca_file: str
) -> None:
    for number in range(10):
        origin.redirect(f"/{number}", f"{number + 1}")
    origin.answers["/10"] = OK
    fetched = fetch(origin, "/5")
    assert (fetched.url, fetched.body) == (f"{origin.url}/10", b"hello")
    with pytest.raises(OutgoingURLError, match="more than 5 times"):
        fetch(origin, "/4")
    with Origin(authority) as secure:
        secure.answers["/"] = OK
        secure.redirect("/down", origin.url)
        origin.redirect("/up", secure.url + "/")
        both = [Internal(origin.url, "x"), Internal(secure.url, "x")]
        before = len(origin.requests)
        with pytest.raises(OutgoingURLError, match="from https"):
            fetch_outgoing(f"{secure.url}/down", internal=both, ca_file=ca_file)
        assert len(origin.requests) == before
        assert fetch_outgoing(f"{origin.url}/up", internal=both, ca_file=ca_file).url == f"{secure.url}/"


def test_10_T3_the_certificate_must_be_for_the_name_and_from_an_authority_that_is_known(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Origin(authority, name="other.test") as server:
        server.answers["/"] = OK
        for name in ("other.test", "name.test"):
            where = server.url.replace("other.test", name)
            monkeypatch.setattr(socket, "getaddrinfo", names_lead_to("127.0.0.1"))
            internal = [Internal(where, "x")]
            if name == "other.test":
                assert fetch_outgoing(where, internal=internal, ca_file=ca_file).body == b"hello"
            with pytest.raises(OutgoingURLError):
                fetch_outgoing(where, internal=internal, ca_file=ca_file if name == "name.test" else None)
        assert len(server.requests) == 1


real_getaddrinfo = socket.getaddrinfo


def names_lead_to(*answers: str) -> Callable[..., Any]:
    """A resolver that gives each look-up of a name the next answer, then the last one again; for tests."""
    rest = list(answers)

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if re.fullmatch(r"[\d.]+|.*:.*", host):  # no look-up
            return real_getaddrinfo(host, port, *args, **kwargs)
        addresses = (rest.pop(0) if len(rest) > 1 else rest[0]).split()
        return [found for each in addresses for found in real_getaddrinfo(each, port, type=socket.SOCK_STREAM)]

    return getaddrinfo


# What a resolver under an attacker's control says, first and later, and where the client may connect to.
@pytest.mark.parametrize(
    ("answers", "connected"),
    [
        (("93.184.216.34", "127.0.0.1"), ["93.184.216.34"]),
        (("127.0.0.1", "93.184.216.34"), []),
        (("93.184.216.34 127.0.0.1",), []),
        (("93.184.216.34 ::1",), []),
        (("2606:2800:220:1::1 169.254.169.254",), []),
    ],
)
def test_10_T3_no_answer_of_a_resolver_leads_inside(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], connected: list[str]
) -> None:
    seen = []

    def connect(self: socket.socket, address: tuple[Any, ...]) -> None:
        seen.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", names_lead_to(*answers))
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(OutgoingURLError):
        fetch_outgoing("http://rebind.test/", schemes=("http",))
    assert seen == connected
    assert origin.requests == []


def endless(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    yield from itertools.repeat(piece)


HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "status line": lambda: endless(b"HTTP/1.1 200 ", b"O"),
    "headers": lambda: endless(HEAD, b"X: y\r\n"),
    "one header": lambda: endless(HEAD + b"X: ", b"y"),
    "body": lambda: endless(HEAD + b"\r\n", b"x"),
    "body of a known length": lambda: endless(HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "chunks": lambda: endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": lambda: endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "interim answers": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing at all": lambda: endless(b"", b""),
}


@pytest.mark.parametrize("what", SLOW)
def test_10_T3_a_server_that_drips_is_left(origin: Origin, what: str) -> None:
    """Each piece comes in time, and the whole takes 25 times as long as allowed."""
    origin.answers["/slow"] = itertools.islice(SLOW[what](), 200)
    with pytest.raises(OutgoingURLError, match=r"more than 0\.4 seconds"):
        fetch(origin, "/slow", seconds=0.4)
    assert not any(thread.name.startswith("fetch_outgoing") for thread in leftovers())


def leftovers() -> list[threading.Thread]:
    """The threads that are still there after at most five seconds."""
    for thread in threading.enumerate():
        if thread.name.startswith("fetch_outgoing"):
            thread.join(5)
    return threading.enumerate()


def test_10_T3_a_resolver_that_takes_its_time_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(outgoing.socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    try:
        with pytest.raises(OutgoingURLError, match=r"more than 0\.2 seconds"):
            fetch_outgoing("https://name.example/", seconds=0.2)
    finally:
        over.set()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n" + b"11170\r\n%s\r\n0\r\n\r\n" % LARGE


@pytest.mark.parametrize("answer", [b"\r\n" + LARGE, b"Content-Length: 70000\r\n\r\n" + LARGE, CHUNKED])
def test_10_T3_a_body_is_as_long_as_allowed_and_not_longer(origin: Origin, answer: bytes) -> None:
    origin.answers["/"] = HEAD + answer
    assert fetch(origin, max_bytes=70_000).body == LARGE
    with pytest.raises(OutgoingURLError, match="more than 69999 bytes"):
        fetch(origin, max_bytes=69_999)


def test_10_T3_an_endless_body_ends(origin: Origin) -> None:
    origin.answers["/"] = endless(HEAD + b"\r\n", bytes(2**20))
    with pytest.raises(OutgoingURLError, match="more than 1048576 bytes"):
        fetch(origin, seconds=60)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"identity, gzip", b"GZIP", b"x-unknown"])
def test_10_T3_nothing_is_decompressed(origin: Origin, coding: bytes) -> None:
    """A megabyte in a kilobyte."""
    bomb = gzip.compress(bytes(10**6))
    origin.answers["/"] = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(bomb)) + bomb
    with pytest.raises(OutgoingURLError, match="compressed"):
        fetch(origin)


# A broken answer is one kind of error, which tells a visitor nothing of what is inside.
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 99999 x\r\n\r\n",
        HEAD + b"X: y\r\n" * 1000 + b"\r\n",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        HEAD + b"Content-Length: 10\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        b"HTTP/1.1 302 x\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: /\xff\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://user:secret@[::1\r\n\r\n",
    ],
)
def test_10_T3_a_broken_answer_is_an_error_that_may_be_shown(origin: Origin, answer: bytes) -> None:
    origin.answers["/"] = answer
    with pytest.raises(OutgoingURLError) as caught:
        fetch(origin)
    assert re.fullmatch(r"This address [a-z' ]+\.", str(caught.value))


def test_10_T3_an_error_does_not_tell_which_names_and_ports_exist_inside(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = set()
    for answer in ("127.0.0.1", "10.1.2.3", "no such name"):
        monkeypatch.setattr(socket, "getaddrinfo", names_lead_to(answer))
        with pytest.raises(OutgoingURLError) as caught:
            fetch_outgoing("https://intranet.example/secret?token=abc")
        said.add(str(caught.value))
    assert said == {"This address can't be fetched."}
    assert caplog.text.count("not fetched: https://intranet.example/secret: ") == 3
    assert "abc" not in caplog.text


def test_the_guard_is_where_it_has_always_been() -> None:
    assert urls.check_outgoing_url is check_outgoing_url
    assert urls.OutgoingURLError is OutgoingURLError
