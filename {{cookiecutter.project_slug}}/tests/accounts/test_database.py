"""The database: ``flask db upgrade`` makes it, a start does not, and what lacks it says so in one line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_app, paths
from app.accounts.database import BEHIND, NO_DATABASE
from app.accounts.models import db
from app.security.findings import facts
from app.settings import SettingsError
from tests.accounts.people import register, sign_in
from tests.conftest import browser_like

UPGRADE = ["db", "upgrade"]
ORDERS = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "orders", None, ("app",), "0001"


def upgrade():
    op.create_table("orders", sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id")))
"""


@pytest.fixture
def place(app_config: dict[str, object], tmp_path: Path) -> Path:
    """Where the database will be: in a folder that is not there yet."""
    file = tmp_path / "new" / "app.db"
    app_config["DATABASE_URL"] = f"sqlite:///{file}"
    return file


def test_the_upgrade_makes_a_file_that_only_the_app_can_read(app_config: dict[str, object], place: Path) -> None:
    app = create_app(app_config)
    assert not place.parent.exists()
    for _ in range(2):
        with app.app_context():
            assert app.test_cli_runner().invoke(args=UPGRADE).exit_code == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    client = browser_like(create_app(app_config))
    register(client)
    assert sign_in(client).status_code == 303


@pytest.mark.parametrize("there", ["no folder", "no file", "an empty file"])
def test_missing_tables_are_a_503_and_one_line_that_names_the_command(
    app_config: dict[str, object], place: Path, caplog: pytest.LogCaptureFixture, there: str
) -> None:
    if there != "no folder":
        place.parent.mkdir()
    if there == "an empty file":
        place.touch()
    client = browser_like(create_app(app_config))
    caplog.clear()
    answer = register(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "flask --app app db upgrade" in BEHIND
    assert caplog.text.count(BEHIND) == 1
    assert place.exists() == (there == "an empty file")
    assert client.get("/").status_code == 200
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize("content", [b"<!doctype html>" * 99, b"SQLite format 3\0" + b"\xff" * 4096, b"\0" * 8192])
def test_a_file_that_is_no_database_is_a_503_and_a_line_that_says_so(
    app_config: dict[str, object], place: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    place.parent.mkdir()
    place.write_bytes(content)
    client = browser_like(create_app(app_config))
    caplog.clear()
    assert register(client).status_code == 503
    assert NO_DATABASE in caplog.text
    assert "Traceback" not in caplog.text
    assert client.get("/readyz").status_code == 503
    assert place.read_bytes() == content


def test_no_request_makes_the_file(app: Flask, app_config: dict[str, object], place: Path) -> None:
    client = browser_like(create_app(app_config))
    for path in ("/", "/login", "/account", "/readyz", "/uploads"):
        client.get(path)
    assert not place.parent.exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:/tmp/app.db?uri=true"])
def test_a_database_without_a_file_stops_the_start(app_config: dict[str, object], url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: names no file"):
        create_app(app_config | {"DATABASE_URL": url})


def test_a_password_does_not_become_a_host(app_config: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*%40") as refused:
        create_app(app_config | {"DATABASE_URL": "postgresql://app:hunter@3lm1r4@db/app"})
    assert "3lm1r4" not in refused.value.message


def test_a_relative_path_is_one_in_the_instance_folder(
    app_config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "INSTANCE", tmp_path / "instance")
    monkeypatch.chdir(tmp_path)
    app = create_app(app_config | {"DATABASE_URL": "sqlite:///mine/app.db"})
    assert not (tmp_path / "instance").exists()
    with app.app_context():
        assert app.test_cli_runner().invoke(args=UPGRADE).exit_code == 0
    assert stat.S_IMODE((tmp_path / "instance/mine/app.db").stat().st_mode) == 0o600
    assert {stat.S_IMODE((tmp_path / "instance" / name).stat().st_mode) for name in ("", "mine")} == {0o700}


def test_a_database_that_others_can_read_is_a_fact(app: Flask, app_config: dict[str, object]) -> None:
    assert "DP05" not in {fact.id for fact in facts(app)}
    Path(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")).chmod(0o644)
    assert [fact.severity for fact in facts(app) if fact.id == "DP05"] == ["relaxed"]


def test_tables_of_your_own_have_migrations_of_their_own(
    app_config: dict[str, object], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "MIGRATIONS", tmp_path / "migrations")
    paths.MIGRATIONS.mkdir()
    Path(paths.MIGRATIONS, "0001_orders.py").write_text(ORDERS)
    app = create_app(app_config)
    with app.app_context():
        assert app.test_cli_runner().invoke(args=UPGRADE).exit_code == 0
        db.session.execute(sa.text("SELECT user_id FROM orders JOIN users ON users.id = user_id"))


def test_a_new_migration_of_your_own_is_written_beside_the_others(
    app_config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "MIGRATIONS", tmp_path / "migrations")
    app = create_app(app_config)
    with app.app_context():
        command = ["db", "revision", "--empty", "--depend", "0001", "orders"]
        assert app.test_cli_runner().invoke(args=command).exit_code == 0
    assert [path.stem.partition("_")[2] for path in paths.MIGRATIONS.iterdir()] == ["orders"]
