"""The pages in Chromium for everybody: what axe-core finds on a phone, in light and in dark, and the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Flask
from playwright.sync_api import Page

from tests.browser.axe import faults
from tests.browser.conftest import become_member
from tests.conftest import Server, browser_like, new_member, pages
from tests.test_scanners import scanners  # noqa: F401 - a fixture


def test_axe_finds_no_fault_on_any_page(
    app: Flask,
    serve: Callable[..., Server],
    page: Page,
    scanners: Path,  # noqa: F811
) -> None:
    server = serve(ALLOWED_REDIRECT_HOSTS="docs.example.com")
    page.set_viewport_size({"width": 360, "height": 740})
    found = []

    def look_at(*paths: str) -> None:
        for path in paths:
            page.goto(server.url + path)
            found.extend((path, fault) for fault in faults(page, scanners))
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append((path, ["is wider than the screen"]))

    look_at(*pages(browser_like(app)), "/redirect?next=https://docs.example.com/", "/nothing")
    become_member(page, server)
    page.set_input_files("#upload [type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    page.click("#upload [type=submit]")
    page.get_by_text("a.txt: uploaded.").wait_for()
    look_at(*pages(new_member(app)), "/nothing")
    assert found == []


def test_axe_sees_a_fault(page: Page, scanners: Path) -> None:  # noqa: F811
    button = "<button aria-label='Remove the file'>Delete</button>"
    page.set_content(f"<!DOCTYPE html><html lang=en><title>x</title><main><h1>x</h1>{button}</main>")
    assert [rule for rule, _ in faults(page, scanners)] == ["label-content-name-mismatch"]


def test_the_keyboard_reaches_the_content_first(serve: Callable[..., Server], page: Page) -> None:
    server = serve()
    page.goto(server.url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
