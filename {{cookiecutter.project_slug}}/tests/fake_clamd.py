"""A virus scanner on loopback that speaks clamd's protocol, well or badly."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from typing import Any


class FakeClamd(socketserver.ThreadingTCPServer):
    """Answers each INSTREAM as ``behaviour`` says: with that reply, or it will ``hang``, ``close`` or ``drip``.

    With ``early`` before a reply, it gives that after the first bytes, and hangs up. A reply takes ``seconds``.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, behaviour: str, seconds: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.behaviour, self.seconds = behaviour, seconds
        self.received: list[bytes] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FakeClamd:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: FakeClamd

    def handle(self) -> None:
        if self.server.behaviour == "close":
            return
        assert self.rfile.read(10) == b"zINSTREAM\0"
        if self.server.behaviour.startswith("early "):
            self.wfile.write(self.server.behaviour.removeprefix("early ").encode())
            return
        content = b""
        while length := struct.unpack("!I", self.rfile.read(4))[0]:
            content += self.rfile.read(length)
        self.server.received.append(content)
        if self.server.behaviour == "hang":
            self.server.over.wait(30)
        elif self.server.behaviour == "drip":
            with contextlib.suppress(OSError):  # the client has hung up
                for byte in b"stream: OK\0":  # a good verdict, for a client that waits for its end
                    self.server.over.wait(0.1)
                    self.wfile.write(bytes([byte]))
        else:
            self.server.over.wait(self.server.seconds)
            self.wfile.write(self.server.behaviour.encode())
