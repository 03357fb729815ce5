"""Hostile files in a real browser: what was taken does nothing there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import become_member
from tests.conftest import Server
from tests.samples import GOOD, HTML


def send(page: Page, name: str, media_type: str, content: bytes) -> None:
    page.set_input_files("#upload [type=file]", {"name": name, "mimeType": media_type, "buffer": content})
    page.click("#upload [type=submit]")
    page.locator("#files bdi", has_text=name).wait_for()


@pytest.fixture
def hostile(serve: Callable[..., Server], page: Page) -> str:
    """The address of an uploaded text that is a page with a script."""
    server = serve()
    become_member(page, server)
    send(page, "page.txt", "text/plain", HTML)
    return server.url + str(page.get_by_role("link", name="Download page.txt").get_attribute("href"))


def test_9_T2_a_page_in_a_text_is_only_downloaded(hostile: str, page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_role("link", name="Download page.txt").click()
    assert download.value.suggested_filename == "page.txt"
    assert Path(download.value.path()).read_bytes() == HTML


@pytest.mark.parametrize(("dropped", "title"), [((), ""), (("content-security-policy",), "pwned")])
def test_9_T2_a_page_in_a_text_is_inert_even_where_it_is_shown(
    hostile: str, page: Page, dropped: tuple[str, ...], title: str
) -> None:
    """Who ignores the type and the attachment still meets the sandbox; without that, the script would run."""

    def show(route: Route) -> None:
        answer = route.fetch()
        kept = {name: value for name, value in answer.headers.items() if name not in (*dropped, "content-disposition")}
        route.fulfill(response=answer, headers=kept | {"content-type": "text/html"})

    page.route(hostile, show)
    page.goto(hostile)
    assert page.title() == title


def test_9_S7_an_image_is_shown_on_demand(serve: Callable[..., Server], page: Page) -> None:
    server = serve()
    become_member(page, server)
    send(page, "drawing.png", "image/png", GOOD["drawing.png"])
    page.get_by_role("link", name="View drawing.png").click()
    page.wait_for_url("**inline=1")
    assert page.evaluate("document.images[0].naturalWidth") == 60
