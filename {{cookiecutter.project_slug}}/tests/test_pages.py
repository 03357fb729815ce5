"""The pages around the mitigations: home, security.txt, the probes; and that every page is a sound one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import html5lib
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.security.findings import Finding
from app.project import SECURITY_CONTACT
from app.security import csp
from tests.conftest import browser_like

PAGES = [
    "/",
    "/uploads",
    "/nothing-here",
    # % if cookiecutter.accounts
    "/account",
    "/account/password",
    "/account/delete",
    # % endif
]
VISITORS_PAGES = [
    "/",
    # % if cookiecutter.accounts
    "/login",
    "/register",
    "/reset",
    # % endif
]


def test_security_txt_has_the_fields_of_rfc_9116(client: FlaskClient) -> None:
    response = client.get("/.well-known/security.txt")
    fields = dict(line.split(": ", 1) for line in response.text.splitlines())
    left = datetime.fromisoformat(fields["Expires"]) - datetime.now(UTC)
    assert response.content_type == "text/plain; charset=utf-8"
    assert fields["Contact"] == SECURITY_CONTACT
    assert fields["Canonical"] == "https://localhost/.well-known/security.txt"
    assert timedelta(days=30) < left < timedelta(days=365)


def test_home_lists_ten_mitigations_in_force(client: FlaskClient) -> None:
    assert client.get("/").text.count('<span class="state implemented">') == 10


@pytest.mark.parametrize(
    ("severities", "state"),
    [(["relaxed"], "relaxed"), (["relaxed", "missing"], "missing")],
)
def test_home_tells_the_worst_state_and_keeps_the_evidence(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, severities: list[str], state: str
) -> None:
    def check(app: Flask) -> Iterator[Finding]:
        for severity in severities:
            yield Finding("CP99", severity, "evidence for an attacker", "mend it")

    monkeypatch.setattr(csp, "check", check)
    page = client.get("/").text
    assert page.count(f'<span class="state {state}">') == 1
    assert "evidence for an attacker" not in page


def test_home_shows_findings_and_a_banner_in_debug(app_config: dict[str, object]) -> None:
    page = browser_like(create_app(app_config | {"FLASK_DEBUG": "1"}), "http://localhost").get("/").text
    assert 'class="debug"' in page
    assert "<code>CK01</code> relaxed" in page


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


@pytest.mark.parametrize("path", PAGES)
def test_page_is_valid_html(member: FlaskClient, path: str) -> None:
    html5lib.HTMLParser(strict=True).parse(member.get(path).text)


@pytest.mark.parametrize("path", VISITORS_PAGES)
def test_visitors_page_is_valid_html(client: FlaskClient, path: str) -> None:
    html5lib.HTMLParser(strict=True).parse(client.get(path).text)
