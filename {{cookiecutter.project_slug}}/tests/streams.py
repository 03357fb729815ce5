"""The app with answers that take their time, for gunicorn: ``tests.streams:app``.

STREAM names a file: what waits for it goes on as soon as it is there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Response, request
from flask_sock import Sock
from simple_websocket import Server

from app.security.csrf import exempt
from app.visitors import public
from wsgi import app

sockets = Sock(app)


@app.get("/tested-events")
@public
def events() -> Response:
    """Server-sent events: one at once, one when STREAM is there."""

    def tell() -> Iterator[str]:
        yield "data: first\n\n"
        while not Path(os.environ["STREAM"]).exists():
            time.sleep(0.02)
        yield "data: last\n\n"

    return Response(tell(), mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


@app.get("/tested-large")
@public
def large() -> Response:
    """More than fits in the buffers of any connection."""
    return Response((bytes(2**16) for _ in range(512)), mimetype="application/octet-stream")


@app.route("/tested-death", methods=["GET", "POST"])
@public
@exempt("a test has no token")
def death() -> str:
    """Kill the worker of the first request during that request."""
    if not (killed := Path(os.environ["STREAM"])).exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.get("/tested-upgrade")
@public
def upgrade() -> dict[str, str | None]:
    return {name: request.headers.get(name) for name in ("Upgrade", "Connection")}


@sockets.route("/tested-echo")
@public
def echo(connection: Server) -> None:
    """Repeat each message; end with the client, or at once after "end"."""
    while (message := connection.receive()) != "end":
        connection.send(message)
