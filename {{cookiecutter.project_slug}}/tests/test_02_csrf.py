"""Attacks on mitigation 2, CSRF."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

import html5lib
import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Page
from werkzeug.routing import Rule

from app import create_app
from app.security.csrf import EXEMPT, UNSAFE_METHODS
from tests.browser.conftest import become_member
from tests.conftest import KEY, ORIGIN, ROOT, Server, browser_like, csrf_token
from tests.samples import upload

# % if cookiecutter.accounts
from tests.conftest import PASSWORD, is_signed_in, sign_in  # isort: skip
# % endif

ID = "0123456789abcdef0123456789abcdef"
DELETE = f"/uploads/{ID}/delete"  # there is no such file: 404 is the answer of a request that got through
OTHER_KEY = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"


def paths(app: Flask) -> list[tuple[str, Rule]]:
    """Every rule of the app with a path that it matches."""
    return [(re.sub("<[^>]+>", ID, rule.rule), rule) for rule in app.url_map.iter_rules()]


def state_changing_routes(app: Flask) -> list[tuple[str, str]]:
    """Every method and path of the app that may change something, the documented exemptions aside."""
    views = {path: app.view_functions[rule.endpoint] for path, rule in paths(app)}
    exempt = {path for path, view in views.items() if f"{view.__module__}.{view.__name__}" in EXEMPT}
    return [
        (method, path)
        for path, rule in paths(app)
        for method in sorted((rule.methods or set()) & UNSAFE_METHODS)
        if path not in exempt
    ]


def test_2_T2_every_state_changing_route_refuses_a_request_without_a_token(app: Flask, member: FlaskClient) -> None:
    routes = state_changing_routes(app)
    assert ("POST", DELETE) in routes
    answers = {(method, path): member.open(path, method=method).status_code for method, path in routes}
    assert set(answers.values()) == {400}, answers


def test_2_T2_the_only_exemption_is_the_csp_report_endpoint() -> None:
    assert list(EXEMPT) == ["app.views.csp_reports.receive"]


def test_2_T2_get_never_acts(app: Flask, member: FlaskClient) -> None:
    """Views that answer GET and POST are forms: their GET shows them. All others must not answer GET at all."""
    forms = {path for path, rule in paths(app) if {"GET", "POST"} <= (rule.methods or set())}
    acts = {path for method, path in state_changing_routes(app)} - forms
    assert DELETE in acts
    assert {member.get(path).status_code for path in acts} == {405}


def test_2_T2_no_link_changes_anything(app: Flask, member: FlaskClient) -> None:
    where = upload(member, "a.txt", b"a").headers["Location"]
    # % if cookiecutter.accounts
    elsewhere = browser_like(app)
    sign_in(elsewhere)
    # % endif
    for path, _ in paths(app):
        for method in ("GET", "HEAD"):
            member.open(path.replace(ID, where.removeprefix("/uploads/")), method=method, buffered=True)
    assert member.get(where, buffered=True).status_code == 200
    # % if cookiecutter.accounts
    assert is_signed_in(elsewhere)
    # % endif


@pytest.mark.parametrize("method", sorted(UNSAFE_METHODS))
def test_2_S5_a_new_route_needs_a_token_whatever_its_method(app: Flask, method: str) -> None:
    app.add_url_rule("/new", "new", lambda: "done", methods=[method])
    client = browser_like(app)
    assert client.open("/new", method=method).status_code == 400
    assert client.open("/new", method=method, headers={"X-CSRFToken": csrf_token(client)}).status_code == 200


def test_2_S4_every_form_of_every_page_carries_the_token(app: Flask, member: FlaskClient) -> None:
    upload(member, "a.txt", b"a")  # each file has a form of its own
    # % if cookiecutter.accounts
    sign_in(browser_like(app))  # and each session
    # % endif
    without, forms = [], 0
    for client in (browser_like(app), member):
        for path in [path for path, rule in paths(app) if "GET" in (rule.methods or ()) and not rule.arguments]:
            for form in html5lib.parse(client.get(path).text, namespaceHTMLElements=False).iter("form"):
                tokens = [field.get("value") for field in form.iter("input") if field.get("name") == "csrf_token"]
                forms += 1
                if form.get("method") == "post" and not (len(tokens) == 1 and tokens[0]):
                    without.append((path, form.get("action")))
    assert without == []
    assert forms > 1


def test_2_T2_another_sessions_token_is_refused(app: Flask, member: FlaskClient) -> None:
    foreign = csrf_token(browser_like(app))
    assert member.post(DELETE, data={"csrf_token": csrf_token(member)}).status_code == 404
    assert member.post(DELETE, data={"csrf_token": foreign}).status_code == 400


def test_2_S6_the_header_carries_the_token_too(member: FlaskClient) -> None:
    assert member.post(DELETE, headers={"X-CSRFToken": csrf_token(member)}).status_code == 404
    assert member.post(DELETE, headers={"X-CSRFToken": "x"}).status_code == 400


# What browsers send along, from which page, and whether the app may act: Fetch Metadata and RFC 6454.
@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Referer": f"{ORIGIN}/uploads"}, 404),
        ({"Origin": ORIGIN}, 404),
        ({"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}, 404),
        ({}, 400),
        ({"Origin": "https://attacker.test"}, 400),
        ({"Origin": "null"}, 400),
        ({"Origin": "http://localhost"}, 400),
        ({"Origin": "https://localhost.attacker.test"}, 400),
        ({"Origin": "https://attacker.test", "Referer": f"{ORIGIN}/"}, 400),
        ({"Referer": "https://attacker.test/https://localhost/"}, 400),
        ({"Referer": "https://localhost@attacker.test/"}, 400),
        ({"Referer": "https://[", "Sec-Fetch-Site": "same-origin"}, 400),
        ({"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}, 400),
    ],
)
def test_2_T1_a_right_token_from_another_origin_is_refused(
    member: FlaskClient, headers: dict[str, str], answer: int
) -> None:
    token = csrf_token(member)
    member.environ_base.pop("HTTP_REFERER")
    assert member.post(DELETE, data={"csrf_token": token}, headers=headers).status_code == answer


# % if cookiecutter.accounts
@pytest.mark.parametrize(
    "pauses",
    [[1500, 1500, 1500], [7200]],
    ids=["the session stays in use, the page does not", "the session has ended"],
)
def test_a_stale_token_gives_the_form_back_filled_in(client: FlaskClient, pauses: list[int]) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        token = csrf_token(client, "/login")
        for pause in pauses[:-1]:
            clock.shift(pause)
            client.get("/")
        clock.shift(pauses[-1])
        answer = client.post("/login", data={"csrf_token": token, "email": "alice@example.com", "password": "x"})
    assert answer.status_code == 400
    assert 'value="alice@example.com"' in answer.text
    assert "open for too long" in answer.text


# % endif
def test_an_expired_token_never_acts(member: FlaskClient) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        token = csrf_token(member)
        for _ in range(3):
            clock.shift(1500)
            member.get("/")
        assert member.post(DELETE, data={"csrf_token": token}).status_code == 400
        assert member.post(DELETE, data={"csrf_token": csrf_token(member)}).status_code == 404


def test_2_S2_a_token_from_before_a_rotation_still_works(app_config: dict[str, object], member: FlaskClient) -> None:
    token = csrf_token(member)
    rotated = {"SECRET_KEY": OTHER_KEY, "SECRET_KEY_FALLBACKS": KEY}
    member.application = create_app(app_config | rotated)
    assert member.post(DELETE, data={"csrf_token": token}).status_code == 404


def test_2_S2_a_token_dies_with_its_key(app_config: dict[str, object], member: FlaskClient) -> None:
    token = csrf_token(member)
    with member.session_transaction() as content:
        session = dict(content)
    member.application = create_app(app_config | {"SECRET_KEY": OTHER_KEY})
    with member.session_transaction() as content:
        content.update(session)
    assert member.post(DELETE, data={"csrf_token": token}).status_code == 400
    assert member.post(DELETE, data={"csrf_token": csrf_token(member)}).status_code == 404


# Each form with all that it asks for, so that the token alone stops it.
FORMS: dict[str, dict[str, Any]] = {
    "/uploads": {"file": b"a"},
    # % if cookiecutter.accounts
    "/account/delete": {"password": PASSWORD},
    "/account/password": {"password": PASSWORD, "new_password": PASSWORD[1:], "new_password_confirm": PASSWORD[1:]},
    "/login": {"email": "alice@example.com", "password": PASSWORD},
    "/logout": {},
    "/register": {"email": "bob@example.com", "password": PASSWORD, "password_confirm": PASSWORD},
    "/reset": {"email": "alice@example.com"},
    # % endif
}


@pytest.mark.parametrize("path", FORMS)
def test_2_S3_no_form_acts_on_a_stale_token(app: Flask, member: FlaskClient, path: str) -> None:
    client = member if path.startswith(("/uploads", "/account")) else browser_like(app)
    fields = {name: (io.BytesIO(value), "a.txt") if name == "file" else value for name, value in FORMS[path].items()}
    with time_machine.travel(time.time(), tick=False) as clock:
        token = csrf_token(client)
        for _ in range(3):
            clock.shift(1500)
            client.get("/")
        answer = client.post(path, data=fields | {"csrf_token": token})
    assert answer.status_code == 400


@pytest.mark.parametrize("package", ["flask-wtf", "flask-talisman", "flask-limiter"])
def test_2_S1_3_S1_6_S1_8_S1_the_guards_are_pinned(package: str) -> None:
    pins = (ROOT / "requirements.txt").read_text()
    assert re.search(rf"(?m)^{package}==[\w.]+ \\\n +--hash=sha256:[0-9a-f]{{64}}\b", pins)


def test_2_S1_so_is_what_they_need() -> None:
    """Each requirement begins a line, and its hashes are on the lines after it."""
    pins = re.split(r"(?m)^(?=\w)", (ROOT / "requirements.txt").read_text())
    assert len(pins) > 20
    locked = re.compile(r"[\w.-]+==\S+( ; [^\\\n]+)? \\\n +--hash=sha256:[0-9a-f]{64}\b")
    assert [pin.split()[0] for pin in pins if pin.strip() and not locked.match(pin)] == []


def test_2_S6_the_script_gives_the_token_to_its_own_origin_alone(serve: Callable[..., Server], page: Page) -> None:
    become_member(page, serve())
    page.set_input_files("#upload [type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"})
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.click("#upload [type=submit]")
    assert "x-csrftoken" in sent.value.all_headers()

    script = (ROOT / "app/static/app.js").read_text().replace("export ", "")
    addresses = ["/", "/uploads", "https://attacker.test/", "//attacker.test/", "https://localhost.attacker.test/"]
    given = page.evaluate(
        f"urls => {{ {script}; return urls.map(url => Object.keys(csrfHeaders(url)).length) }}", addresses
    )
    assert given == [1, 1, 0, 0, 0]
