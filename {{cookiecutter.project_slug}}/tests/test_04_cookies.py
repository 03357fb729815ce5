"""Attacks on mitigation 4, the session cookie. Those that need an account: test_sessions.py."""

from __future__ import annotations

import base64
import itertools
import time
import zlib
from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from flask import Blueprint, Flask, Response, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app, settings
from app.security.cookies import NAME
from app.security.headers import relax
from app.visitors import public
from tests.conftest import ORIGIN, Server, browser_like, csrf_token, new_member, session_cookie


def set_cookies(response: TestResponse) -> list[str]:
    return response.headers.getlist("Set-Cookie")


@pytest.fixture
def grown(app: Flask) -> Flask:
    """The app with what a team may add: a stream that never ends, with a cookie of its own."""

    def stream() -> Response:
        answer = Response(itertools.repeat(b"data: x\n\n"), mimetype="text/event-stream")
        answer.set_cookie("__Host-theme", "dark", secure=True, httponly=True, samesite="Strict")
        return answer

    app.add_url_rule("/tested-stream", "stream", public(stream))
    return app


def test_4_S1_to_S5_every_cookie_is_set_with_every_attribute(grown: Flask) -> None:
    paths, member = [rule.rule for rule in grown.url_map.iter_rules() if not rule.arguments], new_member(grown)
    cookies = [cookie.split("; ") for path in paths for cookie in set_cookies(member.get(path))]
    assert {"__Host-session", "__Host-theme"} <= {name.partition("=")[0] for name, *_ in cookies}
    for name, *attributes in cookies:
        assert name.startswith("__Host-")
        assert {"Secure", "HttpOnly", "Path=/"} <= set(attributes)
        assert {"SameSite=Lax", "SameSite=Strict"} & set(attributes)
        assert not any(attribute.startswith("Domain") for attribute in attributes)


def test_4_S2_no_page_shows_the_cookie(grown: Flask) -> None:
    """What a page shows of it, a script reads, HttpOnly or not."""
    app, member = grown, new_member(grown)
    member.get("/")
    for path in [str(rule.rule) for rule in app.url_map.iter_rules() if "<" not in str(rule.rule)]:
        assert session_cookie(member) not in member.get(path).text


def test_4_T1_no_cookie_is_ever_set_over_http(app: Flask) -> None:
    client = browser_like(app, "http://localhost")
    for path in ("/", "/uploads", "/nowhere", "/healthz"):
        assert set_cookies(client.get(path)) == []
        assert set_cookies(client.post(path)) == []


def signed_with_each_response(app: Flask) -> None:
    """Replace the key: as long as the old one is accepted too, no response leaves a cookie as it is."""
    app.config["SECRET_KEY_FALLBACKS"] = [app.config["SECRET_KEY"]]


def test_4_T1_a_cookie_that_came_over_http_is_not_sent_anew(member: FlaskClient, app: Flask) -> None:
    """No browser sends a __Host- cookie over http, other programs do. Who listens there must not get a fresh one."""
    signed_with_each_response(app)
    assert set_cookies(member.get("/"))
    client = browser_like(app, "http://localhost")
    client.set_cookie(NAME, session_cookie(member))
    for path in ("/", "/uploads", "/healthz"):
        assert set_cookies(client.get(path)) == []


@pytest.mark.parametrize("born", [None, "now", -1, 10**12, pytest.param(10**400, id="10**400")])
def test_4_S4_a_session_without_a_birth_is_nobodys(app: Flask, born: object) -> None:
    """As another app with the same key would sign it."""
    owner = browser_like(app)
    token = csrf_token(owner)
    with owner.session_transaction() as content:
        forged = {**content, "_born": born}
    if born is None:
        del forged["_born"]
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    owner.set_cookie(NAME, str(serializer.dumps(forged)), domain="localhost", secure=True)
    assert owner.post(f"/uploads/{'0' * 32}/delete", data={"csrf_token": token}).status_code == 400


@pytest.mark.parametrize("kind", [list, dict])
def test_4_S4_what_changes_inside_a_list_or_a_dictionary_is_kept(
    app: Flask, kind: type[list[str] | dict[str, str]]
) -> None:
    """Flask does not see it, and the cookie is new. It may be a right that a view takes away."""

    def view() -> str:
        if "rights" not in session:
            session["rights"] = kind({"admin": "yes"})
        elif session["rights"]:
            session["rights"].clear()
        return f"{len(session['rights'])}"

    app.add_url_rule("/tested-rights", "rights", public(view))
    client = browser_like(app)
    assert [client.get("/tested-rights").text for _ in range(2)] == ["1", "0"]
    with client.session_transaction() as content:
        assert content["rights"] == kind()


@pytest.mark.parametrize("value", ["public, max-age=600", "max-age=0, S-MaxAge=600"])
@pytest.mark.parametrize("by", ["the view", "relax"])
def test_4_T1_what_all_visitors_share_carries_no_cookie(app: Flask, by: str, value: str) -> None:
    """A cache would give the session of the first visitor, and its token, to all the others."""

    def view() -> tuple[str, dict[str, str]]:
        session["seen"] = True
        return "for all", {"Cache-Control": value} if by == "the view" else {}

    cached = relax("It changes once a day.", headers={"Cache-Control": value})
    app.add_url_rule("/tested-shared", "shared", public(view if by == "the view" else cached(view)))
    answer = browser_like(app).get("/tested-shared")
    assert answer.headers["Cache-Control"] == value
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("value", ["no-store", "private, max-age=600", "no-cache"])
def test_4_S4_what_one_visitor_keeps_carries_it(app: Flask, value: str) -> None:
    def view() -> tuple[str, dict[str, str]]:
        session["seen"] = True
        return "for one", {"Cache-Control": value}

    app.add_url_rule("/tested-own", "own", public(view))
    assert "Set-Cookie" in browser_like(app).get("/tested-own").headers


@pytest.mark.parametrize("path", ["/static/app.css", "/tested/static/app.css"], ids=["app", "blueprint"])
def test_4_T1_a_static_file_carries_no_cookie_that_a_cache_could_keep(app: Flask, path: str) -> None:
    shop = Blueprint("tested", __name__, static_folder=app.static_folder, url_prefix="/tested")
    app.register_blueprint(shop)
    with app.test_request_context():
        endpoint = "tested.static" if "tested" in path else "static"
        kept_for_a_year = url_for(endpoint, filename="app.css")
    signed_with_each_response(app)
    client = new_member(app)
    assert set_cookies(client.get("/"))
    for each in (path, kept_for_a_year):
        with client.get(each) as answer:
            assert answer.status_code == 200
            assert "Set-Cookie" not in answer.headers


def test_4_S4_a_view_that_is_named_static_has_a_session(app: Flask) -> None:
    views = Blueprint("tested", __name__)
    views.add_url_rule("/tested-statistics", "static", public(lambda: f"{session.setdefault('first', True)}"))
    app.register_blueprint(views)
    client = browser_like(app)
    client.get("/tested-statistics")
    assert session_cookie(client)


# Both lifetimes, as the environment and as Flask's documentation write them, at the start and later.
LIFETIMES: dict[str, Callable[[dict[str, object]], Flask]] = {
    "default": create_app,
    "seconds": lambda config: create_app(config | dict(zip(NAMES, (3600, 43200), strict=True))),
    "timedelta": lambda config: create_app(config | dict(zip(NAMES, HOURS, strict=True))),
    "timedelta, set later": lambda config: with_config(create_app(config), dict(zip(NAMES, HOURS, strict=True))),
    "attribute": lambda config: with_lifetime(create_app(config | {NAMES[1]: HOURS[1]})),
}
NAMES = ("PERMANENT_SESSION_LIFETIME", "SESSION_ABSOLUTE_LIFETIME")
HOURS = (timedelta(hours=1), timedelta(hours=12))


def with_config(app: Flask, config: dict[str, object]) -> Flask:
    app.config.update(config)
    return app


def with_lifetime(app: Flask) -> Flask:
    app.permanent_session_lifetime = HOURS[0]
    return app


@pytest.mark.parametrize("how", LIFETIMES)
@pytest.mark.parametrize(
    ("steps", "alive"),
    [
        ([3599], True),
        ([3602], False),  # idle for over an hour
        ([3500] * 12, True),  # 42,000 s, always in use
        ([3500] * 13, False),  # 45,500 s: over 12 hours, although always in use
    ],
)
def test_4_T1_a_copied_cookie_is_dead_after_either_lifetime(
    app_config: dict[str, object], how: str, steps: list[int], alive: bool
) -> None:
    app = LIFETIMES[how](app_config)
    with time_machine.travel(time.time(), tick=False) as clock:
        client = browser_like(app)
        client.get("/")
        with client.session_transaction() as content:
            before = content["csrf_token"]
        for step in steps:
            clock.shift(step)
            client.get("/")
        with client.session_transaction() as content:
            after = content["csrf_token"]
    assert (before == after) is alive


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/app.css", "/nowhere"])
@pytest.mark.parametrize("over_the_limit", [False, True])
def test_8_T4_a_cookie_that_nobody_signed_is_not_decompressed(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, over_the_limit: bool, path: str
) -> None:
    """7 kB of it are 5 MB of JSON."""
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "2 per minute"})
    for _ in range(3 if over_the_limit else 0):
        browser_like(app).get(path, buffered=True)
    payload = base64.urlsafe_b64encode(zlib.compress(b"[" + b"[]," * 1_700_000 + b"[]]", 9)).decode().rstrip("=")
    bomb = {"Cookie": f"{NAME}=.{payload}.aaaaaa.{'A' * 27}"}
    decompressed = []
    monkeypatch.setattr(zlib, "decompress", lambda data, *_: decompressed.append(data))
    client = app.test_client(use_cookies=False)
    assert client.get(path, base_url=ORIGIN, headers=bomb, buffered=True).status_code in (200, 404, 429)
    assert decompressed == []


def test_4_T1_the_copy_dies_although_its_owner_goes_on(app: Flask) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        owner, thief = browser_like(app), browser_like(app)
        token = csrf_token(owner)
        thief.set_cookie(NAME, session_cookie(owner), secure=True)
        clock.shift(3000)
        owner.get("/")
        clock.shift(3000)
        with thief.session_transaction() as content:
            assert dict(content) == {}
        with owner.session_transaction() as content:
            assert content["csrf_token"]
    assert token


@pytest.mark.parametrize("same_site", ["Lax", "Strict"])
def test_4_T4_other_sites_cannot_make_the_browser_send_the_cookie(
    app_config: dict[str, object], same_site: str
) -> None:
    app = create_app(app_config | {"SESSION_COOKIE_SAMESITE": same_site})
    (cookie,) = set_cookies(browser_like(app).get("/"))
    assert f"SameSite={same_site}" in cookie.split("; ")


@pytest.mark.parametrize(
    "weaker",
    [
        {"SESSION_COOKIE_SAMESITE": "None"},
        {"SESSION_COOKIE_DOMAIN": "example.com"},
        {"SESSION_COOKIE_PATH": "/app"},
        {"SESSION_COOKIE_SECURE": False},
        {"SESSION_COOKIE_HTTPONLY": False},
        {"PERMANENT_SESSION_LIFETIME": 0},
        {"PERMANENT_SESSION_LIFETIME": timedelta(days=31)},
        {"SESSION_ABSOLUTE_LIFETIME": 10**9},
    ],
)
def test_4_S5_a_weaker_cookie_is_refused_at_start(app_config: dict[str, object], weaker: dict[str, object]) -> None:
    with pytest.raises(settings.SettingsError, match=next(iter(weaker))):
        create_app(app_config | weaker)


def test_4_S1_only_debug_relaxes_secure_and_says_so(app_config: dict[str, object]) -> None:
    client = browser_like(create_app(app_config | {"FLASK_DEBUG": True}), "http://localhost")
    answer = client.get("/")
    (cookie,) = set_cookies(answer)
    assert "Secure" not in cookie.split("; ")
    assert "the session cookie travels over http" in client.get("/security").text


def test_4_S1_the_cookie_works_under_gunicorn_over_tls(serve: Callable[..., Server]) -> None:
    status, headers, _ = serve().request("/")
    assert status == 200
    assert headers["Set-Cookie"].startswith("__Host-session=")
    assert ORIGIN not in headers["Set-Cookie"]
