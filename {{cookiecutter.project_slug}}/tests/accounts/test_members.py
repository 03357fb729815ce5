"""Deny by default: a view is for signed-in people unless it says ``@public``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from flask.views import MethodView
from werkzeug.test import TestResponse

from app.accounts import identity
from app.accounts.models import Session, User, db
from app.security.csrf import form_view
from app.security.declarations import declared_by
from app.security.rate_limits import limiter
from app.visitors import PUBLIC, public, visitors
from tests.accounts.people import PASSWORD, register
from tests.conftest import browser_like, csrf_token, new_member, post
from tests.test_02_csrf import paths

SCRIPT = {"Accept": "application/json"}
MEMBERS = ["/account", "/account/password", "/account/delete", "/account/confirm", "/account/sessions/end"]


def asks_to_sign_in(response: TestResponse) -> bool:
    return response.status_code == 303 and response.headers["Location"].startswith("/login")


def routes(app: Flask) -> list[tuple[str, str, bool]]:
    """Every method and path of the app, and whether its view is declared public, or gives the files of a folder."""
    folders = {"static", *(f"{name}.static" for name, each in app.blueprints.items() if each.has_static_folder)}
    return [
        (method, path, rule.endpoint in folders or bool(declared_by(app, rule.endpoint, method, PUBLIC)))
        for path, rule in paths(app)
        for method in sorted(rule.methods or ())
    ]


def test_a_stranger_gets_into_no_view_but_the_public_ones(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "enabled", False)
    found = routes(app)
    wrong = []
    for method, path, is_public in found:
        stranger = browser_like(app)
        token = {"X-CSRFToken": csrf_token(stranger)}
        page = stranger.open(path, method=method, headers=token)
        problem = stranger.open(path, method=method, headers=token | SCRIPT)
        by_itself = is_public and page.status_code == 401  # a public view may want a token
        if (asks_to_sign_in(page), problem.status_code == 401) != (not is_public, not is_public or by_itself):
            wrong.append((method, path, page.status_code, problem.status_code))
    assert wrong == []
    assert set(MEMBERS) <= {path for _, path, is_public in found if not is_public}


class View(MethodView):
    def get(self) -> str:
        return "shown"


class PublicView(View):
    """All of it is public, and its subclass is not."""


class ViewWithOneMethod(View):
    @public
    def get(self) -> str:
        return "shown"


public(PublicView)


class Inheriting(PublicView):
    """Does not say so itself."""


def function() -> Callable[[], str]:
    """A new view; all that are made here share one name."""

    def view() -> str:
        return "shown"

    return view


# What is public, and beside it what is not.
VIEWS: dict[str, tuple[Any, Any]] = {
    "function": (public(function()), function()),
    "partial": (public(partial(function())), partial(function())),
    "MethodView": (PublicView.as_view("view"), View.as_view("view")),
    "method": (ViewWithOneMethod.as_view("view"), View.as_view("view")),
    "subclass": (PublicView.as_view("view"), Inheriting.as_view("view")),
    "decorated": (public(form_view(function())), form_view(function())),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_a_new_view_is_closed_until_it_says_that_it_is_public(app: Flask, kind: str) -> None:
    for path, view in zip(("/tested-public", "/tested-closed"), VIEWS[kind], strict=True):
        app.add_url_rule(path, path, view)
    stranger = browser_like(app)
    assert stranger.get("/tested-public").text == "shown"
    assert asks_to_sign_in(stranger.get("/tested-closed"))
    assert new_member(app).get("/tested-closed").text == "shown"


def test_a_blueprint_is_public_with_all_that_is_in_it(app: Flask) -> None:
    for name in ("tested-public", "tested-closed"):
        blueprint = Blueprint(name, __name__)
        blueprint.add_url_rule(f"/{name}", "view", function())
        app.register_blueprint(public(blueprint) if name == "tested-public" else blueprint)
    stranger = browser_like(app)
    assert stranger.get("/tested-public").text == "shown"
    assert asks_to_sign_in(stranger.get("/tested-closed"))


def test_static_files_are_public_and_a_view_of_that_name_is_not(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "shop.css").write_text("p { margin: 0 }")
    files = Blueprint("tested-files", __name__, static_folder=str(tmp_path), static_url_path="/tested-shop")
    views = Blueprint("tested-views", __name__)
    views.add_url_rule("/tested-statistics", "static", function())
    for blueprint in (files, views):
        app.register_blueprint(blueprint)
    stranger = browser_like(app)
    assert stranger.get("/static/app.css", buffered=True).status_code == 200
    assert stranger.get("/tested-shop/shop.css", buffered=True).status_code == 200
    assert asks_to_sign_in(stranger.get("/tested-statistics"))


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/logout", 405), ("/uploads/x", 404)])
def test_a_stranger_is_told_that_there_is_no_such_page(client: FlaskClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_a_stranger_with_a_stale_token_gets_no_form_of_members(client: FlaskClient) -> None:
    response = client.post("/account/password", data={"csrf_token": ""})
    assert response.status_code == 400
    response = client.post("/account/password", data={"csrf_token": "x.y.z"})
    assert asks_to_sign_in(response)


def test_a_long_view_learns_of_a_sign_out_and_keeps_no_connection(app: Flask) -> None:
    """Its own transaction shows the database as it was when that began."""

    def view() -> str:
        said = f"{visitors().is_still_here()} {db.session.in_transaction()}"
        db.session.execute(sa.text("BEGIN"))
        db.session.scalar(sa.select(User.id))
        with db.sessionmaker() as elsewhere:
            elsewhere.execute(sa.delete(Session))
            elsewhere.commit()
        assert db.session.scalar(sa.select(sa.func.count(Session.id))) == 1
        return f"{said} {visitors().is_still_here()}"

    app.add_url_rule("/tested-long", "long", view)
    assert new_member(app).get("/tested-long").text == "True False False"


def test_a_public_view_that_asks_for_the_member_refuses_a_stranger(app: Flask) -> None:
    app.add_url_rule("/tested-who", "who", public(lambda: identity.member().email))
    assert new_member(app).get("/tested-who").text == "alice@example.com"
    assert browser_like(app).get("/tested-who", headers=SCRIPT).status_code == 401


def test_a_sign_in_leads_back_to_the_closed_view(app: Flask) -> None:
    app.add_url_rule("/tested-closed", "closed", function())
    register(browser_like(app))
    stranger = browser_like(app)
    where = stranger.get("/tested-closed?page=2").headers["Location"]
    assert where == "/login?next=/tested-closed?page%3D2"
    form = {"email": "alice@example.com", "password": PASSWORD}
    assert post(stranger, where, form).headers["Location"] == "/tested-closed?page=2"
