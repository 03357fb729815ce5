"""The error page of somebody who is signed in: it has the menu of the account, and asks nothing that may fail."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app.accounts.identity import find_user
from app.accounts.models import User, db
from app.visitors import public
from tests.accounts.people import is_signed_in, statements
from tests.conftest import browser_like, csrf_token, new_member

MENU = re.compile(r"<nav.*?</nav>", re.DOTALL)
OTHER_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://attacker.test"}


def menu(page: str) -> set[str]:
    return {word for word in ("Account", "Sign out", "Sign in", "Register") if word in MENU.findall(page)[0]}


def fail() -> Any:
    raise RuntimeError


@pytest.fixture
def app(app: Flask) -> Flask:
    app.add_url_rule("/tested-fail", view_func=public(fail), methods=["GET", "POST"])
    return app


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/tested-fail", 500), ("/logout", 405)])
def test_the_error_page_keeps_the_menu(app: Flask, path: str, status: int) -> None:
    for visitor, links in ((new_member(app), {"Account", "Sign out"}), (browser_like(app), {"Sign in", "Register"})):
        page = visitor.get(path)
        assert (page.status_code, menu(page.text)) == (status, links)


def test_its_button_signs_out(app: Flask) -> None:
    member = new_member(app)
    token = re.findall(r'name="csrf_token" value="([^"]+)"', member.get("/nothing").text)[0]
    assert is_signed_in(member)
    assert member.post("/logout", data={"csrf_token": token}).status_code == 303
    assert not is_signed_in(member)


def test_5_S4_the_error_page_asks_no_database(app: Flask) -> None:
    asked: list[list[str]] = []

    @app.post("/tested-lose")
    @public
    def lose() -> None:
        asked.append(statements(db.engine))
        raise RuntimeError

    member = new_member(app)
    page = member.post("/tested-lose", data={"csrf_token": csrf_token(member)})
    assert (page.status_code, menu(page.text), asked) == (500, {"Account", "Sign out"}, [[]])


def test_5_S4_the_menu_stays_without_a_database(app: Flask) -> None:
    member = new_member(app)
    with app.app_context():
        db.session.execute(sa.text("DROP TABLE sessions"))
        db.session.commit()
    page = member.get("/tested-fail")
    assert (page.status_code, page.mimetype, menu(page.text)) == (503, "text/html", {"Account", "Sign out"})


def test_5_S4_the_error_page_stores_no_half_of_a_change(app: Flask) -> None:
    """To ask who the visitor is commits, so nobody may ask after a view has failed."""

    @app.post("/tested-half")
    @public
    def half() -> None:
        db.session.add(User(email="half@example.com", password=""))
        raise RuntimeError

    member = new_member(app)
    page = member.post("/tested-half", data={"csrf_token": csrf_token(member)})
    assert (page.status_code, menu(page.text)) == (500, {"Account", "Sign out"})
    with app.app_context():
        assert find_user("half@example.com") is None


@pytest.mark.parametrize("path", ["/uploads", "/login", "/logout", "/nothing"])
def test_2_T1_the_error_page_of_another_sites_request_starts_no_session(client: FlaskClient, path: str) -> None:
    """Its cookie would take the place of the visitor's, whom the browser did not name, and so sign them out."""
    page = client.post(path, headers=OTHER_SITE)
    assert page.status_code in (400, 405)
    assert "Set-Cookie" not in page.headers
