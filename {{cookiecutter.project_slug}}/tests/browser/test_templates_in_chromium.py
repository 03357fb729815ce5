"""Mitigation 7 in Chromium, with the CSP switched off: escaping alone must keep every payload from running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, Route

from tests import payloads
from tests.browser.conftest import become_member
from tests.conftest import ORIGIN, Server, browser_like
from tests.test_07_templates import app_with_echo

SAMPLE = [
    "<script>hacked()</script>",
    "<img src=hacked onerror=hacked()>",
    '"><svg/onload=hacked()>',
    "'><svg/onload=hacked()>",
    "</title><script>hacked()</script>",
    "</textarea><script>hacked()</script>",
    "' autofocus onfocus='hacked()",
    '" autofocus onfocus="hacked()',
    "<details open ontoggle=hacked()>",
    '<iframe srcdoc="<script>parent.hacked()</script>"></iframe>',
    "javascript:hacked()",
    "java\tscript:hacked()",
    payloads.strings("xss.txt")[-1],
]


@pytest.fixture
def app(app_config: dict[str, object]) -> Flask:
    return app_with_echo(app_config)


@pytest.fixture
def hacks() -> list[str]:
    """The addresses of pages in which a payload has run."""
    return []


@pytest.fixture
def page(browser: Browser, hacks: list[str]) -> Iterator[Page]:
    context = browser.new_context(ignore_https_errors=True, bypass_csp=True)
    context.expose_binding("hacked", lambda source: hacks.append(source["frame"].url))
    yield context.new_page()
    context.close()


def serve_inside(page: Page, app: Flask) -> None:
    """Let the app answer the browser without a server between them."""
    client = browser_like(app)

    def answer(route: Route) -> None:
        address = urlsplit(route.request.url)
        with client.get(f"{address.path}?{address.query}") as got:
            route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.data)

    page.route(f"{ORIGIN}/**", answer)


def visit(page: Page, address: str) -> None:
    """Open a page, set off what waits for a mouse or a focus, and follow its link if that may run something."""
    page.goto(address)
    page.evaluate(
        """() => {
            for (const element of document.querySelectorAll("*"))
                for (const kind of ["mouseover", "focus", "toggle", "load", "error"])
                    element.dispatchEvent(new Event(kind));
            const link = document.querySelector("p + a");
            if (link && !["https:", "about:"].includes(link.protocol)) link.click();
        }"""
    )
    page.wait_for_timeout(50)


def test_7_T2_nothing_runs(app: Flask, page: Page, hacks: list[str]) -> None:
    serve_inside(page, app)
    for payload in SAMPLE:
        visit(page, f"{ORIGIN}/tested-echo?payload={quote(payload)}")
        visit(page, f"{ORIGIN}/redirect?next={quote(f'https://docs.example.com/?{payload}#{payload}')}")
    assert hacks == []


def test_7_T2_without_the_mitigation_every_payload_runs(app: Flask, page: Page, hacks: list[str]) -> None:
    app.jinja_env.bytecode_cache = None  # the other tests' templates are compiled with escaping
    app.jinja_env.autoescape = False
    app.jinja_env.filters["safe_url"] = str
    serve_inside(page, app)
    for payload in SAMPLE:
        hacks.clear()
        visit(page, f"{ORIGIN}/tested-echo?payload={quote(payload)}")
        assert hacks, payload


def test_7_T2_nothing_runs_among_the_uploads(page: Page, hacks: list[str], serve: Callable[..., Server]) -> None:
    server = serve()
    become_member(page, server)
    files = [{"name": f"{payload}.txt", "mimeType": "text/plain", "buffer": payload.encode()} for payload in SAMPLE]
    page.set_input_files("main [name=file]", files)  # type: ignore[arg-type]
    page.click("main [type=submit]")
    page.wait_for_function("document.querySelector('main [name=file]').value === ''")
    assert page.locator("#upload-results p.done").count() == len(SAMPLE)
    visit(page, f"{server.url}/uploads")
    assert page.locator("#files bdi").count() == len(SAMPLE)
    assert hacks == []
