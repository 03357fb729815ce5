"""CSRF as it is done: another site's page in the browser of somebody who is signed in here."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page

from tests.attacker import Site
from tests.browser.conftest import become_member, upload_names
from tests.conftest import Server


def test_2_T1_another_sites_form_and_fetch_change_nothing(
    serve: Callable[..., Server], context: BrowserContext, page: Page, attacker: Site
) -> None:
    server = serve()
    become_member(page, server)
    lure = attacker.page(
        f"""<form id=f method=post enctype=multipart/form-data action="{server.url}/uploads">
        <input name=csrf_token value=x></form>
        <script>
          const bag = new DataTransfer(); bag.items.add(new File(["planted"], "planted.txt", {{type: "text/plain"}}));
          const input = Object.assign(document.createElement("input"), {{type: "file", name: "file"}});
          input.files = bag.files; f.append(input);
          const body = new FormData(f);
          fetch("{server.url}/uploads", {{method: "POST", mode: "no-cors", credentials: "include", body}})
            .finally(() => f.submit());
        </script>"""
    )
    page.goto(lure)
    page.wait_for_url(f"{server.url}/uploads")
    assert upload_names(page, server) == []


def test_4_T4_another_sites_form_carries_no_session_cookie(
    serve: Callable[..., Server], context: BrowserContext, page: Page, attacker: Site
) -> None:
    server = serve()
    become_member(page, server)
    form = f'<form id=f method=post action="{server.url}/uploads"></form><script>f.submit()</script>'
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.goto(attacker.page(form))
    assert sent.value.url == f"{server.url}/uploads"
    assert "cookie" not in sent.value.all_headers()


def test_4_T2_scripts_see_no_cookie(serve: Callable[..., Server], context: BrowserContext, page: Page) -> None:
    server = serve()
    become_member(page, server)
    assert [cookie["name"] for cookie in context.cookies()] == ["__Host-session"]
    assert page.evaluate("document.cookie") == ""
