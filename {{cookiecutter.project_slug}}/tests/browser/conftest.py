"""What the browser's tests share: becoming somebody, looking at what is there, and serving views of their own."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask
from playwright.sync_api import Page
from werkzeug.serving import make_server

from app import create_app, relaxations
from tests.conftest import Server


def become_member(page: Page, server: Server) -> None:
    """Do what a new visitor does until uploads are open."""
    if page.request.get(f"{server.url}/register").ok:  # there are accounts
        for form in ("register", "login"):
            page.goto(f"{server.url}/{form}")
            page.fill("main [name=email]", "alice@example.com")
            for field in page.locator("main [type=password]").all():
                field.fill("correct horse battery staple 42")
            page.click("main [type=submit]")
    page.goto(f"{server.url}/uploads")


def upload_names(page: Page, server: Server) -> list[str]:
    """The names that the uploads page lists."""
    page.goto(f"{server.url}/uploads")
    return page.locator("#files bdi").all_inner_texts()


@pytest.fixture
def serve_views(
    app_config: dict[str, object], authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Serve the app with the views that ``add`` adds to it. ``without`` takes headers out of every response.

    What app/relaxations.py lists is left out: these views are attacked, or relaxed, on their own.
    """
    monkeypatch.setattr(relaxations, "RELAXATIONS", ())
    running = ExitStack()

    def start(add: Callable[[Flask], None], *, without: tuple[str, ...] = (), debug: bool = False) -> str:
        config = app_config | {"FLASK_DEBUG": debug, "RATELIMIT_DEFAULT": "9999 per minute"}
        with ThreadPoolExecutor(1) as aside:  # Playwright's event loop runs in this thread, and async teardowns mind
            app = aside.submit(create_app, config).result()
        app.instance_path = str(tmp_path)
        add(app)
        tls = None
        if not debug:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(tls)
        server = make_server("127.0.0.1", 0, stripped(app, without), threaded=True, ssl_context=tls)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.callback(thread.join)
        running.callback(server.shutdown)
        return f"http{'' if debug else 's'}://localhost:{server.server_port}"

    with running:
        yield start


def stripped(app: Flask, without: tuple[str, ...]) -> Any:
    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [pair for pair in headers if pair[0] not in without], *exc_info)

        return app(environ, start)

    return serve


def reports(folder: Path, before: int = 0) -> list[dict[str, str]]:
    """The reports that came in, when they are more than ``before``, or after three seconds."""
    file, found = folder / "csp-reports.jsonl", []
    for _ in range(30):
        if file.exists() and len(found := [json.loads(line) for line in file.read_text().splitlines()]) > before:
            break
        time.sleep(0.1)
    return found
