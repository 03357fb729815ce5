"""The pages of accounts in Chromium: the wait at the sign-in, the list of sessions, and what axe-core finds there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.accounts.people import PASSWORD
from tests.browser.axe import faults
from tests.browser.conftest import become_member
from tests.conftest import Server
from tests.test_scanners import scanners  # noqa: F401 - a fixture


def sign_in(page: Page, server: Server, password: str = PASSWORD) -> None:
    page.goto(f"{server.url}/login")
    page.get_by_label("E-mail address", exact=True).fill("alice@example.com")
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_8_S5_the_sign_in_form_counts_the_wait_down_and_then_works(
    serve: Callable[..., Server],
    browser: Browser,
    page: Page,
    scanners: Path,  # noqa: F811
) -> None:
    server = serve()
    become_member(page, server)
    page = browser.new_page(ignore_https_errors=True)
    for _ in range(20):  # the waits are 1, 2, 4 … seconds: at last the browser is faster
        sign_in(page, server, "not the password")
        if page.get_by_role("timer").count():
            break
    expect(page.get_by_label("E-mail address", exact=True)).to_have_value("alice@example.com")
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    expect(page.get_by_role("link", name="Reset it by mail")).to_be_visible()
    assert faults(page, scanners) == []
    page.get_by_text("You can try again now.").wait_for(timeout=120_000)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Account", exact=True)).to_be_visible()
    page.context.close()


def test_a_session_is_ended_by_its_name(
    serve: Callable[..., Server],
    browser: Browser,
    page: Page,
    scanners: Path,  # noqa: F811
) -> None:
    server = serve()
    become_member(page, server)
    firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0"
    other = browser.new_page(ignore_https_errors=True, user_agent=firefox)
    sign_in(other, server)
    page.goto(f"{server.url}/account")
    assert faults(page, scanners) == []
    page.get_by_role("button", name="End session of Firefox on Windows").click()
    expect(page.get_by_text("That session has ended.")).to_be_visible()
    other.reload()
    expect(other.get_by_role("link", name="Account", exact=True)).to_be_hidden()
    other.context.close()
