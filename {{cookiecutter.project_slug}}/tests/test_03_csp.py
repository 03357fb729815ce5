"""Mitigation 3, Content Security Policy: the policy itself, and the reports. The attacks are in tests/browser/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import pytest
from flask import Flask, abort
from flask.testing import FlaskClient

from app import create_app
from app.redaction import REDACTED
from app.security import csp
from app.views import csp_reports
from app.visitors import public
from tests.conftest import browser_like
from tests.test_05_errors import capture_log

# CSP Level 3; each directive as docs/mitigations.md asks for it (3.S3). The nonce is another in each response.
POLICY = {
    "default-src": "'none'",
    "script-src": "'strict-dynamic' 'nonce'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
    "report-uri": "/csp-reports",
    "report-to": "csp",
    "upgrade-insecure-requests": "",
}
NONCE = re.compile(r"'nonce-([\w-]{32,})'")


def directives(policy: str) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in NONCE.sub("'nonce'", policy).split(";")]
    return {name: value for name, _, value in parts}


def test_3_S3_the_policy_is_strict(client: FlaskClient) -> None:
    response = client.get("/")
    assert directives(response.headers["Content-Security-Policy"]) == POLICY
    assert response.headers["Reporting-Endpoints"] == 'csp="/csp-reports"'


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


def test_3_S4_no_page_has_code_inline_or_from_elsewhere(app: Flask, client: FlaskClient, member: FlaskClient) -> None:
    """The policy would block it; who then relaxes the policy for it loses more than the line is worth."""
    faults, scripts = [], 0
    for path in ["/nothing", *(rule.rule for rule in app.url_map.iter_rules() if not rule.arguments)]:
        for visitor in (browser_like(app), member):
            for element in html5lib.parse(visitor.get(path).text, namespaceHTMLElements=False).iter():
                loads = [element.get(name) for name in ("src", "href") if element.tag != "a" and element.get(name)]
                scripts += element.tag == "script"
                if (
                    element.tag == "style"
                    or (element.tag == "script" and not loads)
                    or any(name == "style" or name.startswith("on") for name in element.attrib)
                    or not all(re.match(r"/\w", address) for address in loads)
                ):
                    faults.append((path, element.tag, dict(element.attrib)))
    assert faults == []
    assert scripts


def test_3_S3_over_plain_http_in_debug_reports_still_come(app_config: dict[str, object]) -> None:
    """Chromium sends none over http when report-to stands beside report-uri."""
    response = browser_like(create_app(app_config | {"FLASK_DEBUG": True}), "http://localhost").get("/")
    missing = {"report-to", "upgrade-insecure-requests"}
    wanted = {name: value for name, value in POLICY.items() if name not in missing}
    assert directives(response.headers["Content-Security-Policy"]) == wanted
    assert "Reporting-Endpoints" not in response.headers


def test_3_S4_report_only_is_relaxed_and_still_keeps_frames_out(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"CSP_REPORT_ONLY": True})
    response = browser_like(app).get("/")
    assert "Content-Security-Policy" not in response.headers
    assert directives(response.headers["Content-Security-Policy-Report-Only"]) == POLICY
    assert response.headers["X-Frame-Options"] == "DENY"
    assert [(fact.id, fact.severity) for fact in csp.check(app)] == [("CP04", "relaxed")]
    assert list(csp.check(create_app(app_config))) == []


def test_3_S4_one_view_is_relaxed_with_a_reason_and_nothing_else(app: Flask) -> None:
    @app.route("/map")
    @public
    @csp.relax_csp("map tiles", img_src="'self' https://tiles.example")
    def show_map() -> str:
        return "map"

    @app.route("/broken-map")
    @public
    @csp.relax_csp("map tiles", img_src="'self' https://tiles.example")
    def show_broken_map() -> str:
        abort(404)

    client = browser_like(app)
    relaxed = POLICY | {"img-src": "'self' https://tiles.example"}
    assert directives(client.get("/map").headers["Content-Security-Policy"]) == relaxed
    assert directives(client.get("/").headers["Content-Security-Policy"]) == POLICY
    assert vars(app.view_functions["show_map"])["csp_relaxed"][0] == "map tiles"  # which the audit shows


def test_3_S4_a_view_relaxed_before_the_app_was_made_relaxes_no_other(app_config: dict[str, object]) -> None:
    csp.relax_csp("map tiles", img_src="'self' https://tiles.example")(lambda: "map")
    response = browser_like(create_app(app_config)).get("/")
    assert directives(response.headers["Content-Security-Policy"]) == POLICY


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
        ([{"type": "deprecation", "body": {}}, NEW], "application/reports+json"),
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


# Of the length and the letters of what Flask-Security and ``secrets`` make.
SIGNED = "WyIzZjFjMGE2YmUyZDk0Yzg3Il0.aVx8Qw.q1Z0m3vXbE7cT5yR9uK2wLsDfGh"
RANDOM = "p1bOxgmvSmVQh4yq9cVYz0uX5b7NwQmW-hJ0Ty_kq3U"


@pytest.mark.parametrize("token", [SIGNED, RANDOM, f".{SIGNED}", SIGNED.replace(".", "%2E")])
@pytest.mark.parametrize("prefix", ["", "/mounted"])
@pytest.mark.parametrize("path", ["/confirm/{}/now", "/sent-only/{}", "/nothing/{}"])
def test_3_S5_no_token_of_a_link_is_kept(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture, path: str, prefix: str, token: str
) -> None:
    """Pages with a token in their address send reports too, and inline scripts have the page as their source."""
    app.add_url_rule("/confirm/<string(maxlength=512):token>/now", "confirm", public(lambda token: ""))
    app.add_url_rule("/sent-only/<token>", "sent_only", public(lambda token: ""), methods=["POST"])
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
    route = {"/confirm/{}/now": "/confirm/<token>/now", "/sent-only/{}": "/sent-only/<token>"}
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


@pytest.mark.parametrize("path", ["//uploads", "/nothing//x", "/uploads//"])
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
    lines = [line.split() for line in runner.invoke(args=["csp-reports"]).output.splitlines()]
    assert lines == [["3", "img-src", "evil.example", "/uploads"], ["1", "script-src-elem", "inline", "/uploads"]]
    assert len(runner.invoke(args=["csp-reports", "--limit", "1"]).output.splitlines()) == 1


def test_3_S5_a_full_disk_costs_the_report_only(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("a file where the folder should be")
    assert report(client, {"csp-report": OLD}) == 204
