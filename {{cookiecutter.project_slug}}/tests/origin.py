"""A server on loopback that answers as it is told, well or badly, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import re
import socketserver
import ssl
import threading
from collections.abc import Iterable

import trustme

NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Origin(socketserver.ThreadingTCPServer):
    """``answers[path]`` is the bytes of a response, or pieces of it, one every 0.05 seconds until nobody listens."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, authority: trustme.CA | None = None, name: str = "localhost") -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.answers: dict[str, bytes | Iterable[bytes]] = {}
        self.requests: list[str] = []
        self.over = threading.Event()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if authority else None
        if authority and self.tls:
            authority.issue_cert(name).configure_cert(self.tls)
        self.url = f"http{'s' if authority else ''}://{name}:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def redirect(self, path: str, target: str, status: int = 302) -> None:
        """Answer ``path`` with a redirect."""
        self.answers[path] = f"HTTP/1.1 {status} x\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()

    def __enter__(self) -> Origin:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Session(socketserver.BaseRequestHandler):
    server: Origin

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client has hung up, or trusts no such certificate
            connection = self.request
            if self.server.tls:
                connection = self.server.tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (read := connection.recv(4096)):
                    head += read
                if not head:  # a browser connects in advance
                    return
                announced = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                missing = int(announced[1]) - len(head.partition(b"\r\n\r\n")[2]) if announced else 0
                while missing > 0 and (read := connection.recv(4096)):
                    missing -= len(read)
                self.server.requests.append(head.decode("latin-1"))
                answer = self.server.answers.get(head.split()[1].decode(), NOTHING)
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    for piece in answer:
                        connection.sendall(piece)
                        if self.server.over.wait(0.05):
                            break
