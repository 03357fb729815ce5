"""Attacks on mitigation 2, CSRF."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import html5lib
import pytest
import time_machine
from flask import Blueprint, Flask, abort, request
from flask.testing import FlaskClient
from flask.views import MethodView
from playwright.sync_api import Page
from werkzeug.routing import Rule

from app import create_app
from app.security.csrf import EXEMPT, UNSAFE_METHODS, csrf, exempt, form_view
from app.security.declarations import declared_by
from app.security.rate_limits import limiter
from app.visitors import public
from tests.browser.conftest import become_member
from tests.conftest import KEY, ORIGIN, ROOT, Server, address_of, browser_like, csrf_token, new_member, pages
from tests.samples import upload

ID = "0123456789abcdef0123456789abcdef"
DELETE = f"/uploads/{ID}/delete"  # there is no such file: 404 is the answer of a request that got through
OTHER_KEY = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"


def paths(app: Flask) -> list[tuple[str, Rule]]:
    """Every rule of the app with a path that it matches."""
    return [(address_of(app, rule), rule) for rule in app.url_map.iter_rules() if not rule.websocket]


def state_changing_routes(app: Flask) -> list[tuple[str, str]]:
    """Every method and path of the app that may change something, the documented exemptions aside."""
    return [
        (method, path)
        for path, rule in paths(app)
        for method in sorted((rule.methods or set()) & UNSAFE_METHODS)
        if not declared_by(app, rule.endpoint, method, EXEMPT)
    ]


def test_2_T2_every_state_changing_route_refuses_a_request_without_a_token(app: Flask, member: FlaskClient) -> None:
    routes = state_changing_routes(app)
    assert ("POST", DELETE) in routes
    answers = {(method, path): member.open(path, method=method).status_code for method, path in routes}
    assert set(answers.values()) == {400}, answers


def test_2_T2_each_exemption_has_a_reason_and_the_report_endpoint_is_one(app: Flask) -> None:
    reasons = {
        rule.rule: reason
        for rule in app.url_map.iter_rules()
        for method in UNSAFE_METHODS
        if (reason := declared_by(app, rule.endpoint, method, EXEMPT)) is not None
    }
    assert "/csp-reports" in reasons
    assert [rule for rule, reason in reasons.items() if not reason.strip()] == []


def test_2_T2_get_never_acts(app: Flask, member: FlaskClient) -> None:
    """Views that answer GET and POST are forms: their GET shows them. All others must not answer GET at all."""
    forms = {path for path, rule in paths(app) if {"GET", "POST"} <= (rule.methods or set())}
    acts = {path for method, path in state_changing_routes(app)} - forms
    assert DELETE in acts
    assert {member.get(path).status_code for path in acts} == {405}


def test_2_T2_no_link_changes_anything(app: Flask, member: FlaskClient) -> None:
    where = upload(member, "a.txt", b"a").headers["Location"]
    elsewhere = new_member(app)
    for path, _ in paths(app):
        for method in ("GET", "HEAD"):
            member.open(path.replace(ID, where.removeprefix("/uploads/")), method=method, buffered=True)
    assert member.get(where, buffered=True).status_code == 200
    assert elsewhere.get("/uploads").status_code == 200


@pytest.mark.parametrize("method", sorted(UNSAFE_METHODS))
def test_2_S5_a_new_route_needs_a_token_whatever_its_method(app: Flask, method: str) -> None:
    app.add_url_rule("/tested-new", "new", public(lambda: "done"), methods=[method])
    client = browser_like(app)
    assert client.open("/tested-new", method=method).status_code == 400
    assert client.open("/tested-new", method=method, headers={"X-CSRFToken": csrf_token(client)}).status_code == 200


def test_2_S4_every_form_of_every_page_carries_the_token(app: Flask, member: FlaskClient) -> None:
    upload(member, "a.txt", b"a")  # each file has a form of its own
    new_member(app)  # and each session
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


def test_2_S3_no_form_acts_on_a_stale_token(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each form of each page is filled in with all that it asks for, so that the token alone stops it."""
    monkeypatch.setattr(limiter, "enabled", False)
    answers = {}
    for become in (browser_like, new_member):
        for path in pages(become(app)):
            for number, _ in enumerate(forms(become(app), path)):
                visitor = become(app)
                with time_machine.travel(time.time(), tick=False) as clock:
                    action, fields = forms(visitor, path)[number]
                    for _ in range(3):
                        clock.shift(1500)
                        visitor.get("/")
                    answers[action] = visitor.post(action, data=fields).status_code
    assert "/uploads" in answers
    assert set(answers.values()) == {400}, answers


def test_2_S5_what_a_stale_token_shows_has_not_acted(app: Flask) -> None:
    """Whatever the view answers, its status says so to scripts, and to the tests of a team."""
    app.add_url_rule("/tested-form", "form", public(form_view(function())), methods=["POST"])
    client = browser_like(app)
    answer = client.post("/tested-form", data={"csrf_token": "x"})
    assert (answer.status_code, answer.text) == (400, "done")
    assert client.post("/tested-form", data={"csrf_token": csrf_token(client)}).status_code == 200


HOOKS = {"of its blueprint": Blueprint.before_request, "of the app": Blueprint.before_app_request}


@pytest.mark.parametrize("whose", HOOKS)
@pytest.mark.parametrize("token", ["", "x", "x.y.z"])
def test_2_S5_a_form_that_is_shown_again_has_passed_the_hooks(app: Flask, whose: str, token: str) -> None:
    """A hook that refuses a visitor, such as one who is no operator, does so whatever the token is."""
    blueprint = Blueprint("tested-closed", __name__, url_prefix="/tested-closed")
    HOOKS[whose](blueprint, lambda: abort(403) if request.path.startswith("/tested-closed") else None)
    blueprint.add_url_rule("/form", "form", public(form_view(function())), methods=["GET", "POST"])
    app.register_blueprint(blueprint)
    client = browser_like(app)
    assert client.get("/tested-closed/form").status_code == 403
    answer = client.post("/tested-closed/form", data={"csrf_token": token})
    assert answer.status_code == (403 if token else 400)  # without a token, it stops at once
    assert answer.text != "done"


def forms(visitor: FlaskClient, path: str) -> list[tuple[str, dict[str, Any]]]:
    """Where the forms of a page lead that change something, and what a person would fill in."""
    page = html5lib.parse(visitor.get(path).text, namespaceHTMLElements=False)
    filled = {"email": "alice@example.com", "password": "correct horse battery staple 42"}
    found = []
    for form in page.iter("form"):
        fields: dict[str, Any] = {}
        for field in form.iter("input"):
            name, kind = str(field.get("name")), str(field.get("type"))
            fields[name] = (io.BytesIO(b"a"), "a.txt") if kind == "file" else filled.get(kind, field.get("value") or "")
        if form.get("method") == "post":
            found.append((str(form.get("action") or path), fields))
    return found


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


# Policy on the view: whatever a view is, its exemption opens that view and no other, to both locks.


class Hook(MethodView):
    """A view of several methods."""

    def get(self) -> str:
        return "shown"

    def post(self) -> str:
        return "done"

    def put(self) -> str:
        return "done"


class Handler:
    """A view that is an object."""

    def __call__(self) -> str:
        return "done"


def function() -> Callable[[], str]:
    """A new view; all that are made here share one name."""

    def view() -> str:
        return "done"

    return view


class ExemptHook(Hook):
    """A whole class is exempt, and its subclass is not."""


class HookWithOneExemptMethod(Hook):
    @exempt("a signed webhook")
    def put(self) -> str:
        return "done"


REASON = exempt("a signed webhook")
REASON(ExemptHook)


class Inheriting(ExemptHook):
    """Does not say that it is exempt itself."""


# What is exempt, and beside it what must not be.
VIEWS: dict[str, tuple[Any, Any]] = {
    "function": (REASON(function()), function()),
    "partial": (REASON(partial(function())), partial(function())),
    "partial of an exempt function": (partial(REASON(function())), partial(function())),
    "callable object": (REASON(Handler()), Handler()),
    "MethodView": (ExemptHook.as_view("hook"), Hook.as_view("hook")),
    "subclass": (ExemptHook.as_view("hook"), Inheriting.as_view("hook")),
    "decorated": (REASON(form_view(function())), form_view(function())),
}
FOREIGN: dict[str, dict[str, str]] = {
    "no token": {},
    "no origin": {"Referer": ""},
    "another origin": {"Origin": "https://attacker.test", "Sec-Fetch-Site": "cross-site"},
}


def with_views(app: Flask, exempted: Any, other: Any) -> FlaskClient:
    app.add_url_rule("/tested-exempt", "exempt", public(exempted), methods=["POST", "PUT"])
    app.add_url_rule("/tested-other", "other", public(other), methods=["POST", "PUT"])
    return browser_like(app)


@pytest.mark.parametrize("lock", FOREIGN)
@pytest.mark.parametrize("kind", VIEWS)
def test_2_S5_an_exemption_opens_one_view_to_both_locks_and_no_other(app: Flask, kind: str, lock: str) -> None:
    client = with_views(app, *VIEWS[kind])
    assert client.post("/tested-exempt", headers=FOREIGN[lock]).status_code == 200
    assert client.post("/tested-other", headers=FOREIGN[lock]).status_code == 400
    assert client.post("/tested-other", headers={"X-CSRFToken": csrf_token(client)}).status_code == 200


def test_2_S5_an_attribute_or_a_method_of_that_name_is_no_exemption(app: Flask) -> None:
    class Named(Hook):
        csrf_exempt = False
        unlimited = Hook.get

    view = function()
    vars(view)["csrf_exempt"] = "by accident"
    client = with_views(app, Named.as_view("named"), view)
    assert [client.post(path).status_code for path in ("/tested-exempt", "/tested-other")] == [400, 400]


def test_2_S5_an_exemption_counts_though_another_thread_looks_while_it_is_made(app: Flask) -> None:
    """A look-up is kept until the next declaration; here it runs right before an exemption is stored."""

    class Watched(Handler):
        def __setattr__(self, name: str, value: object) -> None:
            assert declared_by(app, "watched", "POST", EXEMPT) is None
            super().__setattr__(name, value)

    view = Watched()
    app.add_url_rule("/tested-watched", "watched", view, methods=["POST"])
    REASON(view)
    assert declared_by(app, "watched", "POST", EXEMPT) == "a signed webhook"


def test_2_S5_invented_methods_fill_no_memory(app: Flask) -> None:
    """A rule of Werkzeug's own accepts every method."""
    app.url_map.add(Rule("/tested-any", endpoint="any"))
    app.view_functions["any"] = public(function())
    client = browser_like(app)
    assert client.open("/tested-any", method="M", headers={"X-CSRFToken": csrf_token(client)}).status_code == 200
    known = len(app.extensions["declarations"])
    for number in range(50):
        assert client.open("/tested-any", method=f"M{number}").status_code == 200
    assert len(app.extensions["declarations"]) == known


@pytest.mark.parametrize("lock", FOREIGN)
def test_2_S5_one_method_of_a_view_can_be_exempt(app: Flask, lock: str) -> None:
    client = with_views(app, HookWithOneExemptMethod.as_view("one"), Hook.as_view("none"))
    answers = [
        client.open("/tested-exempt", method=method, headers=FOREIGN[lock]).status_code for method in ("PUT", "POST")
    ]
    assert answers == [200, 400]


@pytest.mark.parametrize("lock", FOREIGN)
def test_2_S5_a_blueprint_can_be_exempt_with_all_that_is_in_it(app: Flask, lock: str) -> None:
    inner, outer, beside = (
        Blueprint("tested-inner", __name__),
        Blueprint("tested-outer", __name__),
        Blueprint("tested-beside", __name__),
    )
    for blueprint in (inner, outer, beside):
        blueprint.add_url_rule("/view", "view", public(function()), methods=["POST"])
    outer.register_blueprint(inner, url_prefix="/inner")
    for blueprint in (REASON(outer), beside):
        app.register_blueprint(blueprint, url_prefix=f"/{blueprint.name}")
    client = browser_like(app)
    paths = ("/tested-outer/view", "/tested-outer/inner/view", "/tested-beside/view")
    assert [client.post(path, headers=FOREIGN[lock]).status_code for path in paths] == [200, 200, 400]


def test_2_S5_what_flask_wtf_itself_exempts_stays_protected(app: Flask) -> None:
    """It keeps exemptions by the name of a view, which another view may share."""
    view = csrf.exempt(function())
    assert with_views(app, view, function()).post("/tested-exempt").status_code == 400


@pytest.mark.parametrize(("reason", "target"), [("", function()), (" ", function()), ("a webhook", Hook().post)])
def test_2_S5_an_exemption_without_a_reason_or_a_place_is_an_error(reason: str, target: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        exempt(reason)(target)


@pytest.mark.parametrize("kind", VIEWS)
def test_any_view_leaves_the_pages_alone(app: Flask, client: FlaskClient, kind: str) -> None:
    """A view without a name, such as a partial, once gave 500 on every page."""
    app.add_url_rule("/tested-view", "view", public(VIEWS[kind][0]), methods=["GET", "POST"])
    assert client.get("/").status_code == 200
    assert client.get("/tested-view").status_code == 200
    assert client.get("/nothing").status_code == 404
