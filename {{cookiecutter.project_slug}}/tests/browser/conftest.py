"""What the browser's tests share: becoming somebody, and looking at what is there."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.conftest import Server


def become_member(page: Page, server: Server) -> None:
    """Do what a new visitor does until uploads are open."""
    # % if cookiecutter.accounts
    from tests.conftest import PASSWORD

    page.goto(f"{server.url}/register")
    page.fill("main [name=email]", "alice@example.com")
    page.fill("main [name=password]", PASSWORD)
    page.fill("main [name=password_confirm]", PASSWORD)
    page.click("main [type=submit]")
    page.goto(f"{server.url}/login")
    page.fill("main [name=email]", "alice@example.com")
    page.fill("main [name=password]", PASSWORD)
    page.click("main [type=submit]")
    # % endif
    page.goto(f"{server.url}/uploads")


def upload_names(page: Page, server: Server) -> list[str]:
    """The names that the uploads page lists."""
    page.goto(f"{server.url}/uploads")
    return page.locator("#files bdi").all_inner_texts()
