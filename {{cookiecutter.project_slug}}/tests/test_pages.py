"""The pages around the mitigations: home, security.txt, the probes; and that every page is a sound one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import html5lib
import pytest
from flask.testing import FlaskClient

from app import create_app
from app.project import SECURITY_CONTACT
from app.security import csp
from app.security.findings import Finding
from tests.conftest import browser_like, pages


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
def test_a_start_logs_each_fact_once(
    app_config: dict[str, object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, contact: str
) -> None:
    monkeypatch.setattr("app.views.pages.SECURITY_CONTACT", contact)
    create_app(app_config | {"TRUSTED_PROXY_HOPS": "0", "CSP_REPORT_ONLY": "1"})
    ids = [record.message.split()[0] for record in caplog.records if record.name == "app"]
    assert ids.count("DP02") == ids.count("CP04") == 1  # no proxy; a policy that only reports
    assert ids.count("DP01") == contact.endswith("@example.com")


def test_healthz_answers_whatever_else_is_down(app_config: dict[str, object]) -> None:
    client = browser_like(create_app(app_config | {"CLAMD_URL": "unix:///nowhere.sock"}))
    assert client.get("/healthz").json == {"status": "ok"}


def test_readyz_names_its_parts(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert set(response.json.values()) == {"ok"}
    assert {"uploads", "rate_limits"} <= set(response.json)


def test_readyz_says_what_is_down_and_not_why(app_config: dict[str, object], tmp_path: Path) -> None:
    client = browser_like(create_app(app_config | {"CLAMD_URL": f"unix://{tmp_path}/nowhere.sock"}))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json["virus_scanner"] == "down"
    assert str(tmp_path) not in response.text


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
