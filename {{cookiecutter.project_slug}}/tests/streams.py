"""The app with answers that take their time, for gunicorn: ``tests.streams:app``.

STREAM names a file: what waits for it goes on as soon as it is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Response, request

from wsgi import app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

inner = app.wsgi_app


@app.get("/events")
def events() -> Response:
    """Server-sent events: one at once, one when STREAM is there."""

    def tell() -> Iterator[str]:
        yield "data: first\n\n"
        while not Path(os.environ["STREAM"]).exists():
            time.sleep(0.02)
        yield "data: last\n\n"

    return Response(tell(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


@app.get("/large")
def large() -> Response:
    """More than fits in the buffers of any connection."""
    return Response((bytes(2**16) for _ in range(512)), mimetype="application/octet-stream")


@app.get("/upgrade")
def upgrade() -> dict[str, str | None]:
    return {name: request.headers.get(name) for name in ("Upgrade", "Connection")}


def with_websocket(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Echo bytes on /echo, after the handshake that opens a WebSocket. Their frames are of no interest here."""
    if environ["PATH_INFO"] != "/echo" or environ.get("HTTP_UPGRADE") != "websocket":
        return inner(environ, start_response)
    connection = environ["gunicorn.socket"]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    while received := connection.recv(4096):
        connection.sendall(received)
    start_response("200 OK", [])  # for gunicorn; nobody is there to get it
    return []


app.wsgi_app = with_websocket  # type: ignore[method-assign]
