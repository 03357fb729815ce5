"""Hostile files in a real browser: what was taken does nothing there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import CDPSession, Page, Route, expect

from tests.browser.conftest import become_member, upload_names
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


def devtools(page: Page) -> CDPSession:
    return page.context.new_cdp_session(page)


def test_an_upload_shows_its_percentage_and_can_be_cancelled(serve: Callable[..., Server], page: Page) -> None:
    server = serve()
    become_member(page, server)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    tools = devtools(page)
    tools.send("Network.enable")
    tools.send("Network.emulateNetworkConditions", slow)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    text = b"a line of text\n" * 40_000  # six seconds
    files = [{"name": name, "mimeType": "text/plain", "buffer": text} for name in ("first.txt", "second.txt")]
    page.set_input_files("#upload [type=file]", files)  # type: ignore[arg-type]
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#upload output")).to_have_text(re.compile("^([1-9]|[1-4][0-9]) %$"))
    with page.expect_event("requestfailed") as failed:
        page.get_by_role("button", name="Cancel").click()
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(page.locator("#upload-results p")).to_have_text(["first.txt: cancelled.", "second.txt: cancelled."])
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    expect(page.get_by_role("button", name="Upload")).to_be_focused()
    assert sent.count(f"{server.url}/uploads") == 1
    assert upload_names(page, server) == []


def test_what_was_sent_already_is_not_called_cancelled(serve: Callable[..., Server], page: Page) -> None:
    server = serve()
    become_member(page, server)
    tools = devtools(page)
    answers: list[dict[str, str]] = []
    tools.on("Fetch.requestPaused", lambda answer: answers.append(answer))
    tools.send("Fetch.enable", {"patterns": [{"urlPattern": "*/uploads", "requestStage": "Response"}]})
    page.set_input_files("#upload [type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    page.click("#upload [type=submit]")
    expect(page.locator("#upload output")).to_have_text("100 %")
    while not answers:
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Cancel").click()
    tools.send("Fetch.continueResponse", {"requestId": answers[0]["requestId"]})
    tools.send("Fetch.disable")
    expect(page.locator("#upload-results p")).to_have_text("a.txt: uploaded.")
    expect(page.locator("#files bdi")).to_have_text("a.txt")
