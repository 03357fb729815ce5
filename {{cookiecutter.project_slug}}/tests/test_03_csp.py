"""Mitigation 3, Content Security Policy: the policy itself, and the reports. The attacks are in tests/browser/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import html5lib
import pytest
from flask import Blueprint, Flask, abort, request
from flask.testing import FlaskClient
from flask.views import MethodView

from app import create_app, relaxations
from app.redaction import REDACTED
from app.security import csp
from app.security.headers import relax, relaxations_of
from app.views import csp_reports
from app.visitors import public
from tests.conftest import browser_like, pages
from tests.policies import NONCE, directives, looser, relaxed_at, with_form_targets, with_relaxations
from tests.test_05_errors import capture_log

# CSP Level 3; each directive as docs/mitigations.md asks for it (3.S3). The nonce is another in each response.
POLICY = {
    "default-src": "'none'",
    "script-src": "'strict-dynamic' 'nonce'",
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
    "report-uri": "/csp-reports",
    "report-to": "default",
    "upgrade-insecure-requests": "",
}


def strict_at(app: Flask, path: str = "/") -> dict[str, str]:
    """The policy that a page must have: the strict one, with what the app declares.

    It does so in ``@relax`` and relaxations.py, and by ``@may_redirect_to`` for all forms.
    """
    return with_relaxations(with_form_targets(POLICY, app), relaxed_at(app, path))


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_3_S3_the_policy_is_strict(app: Flask, client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert directives(response.headers["Content-Security-Policy"]) == strict_at(app, path)
    assert response.headers["Reporting-Endpoints"] == 'default="/csp-reports"'


def test_3_S4_no_view_has_a_looser_policy_than_it_declares(app: Flask, member: FlaskClient) -> None:
    """A view may set a stricter policy itself, as downloads do; a looser one needs ``@relax`` and its reason."""
    faults = {}
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments and not rule.websocket:
            with member.get(rule.rule) as response:
                found = directives(response.headers["Content-Security-Policy"])
            # A redirect or an error page keeps the strict policy, also where its view replaces a directive.
            faults[rule.rule] = looser(found, strict_at(app, "/nothing")) and looser(found, strict_at(app, rule.rule))
    assert faults.pop("/") == {}
    assert {path: fault for path, fault in faults.items() if fault} == {}


# Those that are refused come from hooks that run before any view.
@pytest.mark.parametrize("path", ["/", "/nothing", "/?a=1&a=2", "/?a=%00", f"/?{'a' * 5000}"])
def test_3_S3_each_response_has_a_nonce_of_its_own_and_its_scripts_carry_it(client: FlaskClient, path: str) -> None:
    nonces = set()
    for _ in range(3):
        response = client.get(path)
        nonces.add(NONCE.findall(response.headers["Content-Security-Policy"])[0])
        scripts = re.findall(r"<script\b[^>]*>", response.text)
        assert scripts
        for script in scripts:
            assert NONCE.findall(response.headers["Content-Security-Policy"]) == re.findall(r'nonce="([^"]*)"', script)
    assert len(nonces) == 3


def test_3_S4_no_page_has_code_inline_or_from_elsewhere(app: Flask, member: FlaskClient) -> None:
    """The policy would block it; who then relaxes the policy for it loses more than the line is worth.

    What a page loads from elsewhere, a nonce or not, the view names in ``@relax(…, csp={…})``.
    """
    faults, scripts = [], 0
    for visitor in (browser_like(app), member):
        for path in ["/nothing", *pages(visitor)]:
            declared = {
                word for each in relaxed_at(app, path) for value in each.csp.values() for word in (value or "").split()
            }
            for element in html5lib.parse(visitor.get(path).text, namespaceHTMLElements=False).iter():
                loads = [element.get(name) for name in ("src", "href") if element.tag != "a" and element.get(name)]
                scripts += element.tag == "script"
                styles = element.tag == "style" or "style" in element.attrib
                if (
                    (styles and "'unsafe-inline'" not in declared)
                    or (element.tag == "script" and not loads)
                    or any(name.startswith("on") for name in element.attrib)
                    or not all(re.match(r"/\w", address) or declared & _sources_of(address) for address in loads)
                ):
                    faults.append((path, element.tag, dict(element.attrib)))
    assert faults == []
    assert scripts


def _sources_of(address: str) -> set[str]:
    """What a policy may call an address: its scheme, its origin, its address, or a folder of it."""
    url = urlsplit(address)
    path = url.path.split("/")
    folders = {f"{url.scheme}://{url.netloc}{'/'.join(path[:depth])}" for depth in range(len(path) + 1)}
    return {f"{url.scheme}:", *folders, *(f"{folder}/" for folder in folders)}


def test_3_S3_over_plain_http_in_debug_reports_still_come(app_config: dict[str, object]) -> None:
    """Chromium sends none over http when report-to stands beside report-uri."""
    app = create_app(app_config | {"FLASK_DEBUG": True})
    response = browser_like(app, "http://localhost").get("/")
    missing = {"report-to", "upgrade-insecure-requests"}
    wanted = {name: value for name, value in strict_at(app).items() if name not in missing}
    assert directives(response.headers["Content-Security-Policy"]) == wanted
    assert "Reporting-Endpoints" not in response.headers


def test_3_S4_report_only_is_relaxed_and_still_keeps_frames_out(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"CSP_REPORT_ONLY": True})
    response = browser_like(app).get("/")
    assert "Content-Security-Policy" not in response.headers
    assert directives(response.headers["Content-Security-Policy-Report-Only"]) == strict_at(app)
    frames = with_relaxations({"X-Frame-Options": "DENY"}, relaxed_at(app, "/")).get("X-Frame-Options")
    assert response.headers.get("X-Frame-Options") == frames
    assert [(fact.id, fact.severity) for fact in csp.check(app)] == [("CP04", "relaxed")]
    assert list(csp.check(create_app(app_config))) == []


TILES = "'self' https://tiles.example"
map_tiles = relax("map tiles", csp={"img-src": TILES})


def tiles(target: Any) -> Any:
    return public(map_tiles(target))


def show() -> str:
    """A view, or the part of it that answers."""
    return "map" if "fail" not in request.args else abort(404)


def blueprint() -> Blueprint:
    made = tiles(Blueprint("tests", __name__))
    made.add_url_rule("/tested", view_func=lambda: show())
    return made


class Map(MethodView):
    @tiles
    def get(self) -> str:
        return show()

    def post(self) -> str:
        return show()


class Callable_:  # noqa: N801
    def __call__(self) -> str:
        return show()


# What can be relaxed → how a team adds it to the app.
PLACES: dict[str, Callable[[Flask], object]] = {
    "function": lambda app: app.add_url_rule("/tested", "tested", tiles(lambda: show())),
    "partial": lambda app: app.add_url_rule("/tested", "tested", tiles(partial(show))),
    "object": lambda app: app.add_url_rule("/tested", "tested", tiles(Callable_())),
    "class": lambda app: app.add_url_rule("/tested", view_func=tiles(type("Maps", (Map,), {})).as_view("tested")),
    "method": lambda app: app.add_url_rule("/tested", view_func=Map.as_view("tested")),
    "blueprint": lambda app: app.register_blueprint(blueprint()),
}


@pytest.mark.parametrize("place", PLACES)
def test_3_S4_one_view_is_relaxed_with_a_reason_and_nothing_else(app: Flask, place: str) -> None:
    PLACES[place](app)
    app.add_url_rule("/tested-other", "tested_other", public(partial(show)))
    client = browser_like(app)
    for path in ("/tested?fail", "/tested-other", "/nothing", "/"):
        response = client.get(path)
        assert directives(response.headers["Content-Security-Policy"]) == strict_at(
            app, path.replace("/tested", "/nothing")
        )
    response = client.get("/tested")
    assert directives(response.headers["Content-Security-Policy"]) == strict_at(app, "/nothing") | {"img-src": TILES}
    endpoint = "tests.<lambda>" if place == "blueprint" else "tested"
    assert [each.reason for each in relaxations_of(app, endpoint)][-1] == "map tiles"  # which the audit shows


def test_3_S4_a_form_that_is_shown_again_is_the_views_own_page(app: Flask) -> None:
    app.add_url_rule("/tested", "tested", tiles(lambda: (show(), 400)))
    response = browser_like(app).get("/tested")
    assert directives(response.headers["Content-Security-Policy"]) == strict_at(app, "/nothing") | {"img-src": TILES}


def test_3_S4_a_view_adds_to_its_blueprint_and_wins(app: Flask) -> None:
    made = relax("ours", csp={"img-src": "'self' data:", "font-src": "https://fonts.example"})(blueprint())
    app.register_blueprint(made)
    app.add_url_rule(
        "/tested-two", "tests.two", relax("a frame", csp={"frame-src": "https://pay.example"})(tiles(lambda: show()))
    )
    client = browser_like(app)
    both = {"img-src": "'self' data:", "font-src": "https://fonts.example"}
    assert directives(client.get("/tested").headers["Content-Security-Policy"]) == strict_at(app, "/nothing") | both
    three = {"img-src": TILES, "font-src": "https://fonts.example", "frame-src": "https://pay.example"}
    assert (
        directives(client.get("/tested-two").headers["Content-Security-Policy"]) == strict_at(app, "/nothing") | three
    )


def test_3_S4_the_whole_app_is_relaxed_in_its_own_file(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = strict_at(create_app(app_config), "/nothing")
    entries = (*relaxations.RELAXATIONS, map_tiles, relax("no upgrade", csp={"upgrade-insecure-requests": None}))
    monkeypatch.setattr(relaxations, "RELAXATIONS", entries)
    wanted = strict | {"img-src": TILES}
    del wanted["upgrade-insecure-requests"]
    for path in ("/nothing", "/static/app.css", "/healthz"):
        with browser_like(create_app(app_config)).get(path) as response:
            assert directives(response.headers["Content-Security-Policy"]) == wanted


def test_3_S4_a_view_relaxed_before_the_app_was_made_relaxes_no_other(app_config: dict[str, object]) -> None:
    strict = strict_at(create_app(app_config))
    relax("a font", csp={"font-src": "https://fonts.example"})(lambda: "")
    response = browser_like(create_app(app_config)).get("/")
    assert directives(response.headers["Content-Security-Policy"]) == strict


def test_3_S4_the_nonce_stays_where_the_scripts_of_a_page_are_relaxed(app: Flask) -> None:
    names = ("script-src", "script-src-elem")
    for name in names:
        view = public(relax("a library", csp={name: "'strict-dynamic' 'unsafe-eval'"})(lambda: ""))
        app.add_url_rule(f"/tested/{name}", f"tested_{name}", view)
    for name in names:
        found = directives(browser_like(app).get(f"/tested/{name}").headers["Content-Security-Policy"])
        assert found[name] == "'strict-dynamic' 'unsafe-eval' 'nonce'"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reason": "", "csp": {"img-src": "*"}}, "reason"),
        ({"reason": " ", "csp": {"img-src": "*"}}, "reason"),
        ({"reason": show, "csp": {"img-src": "*"}}, "reason"),
        ({"reason": "x"}, "relaxes nothing"),
        ({"reason": "x", "csp": {"img_src": "*"}}, "do you mean 'img-src'"),
        ({"reason": "x", "csp": {"image-src": "*"}}, "do you mean 'img-src'"),
        ({"reason": "x", "csp": {"report-uri": None}}, "'report-uri' can't be relaxed"),
        ({"reason": "x", "csp": {"img-src": "*; script-src *"}}, "';'"),
        ({"reason": "x", "csp": {"img-src": "a.example, b.example"}}, "','"),
        ({"reason": "x", "csp": {"img-src": "self https://a.example"}}, "'self'"),
        ({"reason": "x", "csp": {"script-src": "'strict-dynamic' unsafe-eval"}}, "'unsafe-eval'"),
        ({"reason": "x", "csp": {"img-src": "https://a.example\n"}}, "characters"),
        (
            {"reason": "x", "headers": {"Cross-Origin-Embeder-Policy": None}},
            "do you mean 'Cross-Origin-Embedder-Policy'",
        ),
        ({"reason": "x", "headers": {"COEP": None}}, "can't be relaxed"),
        ({"reason": "x", "headers": {"Strict-Transport-Security": None}}, "can't be relaxed"),
        ({"reason": "x", "headers": {"X-Content-Type-Options": None}}, "can't be relaxed"),
        ({"reason": "x", "headers": {"X-Frame-Options": None}}, "follows frame-ancestors"),
        ({"reason": "x", "headers": {"Content-Security-Policy": None}}, "img-src"),
        ({"reason": "x", "headers": {"Permissions-Policy": "camera 'self'"}}, "camera=(self)"),
        ({"reason": "x", "headers": {"Referrer-Policy": "no-referrer\r\nX: y"}}, "characters"),
    ],
)
def test_3_S4_a_mistaken_relaxation_is_refused_where_it_is_written(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        relax(**given)


# 3.S5: the two formats, as Chromium and Firefox send them.
DOCUMENT = "https://localhost/uploads?token=hidden#frag"
OLD = {
    "document-uri": DOCUMENT,
    "violated-directive": "img-src 'self'",
    "effective-directive": "img-src",
    "blocked-uri": "https://user:pass@evil.example/x.png?stolen=hidden",
    "source-file": "https://localhost/static/app.js?v=hidden",
    "original-policy": "default-src 'none'",
    "line-number": 7,
}
NEW = {
    "type": "csp-violation",
    "age": 1,
    "url": DOCUMENT,
    "user_agent": "x",
    "body": {
        "documentURL": DOCUMENT,
        "effectiveDirective": "img-src",
        "blockedURL": "https://user:pass@evil.example/x.png?stolen=hidden",
        "sourceFile": "https://localhost/static/app.js?v=hidden",
        "disposition": "enforce",
    },
}
KEPT = {
    "directive": "img-src",
    "blocked": "https://evil.example/x.png",
    "document": "/uploads",
    "source": "https://localhost/static/app.js",
}


@pytest.fixture
def app(app: Flask, tmp_path: Path) -> Flask:
    app.instance_path = str(tmp_path / "instance")
    return app


def report(client: FlaskClient, body: Any, content_type: str = "application/csp-report") -> int:
    data = body if isinstance(body, bytes) else json.dumps(body)
    # A browser sends reports without a referrer and without a token.
    return client.post("/csp-reports", data=data, content_type=content_type, headers={"Referer": ""}).status_code


def kept(app: Flask) -> list[dict[str, str]]:
    path = Path(app.instance_path) / "csp-reports.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"csp-report": OLD}, "application/csp-report"),
        ([NEW], "application/reports+json"),
        (NEW, "application/reports+json; charset=utf-8"),
        ([{"type": "deprecation", "body": {}}, {"type": ["coep"]}, NEW], "application/reports+json"),
    ],
)
def test_3_S5_both_formats_are_taken_and_cut_down(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, body: Any, content_type: str
) -> None:
    assert report(client, body, content_type) == 204
    assert kept(app) == [KEPT]
    logged = [line for line in caplog.messages if line.startswith("CSP violation ")]
    assert [json.loads(line.removeprefix("CSP violation ")) for line in logged] == [KEPT]
    assert (Path(app.instance_path) / "csp-reports.jsonl").stat().st_mode & 0o077 == 0


# As Chromium sends them → what is kept, and the door that ``flask csp-reports`` names.
OTHERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "coep": (
        {"blockedURL": "https://tiles.example/1.png?q=hidden", "destination": "image", "type": "corp"},
        "cross-origin-embedder-policy https://tiles.example/1.png",
        """headers={"Cross-Origin-Embedder-Policy": "credentialless"}""",
    ),
    "coop": (
        {"effectivePolicy": "same-origin-plus-coep", "nextResponseURL": "https://pay.example/pop-up?q=hidden"},
        "cross-origin-opener-policy https://pay.example/pop-up",
        """headers={"Cross-Origin-Opener-Policy": "same-origin-allow-popups"}""",
    ),
    "permissions-policy-violation": (
        {"policyId": "camera", "message": "camera is not allowed in this document."},
        "permissions-policy camera",
        """headers={"Permissions-Policy": "camera=(self)"}""",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_3_S5_what_other_headers_block_is_reported_with_its_door(app: Flask, client: FlaskClient, kind: str) -> None:
    body, seen, door = OTHERS[kind]
    sent = [{"type": kind, "url": DOCUMENT, "body": body | {"disposition": "enforce"}}]
    assert report(client, sent, "application/reports+json") == 204
    assert [(f"{each['directive']} {each['blocked']}", each["document"]) for each in kept(app)] == [(seen, "/uploads")]
    output = app.test_cli_runner().invoke(args=["csp-reports"]).output
    assert door in output
    assert "hidden" not in output + str(kept(app))


@pytest.mark.parametrize(
    ("directive", "blocked", "door"),
    [
        ("img-src", "https://tiles.example/1.png", """csp={"img-src": "'self' https://tiles.example"}"""),
        ("img-src", "data", """csp={"img-src": "'self' data:"}"""),
        ("frame-src", "https://pay.example:8443/form", """csp={"frame-src": "https://pay.example:8443"}"""),
        ("style-src-elem", "https://fonts.example/a.css", """csp={"style-src": "'self' https://fonts.example"}"""),
        ("script-src-elem", "https://js.example/a.js", """csp={"script-src": "'strict-dynamic' https://js.example"}"""),
        ("script-src", "eval", """csp={"script-src": "'strict-dynamic' 'unsafe-eval'"}"""),
        (
            "require-trusted-types-for",
            "trusted-types-sink",
            """csp={"require-trusted-types-for": None, "trusted-types": None}""",
        ),
    ],
)
def test_3_S5_a_blocked_source_is_named_with_the_door_that_opens_it(
    app: Flask, app_config: dict[str, object], client: FlaskClient, directive: str, blocked: str, door: str
) -> None:
    """What the command prints works as it stands: it is pasted over a view, and the view then allows it."""
    report(client, {"csp-report": OLD | {"effective-directive": directive, "blocked-uri": blocked}})
    line = app.test_cli_runner().invoke(args=["csp-reports"]).output.splitlines()[1]
    assert f'@relax("why", {door})' in line
    relaxed = eval(line[line.index("@") + 1 :], {"relax": relax})  # noqa: S307
    changed = eval(f"dict({door})")["csp"]  # noqa: S307
    second = create_app(app_config)
    second.add_url_rule("/tested", "tested", relaxed(lambda: ""))
    found = directives(browser_like(second).get("/tested").headers["Content-Security-Policy"])
    assert {name: found.get(name, "").removesuffix(" 'nonce'") or None for name in changed} == changed


def test_3_S5_a_forged_report_can_only_name_a_host(app: Flask, client: FlaskClient) -> None:
    blocked = """https://evil.example"}) @relax("x", csp={"script-src*"/"""
    for directive, url in (("img-src", blocked), ("nonsense", blocked), ("img-src", "https://a:b/")):
        report(client, {"csp-report": OLD | {"effective-directive": directive, "blocked-uri": url}})
    forged, *none = app.test_cli_runner().invoke(args=["csp-reports"]).output.splitlines()[1::2]
    assert "".join(none).strip() == ""
    relaxed = eval(forged.strip().removeprefix("@"), {"relax": relax})  # noqa: S307
    assert list(relaxed.csp) == ["img-src"]
    assert re.fullmatch(r"'self' https://[\w.%-]+", relaxed.csp["img-src"])


# Of the length and the letters of what Flask-Security and ``secrets`` make.
SIGNED = "WyIzZjFjMGE2YmUyZDk0Yzg3Il0.aVx8Qw.q1Z0m3vXbE7cT5yR9uK2wLsDfGh"
RANDOM = "p1bOxgmvSmVQh4yq9cVYz0uX5b7NwQmW-hJ0Ty_kq3U"


@pytest.mark.parametrize("token", [SIGNED, RANDOM, f".{SIGNED}", SIGNED.replace(".", "%2E")])
@pytest.mark.parametrize("prefix", ["", "/mounted"])
@pytest.mark.parametrize("path", ["/tested-confirm/{}/now", "/tested-sent-only/{}", "/nothing/{}"])
def test_3_S5_no_token_of_a_link_is_kept(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, path: str, prefix: str, token: str
) -> None:
    """Pages with a token in their address send reports too, and inline scripts have the page as their source."""
    app.add_url_rule("/tested-confirm/<string(maxlength=512):token>/now", "confirm", public(lambda token: ""))
    app.add_url_rule("/tested-sent-only/<token>", "sent_only", public(lambda token: ""), methods=["POST"])
    client.origin += prefix  # type: ignore[attr-defined]
    here = f"https://localhost{prefix}{path.format(token)}"
    change = {
        "document-uri": here,
        "source-file": here,
        "blocked-uri": f"https://{RANDOM}@evil.example/x/{token}?{token}",
    }
    capture = capture_log()
    assert report(client, {"csp-report": OLD | change}) == 204
    written = (Path(app.instance_path) / "csp-reports.jsonl").read_text()
    for text in (written, capture.getvalue(), caplog.text, app.test_cli_runner().invoke(args=["csp-reports"]).output):
        assert "evil.example" in text
        assert RANDOM[:8] not in text
        assert SIGNED[-27:] not in text
    (found,) = kept(app)
    route = {
        "/tested-confirm/{}/now": "/tested-confirm/<token>/now",
        "/tested-sent-only/{}": "/tested-sent-only/<token>",
    }
    assert found["document"] == route.get(path, f"{prefix}/nothing/{REDACTED}")
    assert found["source"].endswith(found["document"])


@pytest.mark.parametrize(
    "change",
    [
        {"blocked-uri": "chrome-extension://abc/x.js"},
        {"blocked-uri": "moz-extension"},
        {"blocked-uri": "safari-web-extension://x"},
        {"blocked-uri": "about"},
        {"blocked-uri": "about:blank"},
        {"blocked-uri": "webkit-masked-url://hidden/"},
        {"source-file": "chrome-extension://abc/x.js"},
        {"source-file": "moz-extension://abc"},
        {"document-uri": "https://evil.example/uploads"},
        {"document-uri": "https://localhost.evil.example/"},
        {"document-uri": 7},
        {"violated-directive": "", "effective-directive": "<script>"},
    ],
)
def test_3_S5_noise_and_foreign_reports_are_dropped(app: Flask, client: FlaskClient, change: dict[str, Any]) -> None:
    assert report(client, {"csp-report": OLD | change}) == 204
    assert kept(app) == []


@pytest.mark.parametrize("path", ["//uploads", "/nothing//x", "/uploads//", "/static//\ud800"])
def test_3_S5_the_router_redirects_no_report(app: Flask, client: FlaskClient, path: str) -> None:
    assert report(client, {"csp-report": OLD | {"document-uri": f"https://localhost{path}"}}) == 204
    assert len(kept(app)) == 1


def test_3_S5_hostile_values_become_harmless(app: Flask, client: FlaskClient) -> None:
    hostile = {
        "document-uri": "https://localhost/" + "a" * 5000,
        "blocked-uri": "https://evil.example/\r\nforged \x1b[31m",
        "source-file": "https://[broken",
    }
    assert report(client, {"csp-report": OLD | hostile}) == 204
    (found,) = kept(app)
    assert max(map(len, found.values())) <= 200
    assert "".join(found.values()).isprintable()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ({"csp-report": OLD}, "application/json", 415),
        ({"csp-report": OLD}, "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"", "application/csp-report", 400),
        (b"not json", "application/csp-report", 400),
        (b"7", "application/csp-report", 400),
        (b"[1]", "application/reports+json", 400),
        (b"[" * 10_000, "application/csp-report", 400),
        (b"\xff\xfe", "application/csp-report", 400),
        (b'{"a": "' + b"x" * 17_000 + b'"}', "application/csp-report", 413),
        (b"x" * 17_000, "text/plain", 413),
    ],
)
def test_3_S5_nonsense_is_refused(app: Flask, client: FlaskClient, body: Any, content_type: str, status: int) -> None:
    assert report(client, body, content_type) == status
    assert kept(app) == []


def test_3_S5_one_request_brings_a_bounded_number_of_reports(app: Flask, client: FlaskClient) -> None:
    small = {"type": "csp-violation", "body": {"documentURL": "https://localhost/", "effectiveDirective": "img-src"}}
    assert report(client, [small] * 100, "application/reports+json") == 204
    assert len(kept(app)) == csp_reports.MAX_REPORTS


def test_3_S5_a_flood_is_cut_off(client: FlaskClient) -> None:
    statuses = [report(client, {"csp-report": OLD}) for _ in range(200)]
    assert statuses[0] == 204
    assert statuses[-1] == 429


def test_3_S5_the_file_is_bounded(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csp_reports, "MAX_FILE", 400)
    for _ in range(15):
        report(client, {"csp-report": OLD})
    files = sorted(Path(app.instance_path).iterdir())
    assert [file.name for file in files] == ["csp-reports.jsonl", "csp-reports.old"]
    assert sum(file.stat().st_size for file in files) < 1200


def test_3_S5_the_command_shows_the_worst_first(app: Flask, client: FlaskClient) -> None:
    runner = app.test_cli_runner()
    assert "No violation" in runner.invoke(args=["csp-reports"]).output
    report(client, {"csp-report": OLD | {"blocked-uri": "inline", "effective-directive": "script-src-elem"}})
    for path in ("a", "b", "c"):
        report(client, {"csp-report": OLD | {"blocked-uri": f"https://evil.example/{path}"}})
    with open(Path(app.instance_path) / "csp-reports.jsonl", "a") as file:
        file.write('[]\n{"directive": "img-')  # cut off by a full disk
    lines = [line.split() for line in runner.invoke(args=["csp-reports"]).output.splitlines()[::2]]
    assert lines == [
        ["3", "img-src", "https://evil.example", "/uploads"],
        ["1", "script-src-elem", "inline", "/uploads"],
    ]
    assert len(runner.invoke(args=["csp-reports", "--limit", "1"]).output.splitlines()) == 2


def test_3_S5_a_full_disk_costs_the_report_only(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("a file where the folder should be")
    assert report(client, {"csp-report": OLD}) == 204
