"""Mitigation 7 in Chromium, with the CSP switched off: escaping alone must keep every payload from running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

from tests import payloads
from tests.browser.conftest import become_member
from tests.conftest import Server

SAMPLE = [
    "<script>hacked()</script>",
    "<img src=hacked onerror=hacked()>",
    '"><svg/onload=hacked()>',
    "</title><script>hacked()</script>",
    "</textarea><script>hacked()</script>",
    "' autofocus onfocus='hacked()",
    '" autofocus onfocus="hacked()',
    "<details open ontoggle=hacked()>",
    '<iframe srcdoc="<script>parent.hacked()</script>"></iframe>',
    "javascript:hacked()",
    payloads.strings("xss.txt")[-1],
]


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


def poke(page: Page) -> None:
    """Do to a page what sets off handlers that nothing else does."""
    page.evaluate(
        """async () => {
            for (const element of document.querySelectorAll("*"))
                for (const kind of ["mouseover", "focus", "toggle", "load", "error"])
                    element.dispatchEvent(new Event(kind));
            await new Promise(resolve => setTimeout(resolve, 50));
        }"""
    )


def test_the_payloads_run_where_nothing_escapes_them(page: Page, hacks: list[str]) -> None:
    page.set_content("".join(f"<p>{payload}</p><p title='{payload}'>" for payload in SAMPLE[:4]))
    poke(page)
    assert len(hacks) >= 4


def test_7_T2_nothing_runs_on_the_leaving_page(page: Page, hacks: list[str], serve: Callable[..., Server]) -> None:
    server = serve(ALLOWED_REDIRECT_HOSTS="docs.example.com")
    for payload in SAMPLE:
        page.goto(f"{server.url}/redirect?next={quote(f'https://docs.example.com/?{payload}#{payload}')}")
        assert page.locator(".host").inner_text() == "docs.example.com"
        poke(page)
    assert hacks == []


# % if cookiecutter.accounts
def test_7_T2_nothing_runs_in_a_form_that_comes_back(
    page: Page, hacks: list[str], serve: Callable[..., Server]
) -> None:
    server = serve()
    for payload in SAMPLE[:5]:  # no more: the rate limit
        page.goto(f"{server.url}/register")
        page.evaluate("document.querySelector('main form').noValidate = true")
        page.evaluate("document.querySelector('main [name=email]').type = 'text'")
        page.fill("main [name=email]", payload)
        page.click("main [type=submit]")
        assert page.input_value("main [name=email]") == payload
        poke(page)
    assert hacks == []


# % endif
def test_7_T2_nothing_runs_among_the_uploads(
    page: Page, hacks: list[str], serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    become_member(page, server)
    for payload in SAMPLE:
        file = {"name": f"{payload}.txt", "mimeType": "text/plain", "buffer": payload.encode()}
        page.set_input_files("main [name=file]", file)  # type: ignore[arg-type]
        page.click("main [type=submit]")
        page.wait_for_load_state("networkidle")
        poke(page)
    page.goto(f"{server.url}/uploads")
    assert page.locator("#files bdi").count() == len(SAMPLE)
    poke(page)
    assert hacks == []
