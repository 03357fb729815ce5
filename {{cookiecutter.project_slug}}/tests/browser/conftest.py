"""What the browser's tests share: becoming somebody, and looking at what is there."""

from __future__ import annotations

from playwright.sync_api import Page

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
