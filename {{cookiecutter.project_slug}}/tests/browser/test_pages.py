"""The pages in Chromium: nothing is blocked by the app's own policy, and everything fits a phone."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from playwright.sync_api import ConsoleMessage, Page

from tests.browser.conftest import become_member
from tests.conftest import Server, new_member, pages


def test_no_page_trips_over_the_policy_or_runs_off_a_phone(
    app: Flask, serve: Callable[..., Server], page: Page
) -> None:
    server = serve(ALLOWED_REDIRECT_HOSTS="docs.example.com")
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # Chromium warns of a header that it can't read, or of a feature that it doesn't know. What a relaxed page loads
        # from other hosts is not there in a test.
        is_away = message.text.endswith("net::ERR_CONNECTION_REFUSED") and server.url not in message.location["url"]
        if message.type in ("error", "warning") and not is_away:
            faults.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_viewport_size({"width": 390, "height": 800})
    become_member(page, server)
    for path in [*pages(new_member(app)), "/redirect?next=https://docs.example.com/"]:
        page.goto(server.url + path)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append(f"{path} is wider than the screen")
    assert faults == []


def test_a_refused_visitor_sees_the_wait_run_down(serve: Callable[..., Server], page: Page) -> None:
    server = serve(RATELIMIT_DEFAULT="1 per hour")
    page.clock.install()
    page.goto(server.url)
    page.reload()
    again = page.get_by_role("button", name="Try again")
    assert again.is_disabled()
    page.clock.fast_forward("01:00:01")
    page.get_by_text("You can try again now.").wait_for()
    assert again.is_enabled()
