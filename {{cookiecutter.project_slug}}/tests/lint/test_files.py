"""No file of the project holds a key that looks real."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.lint.files import check_files, keys_in

# Made for this file, at random; in two halves, so that no scanner of repositories takes them for real.
HEX = "5f1d7c0b9e3a42688f2d" + "61b7ac94d0e3f815"
PASSWORD = "vQ7#" + "kd2Lm9"


def test_1_S2_no_file_of_the_project_holds_a_key() -> None:
    assert list(check_files(ROOT)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env.example", f"SECRET_KEY={HEX}"),
        (".env.example", f"# READYZ_TOKEN={HEX}"),
        (".env.sample", f"export MAIL_PASSWORD='{PASSWORD}'"),
        ("example.env", f"STRIPE_SECRET={HEX}"),
        (".flaskenv", f"SECRET_KEY={HEX}"),
        ("README.md", f"SECRET_KEY={HEX} flask run"),
        ("README.md", f"    $ export API_KEY={HEX}"),
        ("docs/setup.md", f"set `auth_token: {HEX}`"),
        ("deploy/compose.yaml", f"      SECRET_KEY: {HEX}"),
        ("deploy/compose.yaml", f"      - SECRET_KEY={HEX}"),
        ("docker-compose.yml", f'  POSTGRES_PASSWORD: "{PASSWORD}"'),
        ("docker-compose.yml", f"  DATABASE_URL: postgresql://app:{PASSWORD}@db/app"),
        ("deploy/Dockerfile", f"ENV SECRET_KEY={HEX}"),
        ("deploy/Dockerfile", f"ENV SECRET_KEY {HEX}"),
        ("Dockerfile.prod", f"ARG API_KEY={HEX}"),
        ("Makefile", f"\tSECRET_KEY={HEX} flask run"),
        (".github/workflows/ci.yml", f"          SECRET_KEY: {HEX}"),
        ("deploy/app.service", f"Environment=SECRET_KEY={HEX}"),
        ("pyproject.toml", f'access_key = "{HEX}"'),
        ("README.md", "-----BEGIN RSA PRIVATE KEY-----"),
        ("README.md", "aws configure: AKIA" + "Z7Q2M4X9B1C5V8N3"),
    ],
)
def test_1_S2_the_check_finds_keys_in_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f"first\n{text}\n")
    (found,) = check_files(tmp_path)
    assert (found.id, found.severity) == ("SK02", "missing")
    assert found.evidence.startswith(f"{name}:2: ")
    assert HEX not in found.evidence
    assert PASSWORD not in found.evidence


@pytest.mark.parametrize(
    "text",
    [
        "SECRET_KEY=",
        "SECRET_KEY=changeme-changeme-changeme-42",
        "SECRET_KEY=your-256-bit-key-goes-here-ABC1",
        "SECRET_KEY=${SECRET_KEY}",
        "SECRET_KEY: ${{ secrets.SECRET_KEY_2F8a9c3d }}",
        "SECRET_KEY=<64 hex digits>",
        "SECRET_KEY=$(openssl rand -hex 32)",
        "MAIL_PASSWORD=(from your mail provider)",
        "MAIL_PASSWORD=password",
        "POSTGRES_PASSWORD: postgres",
        "DATABASE_URL=postgresql+psycopg://user:password@localhost/app",
        "redis://localhost:6379/0",
        "TOKEN_URL=https://login.example.org/oauth2/v2.0/token4f8a9c3d",
        "csrf_token: tests/test_02_csrf.py::test_2_S5_a_token_of_another_session_is_refused",
        "Set SECRET_KEY in the environment: python -m app.security.secret_key new",
        "uses: actions/checkout@8f4b7f84864484a7bf31766abe9204da3cbe65b3",
        "--hash=sha256:0cf3cae568d36aa9576b28dfb35f11328f1cb974ca7647d9475ebb86c75ac6e3",
        "The token is in `<meta name=csrf-token>`.",
    ],
)
def test_1_S2_the_check_knows_placeholders(text: str) -> None:
    assert list(keys_in(text)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(16),
        lambda: secrets.token_urlsafe(32),
        lambda: base64.b64encode(os.urandom(24)).decode(),
    ],
    ids=["hex", "urlsafe", "base64"],
)
def test_1_S2_the_check_knows_random_keys_in_any_encoding(make: Callable[[], str]) -> None:
    missed = [key for key in (make() for _ in range(2000)) if not list(keys_in(f"SECRET_KEY={key}"))]
    assert len(missed) < 100  # base64 without a run of letters and digits
