"""The pages around the mitigations: home, security.txt, the probes; and that every page is a sound one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import html5lib
import pytest
from flask import Blueprint, Flask, url_for
from flask.testing import FlaskClient

from app import create_app
from app.project import SECURITY_CONTACT
from app.security import csp
from app.security.findings import Finding, log_facts
from app.settings import SettingsError
from app.views import health
from tests.conftest import ROOT, Server, browser_like, pages


def test_security_txt_has_the_fields_of_rfc_9116(client: FlaskClient) -> None:
    response = client.get("/.well-known/security.txt")
    fields = dict(line.split(": ", 1) for line in response.text.splitlines())
    left = datetime.fromisoformat(fields["Expires"]) - datetime.now(UTC)
    assert response.content_type == "text/plain; charset=utf-8"
    assert fields["Contact"] == SECURITY_CONTACT
    assert fields["Canonical"] == "https://localhost/.well-known/security.txt"
    assert timedelta(days=30) < left < timedelta(days=365)


def test_robots_txt_names_nothing_that_is_not_public(client: FlaskClient) -> None:
    """Attackers read it too. Crawlers get the home page, and what a team adds (RFC 9309)."""
    response = client.get("/robots.txt")
    rules = [line.split(": ", 1) for line in response.text.splitlines()]
    assert response.content_type == "text/plain; charset=utf-8"
    assert ["User-agent", "*"] in rules
    assert ["Disallow", "/"] in rules
    assert ["Allow", "/$"] in rules
    named = {rule.rstrip("$*") for name, rule in rules if name in ("Allow", "Disallow")}
    assert {path: client.get(path).status_code for path in named} == dict.fromkeys(named, 200)


def test_the_icon_is_where_browsers_look_for_it(client: FlaskClient) -> None:
    with client.get("/favicon.ico", follow_redirects=True) as response:
        assert (response.status_code, response.mimetype) == (200, "image/svg+xml")


def debugging(app_config: dict[str, object]) -> FlaskClient:
    return browser_like(create_app(app_config | {"FLASK_DEBUG": "1"}), "http://localhost")


def test_every_page_has_a_banner_in_debug(app_config: dict[str, object]) -> None:
    assert 'class="debug"' in debugging(app_config).get("/").text
    assert 'class="debug"' not in browser_like(create_app(app_config)).get("/").text


def test_debug_may_be_switched_on_later(app: Flask) -> None:
    app.debug = True  # as app.run(debug=True) does
    assert 'class="debug"' in browser_like(app, "http://localhost").get("/").text


def test_security_shows_each_mitigation_and_each_fact_in_debug(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = debugging(app_config)
    modules = [part for part in client.application.extensions["parts"] if hasattr(part, "NUMBER")]
    stated = [
        Finding("CP04", "relaxed", "evidence of csp", "fix it"),
        Finding("DP09", "note", "of the whole", "fix it"),
    ]
    monkeypatch.setattr(csp, "check", lambda app: stated[:1])
    monkeypatch.setattr("app.views.check", lambda app: stated[1:])
    page = client.get("/security").text
    assert page.count('<span class="state ') == len(modules)
    assert [each.TITLE for each in modules if each.TITLE not in page] == []
    assert [fact.evidence for fact in stated if page.count(fact.evidence) != 1] == []


def test_security_is_not_there_outside_debug(client: FlaskClient, member: FlaskClient) -> None:
    assert client.get("/security").status_code == member.get("/security").status_code == 404


@pytest.mark.parametrize("contact", ["mailto:security@example.com", "mailto:security@bikes.example"])
def test_the_facts_are_logged_once_each(
    app_config: dict[str, object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, contact: str
) -> None:
    monkeypatch.setattr("app.views.pages.SECURITY_CONTACT", contact)
    app = create_app(app_config | {"TRUSTED_PROXY_HOPS": "0", "CSP_REPORT_ONLY": "1"})
    assert caplog.records == []
    log_facts(app)
    ids = [record.message.split()[0] for record in caplog.records if record.name == "app"]
    assert ids.count("DP02") == ids.count("CP04") == 1  # no proxy; a policy that only reports
    assert ids.count("DP01") == contact.endswith("@example.com")


def test_a_server_logs_the_facts_once_and_a_command_none(
    serve: Callable[..., Server], app_config: dict[str, object]
) -> None:
    log = serve(CSP_REPORT_ONLY=1, WEB_CONCURRENCY=2, CLAMD_URI="tcp://127.0.0.1:1").log.read_text()
    assert log.count(" CP04 relaxed: ") == 1
    assert log.count("CLAMD_URI in the environment is not a setting of this app. Did you mean CLAMD_URL?") == 1
    environment = os.environ | {name: str(value) for name, value in app_config.items()}
    command = [sys.executable, "-m", "flask", "--app", "app", "routes"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"FLASK_DEBUG": "0", "CSP_REPORT_ONLY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_command_in_a_checkout_runs_without_debug(app_config: dict[str, object]) -> None:
    """Commands also run in production. In debug, the links in their mails would be http."""
    environment = os.environ | {name: str(value) for name, value in app_config.items()}
    code = "print(app.debug, app.config['PREFERRED_URL_SCHEME'])"
    command = [sys.executable, "-m", "flask", "shell"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, input=code, capture_output=True, text=True, check=True, timeout=60
    )
    assert "False https" in ended.stdout


@pytest.mark.parametrize("host", ["10.0.0.5", "10.0.0.5:8000", "[::1]:8000", "2001:db8::1", None])
def test_a_load_balancer_may_name_the_machine_by_its_address(client: FlaskClient, host: str | None) -> None:
    by_address = {"HTTP_HOST": host} if host else {"SERVER_NAME": "10.0.0.5", "HTTP_HOST": ""}
    for path in ("/healthz", "/readyz"):
        assert client.get(path, base_url="http://localhost", environ_overrides=by_address).status_code == 200
    assert client.get("/", base_url="http://localhost", environ_overrides=by_address).status_code == 400
    assert client.get("/healthz", base_url="http://evil.example").status_code == 400


def test_healthz_answers_whatever_else_is_down(app_config: dict[str, object]) -> None:
    client = browser_like(create_app(app_config | {"CLAMD_URL": "unix:///nowhere.sock"}))
    assert client.get("/healthz").json == {"status": "ok"}


READYZ_TOKEN = "7f3a9c51e0b84d26a1c97e35f60d8b42"


@pytest.mark.parametrize(
    ("scanner", "place", "status", "said", "states"),
    [
        ("", "", 200, "ready", {}),
        ("unix:///nowhere/clamd.sock", "", 200, "ready", {"virus_scanner": "degraded"}),
        ("", "/dev/null/nowhere", 503, "not ready", {"uploads": "down"}),
    ],
)
def test_readyz_tells_strangers_whether_and_operators_what(
    app_config: dict[str, object], scanner: str, place: str, status: int, said: str, states: dict[str, str]
) -> None:
    app = create_app(app_config | {"CLAMD_URL": scanner, "READYZ_TOKEN": READYZ_TOKEN})
    if place:
        app.config["UPLOAD_DIR"] = Path(place)
    client = browser_like(app)
    for sent in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {READYZ_TOKEN[:-1]}"},
        {"Authorization": f"Bearer {READYZ_TOKEN}0"},
        {"Authorization": "Bearer \xe4"},
        {"Authorization": f"Basic {READYZ_TOKEN}"},
        {"Cookie": f"READYZ_TOKEN={READYZ_TOKEN}"},
    ):
        answer = client.get("/readyz", headers=sent)
        assert (answer.status_code, answer.json) == (status, {"status": said}), sent
    assert client.get(f"/readyz?token={READYZ_TOKEN}").json == {"status": said}
    answer = client.get("/readyz", headers={"Authorization": f"Bearer {READYZ_TOKEN}"})
    assert (answer.status_code, answer.json["status"]) == (status, said)
    assert {part: state for part, state in answer.json["parts"].items() if state != "ok"} == states
    assert {"uploads", "rate_limits"} <= set(answer.json["parts"])
    assert "nowhere" not in answer.text


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}])
def test_readyz_tells_nobody_without_a_token_in_the_settings(client: FlaskClient, sent: dict[str, str]) -> None:
    assert client.get("/readyz", headers=sent).json == {"status": "ready"}


@pytest.mark.parametrize("token", ["secret", "0" * 64, "changeme-changeme-changeme-42"])
def test_a_token_that_can_be_guessed_stops_the_start(app_config: dict[str, object], token: str) -> None:
    with pytest.raises(SettingsError, match="READYZ_TOKEN") as refused:
        create_app(app_config | {"READYZ_TOKEN": token})
    assert token not in str(refused.value)


def test_the_log_tells_a_change_once_and_why(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each process: not once for each probe."""
    working = True

    def ask() -> None:
        if not working:
            raise RuntimeError("the shop is on fire")

    health.needs(app, "shop", ask)
    client = browser_like(app)
    caplog.clear()
    for working in (True, False, False, False, True, True, False):
        answer = client.get("/readyz")
        assert answer.status_code == (200 if working else 503)
        assert "shop" not in answer.text
    told = [record for record in caplog.records if record.message.startswith("shop: ")]
    assert [record.message for record in told] == ["shop: down", "shop: ok", "shop: down"]
    assert ["on fire" in str(record.exc_info) for record in told] == [True, False, True]


def test_every_page_says_what_the_site_is(client: FlaskClient, member: FlaskClient) -> None:
    for visitor in (client, member):
        for path in [*pages(visitor), "/nothing-here"]:
            described = re.findall(r'<meta name="description" content="([^"]*)">', visitor.get(path).text)
            assert len(described) == 1, path
            assert described[0].strip(), path


def test_every_page_is_valid_html(client: FlaskClient, member: FlaskClient) -> None:
    for visitor in (client, member):
        for path in [*pages(visitor), "/nothing-here"]:
            html5lib.HTMLParser(strict=True).parse(visitor.get(path).text)


def test_a_browser_keeps_a_static_file_until_its_content_changes(app: Flask, tmp_path: Path) -> None:
    app.register_blueprint(Blueprint("tested", __name__, static_folder=tmp_path, url_prefix="/tested"))
    file = tmp_path / "tested.css"
    links = []
    for content in ("p { color: red }", "p { color: blue }"):
        file.write_text(content)
        with app.test_request_context():
            links.append(url_for("tested.static", filename="tested.css"))
    old, new = links
    assert old != new
    browser = browser_like(app)
    path = new.partition("?")[0]
    kept = {}
    for asked in (new, old, path, f"{path}?v=", f"{new}&{new.partition('?')[2]}", f"{path}/../app.css?v=0"):
        with browser.get(asked) as answer:
            kept[asked] = "immutable" in answer.headers["Cache-Control"]
    assert [asked for asked, is_kept in kept.items() if is_kept] == [new]
    with browser.get(new, base_url="http://localhost") as answer:
        assert (answer.status_code, answer.headers["Cache-Control"]) == (308, "no-store")


def test_pages_link_to_files_that_browsers_keep(client: FlaskClient) -> None:
    links = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/").text))
    assert links
    for link in links:
        with client.get(unescape(link)) as answer:
            assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True), link
