"""Another site, over TLS: what a visitor's browser may be lured to. It remembers every request it gets."""

from __future__ import annotations

import http.server
import ssl
import threading
from typing import Any

import trustme

HOST = "attacker.test"


class Site:
    """``page(html)`` publishes a page and gives its address; ``requests`` holds the paths asked for.

    ``host`` is any name that the browser looks up at this machine.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.html = b""
        self.requests: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(site.html)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(tls)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def page(self, html: str, host: str = HOST) -> str:
        self.html = html.encode()
        return f"https://{host}:{self.server.server_port}/"

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
