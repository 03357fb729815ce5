"""WebSockets, with flask-sock: who may open one, and that its end is none of the log's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.test import EnvironBuilder

from app.visitors import public
from tests.conftest import Server, browser_like

CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000, normal closure (RFC 6455, 7.4.1)
CLOSED = b"\x88\x02\x03\xe8"


def text(message: bytes) -> bytes:
    """A frame from a client, under a mask of zeros (RFC 6455, 5.2)."""
    return b"\x81" + bytes([0x80 | len(message)]) + b"\0\0\0\0" + message


def handshake(path: str = "/tested-echo", **headers: str) -> bytes:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"} | headers
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def own(server: Server) -> dict[str, str]:
    return {"Host": f"localhost:{server.port}", "Origin": server.url}


# How it ends → what the client sends at last, and what it may get then. simple-websocket answers a client's close in
# one thread while the view ends in another: the view may be faster.
ENDS = {
    "the client closes": (CLOSE, {CLOSED, b""}),
    "the view returns": (text(b"end"), {CLOSED}),
    "the client is gone": (b"", set()),
}


@pytest.mark.parametrize("end", ENDS)
def test_5_S4_the_normal_end_of_a_socket_is_no_error(serve_proxied: Callable[..., Server], end: str) -> None:
    server = serve_proxied("tests.streams:app", THREADS=1, ACCESS_LOG=1)
    last, answers = ENDS[end]
    with server.raw() as connection:
        connection.sendall(handshake(**own(server)))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        for message in (b"0", "Grüße".encode()):
            connection.sendall(text(message))
            assert connection.recv(4096) == b"\x81" + bytes([len(message)]) + message
        if last:
            connection.sendall(last)
            assert connection.recv(4096) in answers
            assert connection.recv(4096) == b"", "something follows the end"
    assert server.request("/healthz")[0] == 200  # by the only thread: so the view has ended
    log = server.log.read_text()
    assert [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line] == []
    assert "method=GET route=/tested-echo status=0 " in log


# Who opens it → the headers, and the status. A page can't choose its Origin.
OPENERS: dict[str, tuple[dict[str, str], bytes]] = {
    "a page of this site": ({}, b"101"),
    "a page of another site": ({"Origin": "https://attacker.test"}, b"400"),
    "a page of another port": ({"Origin": "https://localhost:1"}, b"400"),
    "a page over http": ({"Origin": "http://localhost:{port}"}, b"400"),
    "a page of a look-alike": ({"Origin": "https://localhost:{port}.attacker.test"}, b"400"),
    "a page without an origin": ({"Origin": "null"}, b"400"),
    "another site, with our Referer": ({"Origin": "https://attacker.test", "Referer": "{url}/"}, b"400"),
    "a page that the browser calls foreign": ({"Sec_Fetch_Site": "cross-site"}, b"400"),
    "a page of another site, in capitals": ({"Origin": "https://attacker.test", "Upgrade": "WebSocket"}, b"400"),
}


def test_2_S6_a_socket_opens_from_a_page_of_this_site_alone(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied("tests.streams:app")
    for opener, (headers, status) in OPENERS.items():
        headers = {name: value.format(port=server.port, url=server.url) for name, value in headers.items()}
        with server.raw() as connection:
            connection.sendall(handshake(**own(server) | headers))
            assert (opener, connection.recv(4096)[9:12]) == (opener, status)
            connection.sendall(CLOSE)


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "websocket, h2c", "h2c,websocket"])
def test_2_S6_no_spelling_of_the_upgrade_gets_past_the_origin(app: Flask, upgrade: str) -> None:
    """Without a proxy; some servers of WebSockets read a list."""
    app.add_url_rule("/tested-socket", view_func=public(lambda: "open"))
    answer = browser_like(app).get("/tested-socket", headers={"Upgrade": upgrade, "Origin": "https://attacker.test"})
    assert answer.status_code == 400


class Silent(Response):
    """A response like flask-sock's where the server knows that the connection is taken: it calls nobody."""

    def __call__(self, *_: Any) -> Any:
        return []


class Ending(Response):
    """A response like flask-sock's under gunicorn."""

    def __call__(self, *_: Any) -> Any:
        raise StopIteration


def ask(app: Flask, path: str, **headers: str) -> list[str]:
    """Call the app as a server does; give the statuses that it sends."""
    environ = EnvironBuilder(path, "https://localhost", headers={"Origin": "https://localhost", **headers})
    sent: list[str] = []
    list(app.wsgi_app(environ.get_environ(), lambda status, *_: sent.append(status)))  # type: ignore[arg-type, return-value, func-returns-value]
    return sent


def test_5_S4_what_ends_a_socket_reaches_the_server_and_a_fault_does_not(app: Flask) -> None:
    app.add_url_rule("/tested-silent", "silent", public(Silent))
    app.add_url_rule("/tested-ending", "ending", public(Ending))
    assert ask(app, "/tested-silent", Upgrade="websocket") == []
    with pytest.raises(StopIteration):
        ask(app, "/tested-ending", Upgrade="websocket")
    assert ask(app, "/tested-ending") == ["500 INTERNAL SERVER ERROR"]
