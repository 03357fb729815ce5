"""PostgreSQL: the accounts work on it as on SQLite, and the site outlives its restarts, outages and hangs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from app import create_app, paths
from app.accounts import mail
from app.accounts.database import schema
from app.accounts.models import Session, db
from app.security import uploads
from app.storage import folder
from tests.accounts.people import can_sign_in, is_signed_in, register, sign_in
from tests.accounts.postgres import Postgres, postgres, running
from tests.accounts.test_database import ORDERS
from tests.conftest import ROOT, Server, browser_like, free_port, new_member, post, session_cookie
from tests.samples import stored

__all__ = ("postgres",)

THREADS = 32  # of the server: see gunicorn.conf.py
# Longer than DATABASE_TIMEOUT below, as for a large table.
SLOW_TO_DELETE = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN OLD; END';
CREATE TRIGGER slow BEFORE DELETE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""
UPGRADE = "flask --app app db upgrade"


@pytest.fixture
def app_config(app_config: dict[str, object], postgres: Postgres) -> dict[str, object]:
    return app_config | {"DATABASE_URL": postgres.new_database(), "DATABASE_TIMEOUT": 2}


@pytest.fixture
def app(app_config: dict[str, object]) -> Flask:
    app = create_app(app_config)
    with app.app_context():
        schema().upgrade()
    return app


def told(caplog: pytest.LogCaptureFixture) -> str:
    """The line that the log has about the database."""
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("The database ")]
    return line


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_accounts_work(app: Flask, app_config: dict[str, object], scheme: str) -> None:
    url = str(app_config["DATABASE_URL"]).replace("postgresql", scheme)
    member = new_member(create_app(app_config | {"DATABASE_URL": url}))
    assert is_signed_in(member)
    assert post(member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}).status_code == 303
    assert "notes.txt" in member.get("/uploads").text
    assert post(member, "/logout").status_code == 303
    assert not is_signed_in(member)
    assert can_sign_in(member.application, "not the password") is False


def test_the_migrations_go_down_and_up_again(app: Flask) -> None:
    with app.app_context():
        schema().downgrade("base")
        assert set(sa.inspect(db.engine).get_table_names()) == {"alembic_version"}
        schema().upgrade()
    assert is_signed_in(new_member(app))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_mails_that_wait_outlive_the_migrations(
    app_config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that a worker of the former release writes too, before the upgrade or after it."""
    monkeypatch.setattr(mail.Postman, "wake", lambda _, response=None: response)
    if kind == "sqlite":
        app_config["DATABASE_URL"] = f"sqlite:///{tmp_path}/old.db"
    app = create_app(app_config)
    row = {"recipient": "old@example.com", "subject": "s", "body": "b", "needs_token": False, "tries": 0}
    row |= {"due_at": mail.utcnow(), "created_at": mail.utcnow()}
    old = sa.insert(sa.table("mails", *map(sa.column, row))).values(row)

    def migrate(target: str) -> None:
        with app.app_context():
            schema().upgrade(target) if "@" not in target else schema().downgrade(target)

    def ask(statement: str) -> list[object]:
        with app.app_context():
            return list(db.session.scalars(sa.text(statement)))

    for target in ("accounts_0002", "heads"):
        migrate(target)
        with app.app_context():
            db.session.execute(old)
            db.session.commit()
    assert register(browser_like(app), "new@example.com").status_code == 303
    assert ask("SELECT kind FROM mails ORDER BY id") == ["unknown", "unknown", "welcome"]
    migrate("default@accounts_0002")
    with app.app_context():
        assert "kind" not in {column["name"] for column in sa.inspect(db.engine).get_columns("mails")}
        assert "ix_mails_due_at" in {index["name"] for index in sa.inspect(db.engine).get_indexes("mails")}
    migrate("heads")
    assert ask("SELECT kind FROM mails") == ["unknown"] * 3


def test_a_revision_that_was_made_on_sqlite_runs(
    app_config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column is dropped: SQLite needs a copy of the table for it (batch)."""
    monkeypatch.setattr(paths, "MIGRATIONS", tmp_path / "migrations")
    on_sqlite = create_app(app_config | {"DATABASE_URL": f"sqlite:///{tmp_path}/other.db"})
    with on_sqlite.app_context():
        schema().upgrade()
        db.session.execute(sa.text("ALTER TABLE users ADD COLUMN nickname VARCHAR(80)"))
        assert on_sqlite.test_cli_runner().invoke(args=["db", "revision", "--depend", "0001", "drop"]).exit_code == 0
    (revision,) = paths.MIGRATIONS.glob("*_drop.py")
    assert 'batch_alter_table("users"' in revision.read_text().replace("'", '"')
    app = create_app(app_config)
    with app.app_context():
        schema().upgrade("default@head")
        db.session.execute(sa.text("ALTER TABLE users ADD COLUMN nickname VARCHAR(80)"))
        db.session.commit()
        schema().upgrade()
        assert "nickname" not in {column["name"] for column in sa.inspect(db.engine).get_columns("users")}


@pytest.mark.fault(
    "Database",
    "lacks a migration",
    sees="503 where a table or column is missing; `/readyz` is 503",
    ends="after `flask --app app db upgrade`",
)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("version", "status"), [("", 503), ("0001", 503), ("default@head", 303)])
def test_a_missing_migration_is_told(
    app_config: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    version: str,
    status: int,
) -> None:
    """By /readyz, by a 503, and by a line in the log that names the command. The last one is for a team's own table."""
    monkeypatch.setattr(paths, "MIGRATIONS", tmp_path / "migrations")
    paths.MIGRATIONS.mkdir()
    Path(paths.MIGRATIONS, "0001_orders.py").write_text(ORDERS)
    if kind == "sqlite":
        app_config["DATABASE_URL"] = f"sqlite:///{tmp_path}/old.db"
    app = create_app(app_config)
    if version:
        with app.app_context():
            schema().upgrade(version)
    caplog.clear()
    answer = register(browser_like(app))
    assert answer.status_code == status
    if status == 503:
        assert answer.headers["Retry-After"] == "60"
        assert UPGRADE in told(caplog)
    caplog.clear()
    assert browser_like(app).get("/readyz").status_code == 503
    assert UPGRADE in caplog.text
    with create_app(app_config).app_context():
        schema().upgrade()
    assert browser_like(app).get("/readyz").status_code == 200
    assert is_signed_in(new_member(app, "bob@example.com"))


@pytest.mark.fault("PostgreSQL", "restarts, or drops idle connections", sees="nothing", ends="at once")
@pytest.mark.fault(
    "PostgreSQL",
    "ends a connection during a statement",
    sees="503, since the statement may have been run",
    ends="at once",
)
def test_a_restart_costs_no_error_page(app: Flask, postgres: Postgres) -> None:
    members = [new_member(app, f"member{number}@example.com") for number in range(4)]
    done = threading.Event()

    def visit(member: FlaskClient) -> set[int]:
        found = set()
        while not done.is_set():
            found.add(member.get("/account").status_code)
        return found

    with ThreadPoolExecutor(4) as pool:
        visits = [pool.submit(visit, member) for member in members]
        for _ in range(3):
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        done.set()
        # A statement that is being answered when its connection ends can't be asked again: it may have been done.
        assert set().union(*(visit.result() for visit in visits)) <= {200, 503}
    assert members[0].get("/account").status_code == 200  # so that the app has a connection, which the restart ends
    postgres.stop()
    postgres.start()
    assert [member.get("/account").status_code for member in members] == [200] * 4


def test_the_upgrade_does_not_wait_for_an_absent_database_as_long_as_for_a_migration(
    app_config: dict[str, object],
) -> None:
    address = f"postgresql://app@127.0.0.1:{free_port()}/app"
    environment = os.environ | {name: str(value) for name, value in (app_config | {"DATABASE_URL": address}).items()}
    command = [sys.executable, "-m", *UPGRADE.split()]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "Connection refused" in ended.stderr


def test_a_restore_ends_all_sessions_however_long_that_takes(
    app: Flask, app_config: dict[str, object], postgres: Postgres, tmp_path: Path
) -> None:
    new_member(app)
    with app.app_context():
        db.session.execute(sa.text(SLOW_TO_DELETE))
        db.session.commit()
    assert app.test_cli_runner().invoke(args=["backup", f"{tmp_path}/backup"]).exit_code == 0
    empty = {"DATABASE_URL": postgres.new_database(), "UPLOAD_DIR": tmp_path / "restored"}
    restored = create_app(app_config | empty)
    assert restored.test_cli_runner().invoke(args=["restore", f"{tmp_path}/backup"]).exit_code == 0
    with restored.app_context():
        assert list(db.session.scalars(sa.select(Session))) == []


@pytest.fixture
def stopped(app: Flask, postgres: Postgres) -> Iterator[FlaskClient]:
    """A member whose database was stopped."""
    member = new_member(app)
    postgres.stop()
    yield member
    if postgres.process.poll() is not None:
        postgres.start()


@pytest.mark.fault(
    "PostgreSQL",
    "is down",
    sees="503 where an account is needed; `/readyz` is 503",
    ends="with the next request after its start",
)
def test_an_outage_is_a_503_and_one_line_and_heals(
    stopped: FlaskClient, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/account", "/uploads", "/account"):
        caplog.clear()
        answer = stopped.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert told(caplog).startswith("The database failed: ")
        assert "Traceback" not in caplog.text
    assert stopped.get("/readyz").status_code == 503
    postgres.start()
    assert is_signed_in(stopped)
    assert stopped.get("/readyz").status_code == 200


@pytest.mark.fault("PostgreSQL", "stops during an upload", sees="503, and the file is not kept", ends="with its start")
def test_an_upload_that_was_answered_with_503_is_not_kept(
    app: Flask, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away after the file is stored."""
    member, save_all = new_member(app), uploads.save_all

    def stop_after(*args: Any) -> list[folder.StoredFile]:
        saved = save_all(*args)
        postgres.stop()
        return saved

    monkeypatch.setattr(uploads, "save_all", stop_after)
    try:
        assert post(member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}).status_code == 503
    finally:
        postgres.start()
    assert stored(app) == []


@pytest.mark.fault(
    "PostgreSQL",
    "hangs",
    sees="503 for most where an account is needed; other pages work",
    ends="with its return, also for those who still wait",
)
def test_8_T4_a_database_that_hangs_does_not_stop_the_site(
    app: Flask, app_config: dict[str, object], postgres: Postgres, serve: Callable[..., Server]
) -> None:
    """80 people wait for it, more than the server has threads. Nothing times out while the others are served."""
    server = serve(**app_config | {"RATELIMIT_DEFAULT": "9999 per minute", "DATABASE_TIMEOUT": 60})
    signed_in = {"Cookie": f"__Host-session={session_cookie(new_member(app))}"}
    assert server.request("/account", headers=signed_in)[0] == 200
    with ThreadPoolExecutor(80) as pool:
        postgres.signal(signal.SIGSTOP)
        try:
            waiting = [pool.submit(server.request, "/account", headers=signed_in, patience=60) for _ in range(80)]
            for _ in range(20):
                assert [server.request(path)[0] for path in ("/healthz", "/", "/static/app.css")] == [200] * 3
            # Those who wait hold less than half of the threads. Everybody else has got an answer at once.
            assert 0 < sum(not each.done() for each in waiting) < THREADS / 2
        finally:
            postgres.signal(signal.SIGCONT)
        assert {each.result()[0] for each in waiting} == {200, 503}
    assert server.request("/account", headers=signed_in)[0] == 200
    assert "Traceback" not in server.log.read_text()


@pytest.mark.fault(
    "PostgreSQL", "hangs for longer than `DATABASE_TIMEOUT`", sees="503", ends="with the next request after its return"
)
def test_8_T4_an_answer_that_takes_too_long_is_a_503(
    app: Flask, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    member = new_member(app)
    postgres.signal(signal.SIGSTOP)
    try:
        assert member.get("/account").status_code == 503
    finally:
        postgres.signal(signal.SIGCONT)
    assert told(caplog).startswith("The database failed: ")
    assert "Traceback" not in caplog.text
    assert is_signed_in(member)
    assert sign_in(browser_like(app)).status_code == 303


@pytest.mark.usefixtures("postgres")
def test_the_password_of_the_app_opens_no_superuser() -> None:
    """deploy/postgres.sql, with a password that the superuser has too, as in compose.yaml."""
    with running("postgres") as server:
        server.execute("ALTER ROLE postgres PASSWORD 'the same'")
        command = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={ROOT / 'deploy/postgres.sql'}"]
        environment = os.environ | {"POSTGRES_PASSWORD": "the same"}
        subprocess.run([*command, server.address("postgres")], env=environment, check=True, stdout=subprocess.DEVNULL)
        with psycopg.connect(server.address("app")) as connection:
            roles = connection.execute(
                "SELECT rolname, rolsuper FROM pg_authid WHERE rolpassword IS NOT NULL"
            ).fetchall()
            owner = connection.execute("SELECT datdba::regrole::text FROM pg_database WHERE datname = 'app'").fetchone()
    assert (roles, owner) == ([("app", False)], ("app",))
