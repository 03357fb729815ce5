"""``python -m tests.naive [PORT]`` serves the naive app beside the demo, for a class: on this machine only.

The app runs code for everybody who asks. So it listens on loopback, and answers only the browser that has opened the
address with the key that is printed here: other users of this machine could ask too. It refuses requests that a page of
another site has caused: the browser may have any other site open too.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable
from typing import Any

from flask import Flask
from werkzeug import Request, Response
from werkzeug.serving import BaseWSGIServer, make_server

from tests.naive.app import create_app

BANNER = b"""<p style="margin: 0; padding: 1em; background: #b00; color: #fff; font: bold 16px sans-serif">
This app is made to be attacked. Enter no real data, and never put it on a network.</p>"""


def guarded_server(app: Flask, port: int, key: str) -> BaseWSGIServer:
    """Return a server for the app on 127.0.0.1, for those who open ``/?key=…``. Port 0 means any free port."""
    naive = app.wsgi_app

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = Request(environ)
        origin = f"http://127.0.0.1:{server.port}"
        # Host stops DNS rebinding; the other two stop links, forms and scripts of other sites.
        if (
            asked.headers.get("Host") != f"127.0.0.1:{server.port}"
            or asked.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
            or asked.headers.get("Origin", origin) != origin
            or key not in (asked.args.get("key"), asked.cookies.get("naive-key"))
        ):
            return Response(f"Open {origin}/?key=… yourself, as make naive says.\n", 403)(environ, start_response)
        response = Response.from_app(naive, environ)
        if response.mimetype == "text/html":
            response.set_data(BANNER + response.get_data())
        response.set_cookie("naive-key", key, httponly=True, samesite="Strict")
        return response(environ, start_response)

    app.wsgi_app = guarded
    server = make_server("127.0.0.1", port, app, threaded=True)
    return server


if __name__ == "__main__":
    secret = secrets.token_urlsafe(16)
    running = guarded_server(create_app(), int(sys.argv[1]) if sys.argv[1:] else 8001, secret)
    print(f"The naive app is at http://127.0.0.1:{running.port}/?key={secret} (Ctrl-C stops it)")
    running.serve_forever()
