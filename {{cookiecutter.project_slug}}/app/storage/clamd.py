"""A client for the two clamd commands that this app needs (9.S6).

The protocol is simple (clamd(8), "COMMANDS"), and the packages for it are no longer maintained.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import IO
from urllib.parse import urlsplit

from app.storage.text import chunks

MAX_REPLY = 4096

# How clamd calls a file over one of its limits. The name of the limit in clamd.conf follows.
OVER_LIMIT = "Heuristics.Limits.Exceeded."


def ping(url: str, *, seconds: float) -> None:
    """Raise OSError unless the daemon at ``url`` answers within ``seconds``."""
    if (reply := _ask(url, [b"zPING\0"], seconds)) != "PONG":
        raise ConnectionError(f"clamd answered a ping with {reply!r}")


def scan(stream: IO[bytes], url: str, *, seconds: float) -> str | None:
    """Return the name of what the daemon at ``url`` finds in ``stream``, or None.

    The name is that of malware, or ``OVER_LIMIT`` and the limit because of which the file was not scanned.
    Raises OSError if there is no clear verdict within ``seconds``: the file must then count as unscanned.
    """
    reply = _ask(url, _instream(stream), seconds)
    if reply == "stream: OK":
        return None
    if reply.startswith("stream: ") and reply.endswith(" FOUND"):
        return reply.removeprefix("stream: ").removesuffix(" FOUND")
    if reply == "INSTREAM size limit exceeded. ERROR":
        return f"{OVER_LIMIT}StreamMaxLength"
    raise ConnectionError(f"clamd gave no verdict: {reply!r}")


def _instream(stream: IO[bytes]) -> Iterator[bytes]:
    yield b"zINSTREAM\0"
    for chunk in chunks(stream):
        yield struct.pack("!I", len(chunk)) + chunk
    yield struct.pack("!I", 0)


def _ask(url: str, request: Iterator[bytes] | list[bytes], seconds: float) -> str:
    """Send and receive under one deadline: a daemon that sends a byte per second must not block a thread forever."""
    deadline = time.monotonic() + seconds
    with _connect(url, seconds) as daemon:
        hung_up: ConnectionError | None = None
        try:
            for part in request:
                daemon.settimeout(_left(deadline))
                daemon.sendall(part)
        except ConnectionError as error:  # clamd hangs up on a file that is too long, and its answer says so
            hung_up = error
        reply = b""
        while not reply.endswith(b"\0") and len(reply) < MAX_REPLY:
            daemon.settimeout(_left(deadline))
            if not (received := daemon.recv(MAX_REPLY)):
                raise ConnectionError("clamd closed the connection before its answer was complete")
            reply += received
    if hung_up and not reply.endswith(b"ERROR\0"):  # no verdict counts on a part of a file
        raise hung_up
    return reply.rstrip(b"\0").decode(errors="replace")


def _connect(url: str, seconds: float) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        return socket.create_connection((parts.hostname, parts.port), timeout=seconds)
    daemon = socket.socket(socket.AF_UNIX)
    daemon.settimeout(seconds)
    try:
        daemon.connect(parts.path)
    except OSError:
        daemon.close()
        raise
    return daemon


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError("clamd did not answer in time")
    return left
