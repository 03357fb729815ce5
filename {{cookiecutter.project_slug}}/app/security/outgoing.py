"""Outgoing requests (SSRF), a part of mitigation 10: a visitor's URL must not reach what only this server can reach.

``fetch_outgoing`` fetches such a URL. ``check_outgoing_url`` is the guard that it calls for the URL and for each
redirect; call it yourself only if you need another client.
Source: OWASP SSRF Prevention Cheat Sheet; IANA Special-Purpose Address Registries; ASVS 5.0 V1.3.6.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

from app.project import SLUG

DEFAULT_PORTS = {"https": 443, "http": 80}
MAX_BYTES = 2**20
SECONDS = 10.0
MAX_REDIRECTS = 5
CHUNK = 64 * 1024  # bytes

# Not fetched: the rows of IANA's IPv4 and IPv6 Special-Purpose Address Registries that are not globally reachable,
# multicast, and what a cloud serves to its own machines at addresses that look public.
NOT_PUBLIC = """
    0.0.0.0/8           this network               RFC 791
    10.0.0.0/8          private use                RFC 1918
    100.64.0.0/10       shared address space       RFC 6598; a cloud's metadata: 100.100.100.200
    127.0.0.0/8         loopback                   RFC 1122
    161.26.0.0/16       a cloud's own services     IBM Cloud, not routed outside
    166.8.0.0/14        a cloud's own services     IBM Cloud, not routed outside
    168.63.129.16/32    a cloud's metadata         Azure
    169.254.0.0/16      link-local                 RFC 3927; most clouds' metadata: 169.254.169.254
    172.16.0.0/12       private use                RFC 1918
    192.0.0.0/24        IETF protocols             RFC 6890, 7335, 7600, 8880; a cloud's metadata: 192.0.0.192
    192.0.2.0/24        documentation              RFC 5737
    192.88.99.0/24      6to4 relays                RFC 7526, 6751
    192.168.0.0/16      private use                RFC 1918
    198.18.0.0/15       benchmarks                 RFC 2544
    198.51.100.0/24     documentation              RFC 5737
    203.0.113.0/24      documentation              RFC 5737
    224.0.0.0/4         multicast                  RFC 5771
    240.0.0.0/4         reserved and broadcast     RFC 1112, 919
    ::/96               unspecified, loopback, IPv4-compatible   RFC 4291
    ::ffff:0:0/96       IPv4-mapped                RFC 4291
    ::ffff:0:0:0/96     IPv4-translated            RFC 2765
    64:ff9b::/96        IPv4 behind NAT64          RFC 6052
    64:ff9b:1::/48      IPv4 behind NAT64          RFC 8215
    100::/64            discard                    RFC 6666
    100:0:0:1::/64      dummy                      RFC 9780
    2001::/23           IETF protocols             RFC 2928, 4380 (Teredo), 4843, 5180
    2001:db8::/32       documentation              RFC 3849
    2002::/16           6to4                       RFC 3056
    3fff::/20           documentation              RFC 9637
    5f00::/16           segment routing            RFC 9602
    fc00::/7            unique local               RFC 4193; a cloud's metadata: fd00:ec2::254
    fe80::/10           link-local                 RFC 4291
    fec0::/10           site-local                 RFC 3879
    ff00::/8            multicast                  RFC 4291
"""
_NOT_PUBLIC = tuple(ipaddress.ip_network(row.split()[0]) for row in NOT_PUBLIC.strip().splitlines())
# Only here has IANA assigned global unicast addresses: the rest of IPv6 is refused whatever the table says of it.
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
# No space, no control character, no backslash, nothing but ASCII.
_CLEAR_URL = re.compile(r"[!-\[\]-~]+")
# No dot at the end, which resolvers ignore, and certificates and SNI don't know.
_CLEAR_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f]*:[0-9a-f:.]*")

Resolver = Callable[[str, int], Collection[str]]

log = logging.getLogger(__name__)


class OutgoingURLError(ValueError):
    """The URL was not fetched. The message may be shown to the visitor; its ``__cause__`` is for the log alone."""


@dataclass(frozen=True)
class Internal:
    """A service of your own network that may be fetched: ``Internal("http://reports:8080", "monthly reports")``.

    Pass it only where you need it. The audit reports it as relaxed, with the reason.
    """

    origin: str
    reason: str

    def __post_init__(self) -> None:
        """Raise ValueError for an empty reason, or an origin that is not ``scheme://host:port``."""
        if not self.reason.strip():
            raise ValueError("An internal service needs a reason.")
        if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\]):[0-9]+", self.origin):
            raise ValueError(f"{self.origin!r} is not an origin with a port. Example: http://reports:8080")


@dataclass(frozen=True)
class OutgoingURL:
    """A URL that is safe to fetch: ``target`` (path and query) of ``host``, only at ``address`` and ``port``."""

    url: str
    host: str
    port: int
    address: str
    target: str
    scheme: str


@dataclass(frozen=True)
class Fetched:
    """The response from ``url``, after all redirects; ``body`` is in bytes, as it was sent.

    Its sender chose all of it: never serve ``body`` as a page.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def _resolve(host: str, port: int) -> Collection[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def check_outgoing_url(
    url: str | None,
    *,
    schemes: Collection[str] = ("https",),
    ports: Collection[int] = (443, 80),
    internal: Collection[Internal] = (),
    resolve: Resolver = _resolve,
) -> OutgoingURL:
    """Check a URL from an untrusted source before the server fetches it, and return what to fetch.

    The name is resolved once, and refused if any of its addresses is not public. Connect to ``address``: resolving
    the name again may return another address (DNS rebinding). Check each redirect's target before you follow it.

    ``internal`` services are allowed whatever their scheme, port and address are. Raises OutgoingURLError.
    """
    try:
        if not (url and _CLEAR_URL.fullmatch(url)):  # before urlsplit: it takes seconds for many accents in a row
            raise ValueError("nothing, or a character that clients interpret in different ways")
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
        port = DEFAULT_PORTS.get(scheme, 0) if parts.port is None else parts.port
        written = f"[{host}]" if ":" in host else host
        inside = f"{scheme}://{written}:{port}" in [each.origin for each in internal]
        if "@" in parts.netloc or not (inside or (scheme in schemes and port in ports)):
            raise ValueError("its scheme, port or user")
        if not _CLEAR_HOST.fullmatch(host):
            raise ValueError("a character that clients interpret in different ways")
        # 127.1, 2130706433, 0x7f000001: a host that ends in a number is an address (WHATWG), but not to all resolvers.
        is_address = "[" in parts.netloc or re.search(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", host)
        addresses = [ipaddress.ip_address(found) for found in ([host] if is_address else resolve(host, port))]
        if not addresses or not (inside or all(map(_is_public, addresses))):
            raise ValueError("an address that is not public")
    except (ValueError, OSError) as error:
        # One message for all: an attacker must not learn which names and addresses exist in this network.
        raise OutgoingURLError("This address can't be fetched.") from error
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return OutgoingURL(url, host, port, str(addresses[0]), target, scheme)


def fetch_outgoing(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    seconds: float = SECONDS,
    schemes: Collection[str] = ("https",),
    ports: Collection[int] = (443, 80),
    internal: Collection[Internal] = (),
    ca_file: str | None = None,
) -> Fetched:
    """GET a URL from an untrusted source, and return the response whatever its status is.

    It takes at most ``seconds`` in all, for names, redirects and slow servers together, and at most ``max_bytes`` of
    body. Up to 5 redirects are followed, each after the same check; none leads from https to http. ``schemes`` are
    https, http or both. ``ca_file`` replaces the system's certificate authorities, for those of your own network.
    No proxy, cookie or credential of this server is used. Raises OutgoingURLError.
    """
    # Imported here and in _get: loading urllib3 takes longer than most apps want to wait for their start.
    from urllib3.exceptions import HTTPError
    from urllib3.exceptions import TimeoutError as HTTPTimeout

    deadline = time.monotonic() + seconds
    opened: list[socket.socket] = []

    def follow() -> Fetched:
        following = url
        for _ in range(MAX_REDIRECTS + 1):
            out = check_outgoing_url(following, schemes=schemes, ports=ports, internal=internal)
            fetched = _get(out, max_bytes, deadline, ca_file, opened)
            if not (location := _redirects_to(fetched.status, fetched.headers)):
                return fetched
            following = urljoin(out.url, location)
            if out.scheme == "https" and not following.startswith("https:"):
                raise OutgoingURLError("This address redirects from https to another scheme.")
        raise OutgoingURLError(f"This address redirects more than {MAX_REDIRECTS} times.")

    # In a thread of its own: nothing else bounds a slow resolver, or a server that sends a byte at a time.
    thread = ThreadPoolExecutor(1, "fetch_outgoing")
    try:
        return thread.submit(follow).result(seconds)
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        message = "This address gives no complete answer."
        if isinstance(error, OutgoingURLError):
            message = str(error)
        elif isinstance(error, TimeoutError | HTTPTimeout):
            message = f"This address takes more than {seconds:g} seconds to answer."
        log.warning("not fetched: %s: %s (%r)", url.partition("?")[0], message, error.__cause__ or error)
        raise OutgoingURLError(message) from error
    finally:
        thread.shutdown(wait=False)
        for each in opened:
            with contextlib.suppress(OSError):  # already closed
                each.shutdown(socket.SHUT_RDWR)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.version == 6:
        # ISATAP (RFC 5214, 6.1) embeds an IPv4 address in any prefix, after these 32 bits.
        isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE
        if isatap or address not in _GLOBAL_IPV6:
            return False
    return not any(address in network for network in _NOT_PUBLIC)


def _get(
    out: OutgoingURL, max_bytes: int, deadline: float, ca_file: str | None, opened: list[socket.socket]
) -> Fetched:
    """Send one request to the address that was checked, under the name that the URL has."""
    from urllib3.connection import HTTPConnection, HTTPSConnection

    connection = (
        HTTPSConnection(
            out.address,
            out.port,
            timeout=_left(deadline),
            ssl_context=ssl.create_default_context(cafile=ca_file),
            server_hostname=out.host,  # the certificate must be for this name
        )
        if out.scheme == "https"
        else HTTPConnection(out.address, out.port, timeout=_left(deadline))
    )
    with contextlib.closing(connection):
        connection.connect()
        opened.append(connection.sock)  # the caller ends a read here when its time is up
        _left(deadline)
        headers = {
            "Host": urlsplit(out.url).netloc,
            "User-Agent": SLUG,
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", out.target, headers=headers, preload_content=False, decode_content=False)
        response = connection.getresponse()
        body = bytearray()
        if not _redirects_to(response.status, response.headers):
            # Nothing is decompressed: a kilobyte could become a gigabyte.
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise OutgoingURLError("This address sends a compressed answer, which was not asked for.")
            while part := response.read(min(CHUNK, max_bytes + 1 - len(body))):
                _left(deadline)
                body += part
                if len(body) > max_bytes:
                    raise OutgoingURLError(f"This address sends more than {max_bytes} bytes.")
        return Fetched(out.url, response.status, response.headers, bytes(body))


def _redirects_to(status: int, headers: Mapping[str, str]) -> str | None:
    return headers.get("Location") if status in (301, 302, 303, 307, 308) else None


def _left(deadline: float) -> float:
    """Return the seconds left. Raises TimeoutError if there are none."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left
