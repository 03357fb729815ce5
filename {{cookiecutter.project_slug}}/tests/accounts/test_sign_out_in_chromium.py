"""What a sign-out leaves behind in a browser that the next person uses."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.conftest import become_member
from tests.conftest import Server

STORE = """async () => {
  localStorage.setItem("draft", "private"); sessionStorage.setItem("draft", "private");
  await new Promise(done => { indexedDB.open("draft").onsuccess = done; });
}"""
STORED = """async () => [
  ...Object.keys(localStorage), ...Object.keys(sessionStorage), ...(await indexedDB.databases()).map(each => each.name)
]"""


def test_4_S4_after_the_sign_out_the_browser_has_nothing_left(serve: Callable[..., Server], page: Page) -> None:
    server = serve()
    become_member(page, server)
    page.goto(f"{server.url}/account")
    assert "alice@example.com" in page.content()
    page.evaluate(STORE)
    assert page.evaluate(STORED) == ["draft"] * 3
    page.get_by_role("button", name="Sign out").first.click()
    page.get_by_text("You are signed out.").wait_for()
    assert page.evaluate(STORED) == []
    for _ in range(3):
        page.go_back()
        assert "alice@example.com" not in page.content()
        assert page.url != f"{server.url}/account"
