"""Backup and restore: after a loss of everything, people sign in and have their files. Ended sessions stay ended."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.accounts.database import schema
from app.accounts.models import db
from tests.accounts.people import PASSWORD, is_signed_in, sign_in
from tests.accounts.postgres import Postgres, postgres
from tests.conftest import browser_like, new_member, post
from tests.s3_server import S3, objects

__all__ = ("postgres",)

DATABASE_PASSWORD = "tr0ub4dor-and-3"


def lose_sqlite(app_config: dict[str, object], _: Postgres | None = None) -> None:
    file = Path(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///"))
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def lose_postgres(app_config: dict[str, object], server: Postgres) -> None:
    name = str(app_config["DATABASE_URL"]).rpartition("/")[2]
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.execute(f"CREATE DATABASE {name}")


def command(app: Flask, *arguments: str | Path) -> tuple[int, str]:
    """Run a command as in a process of its own, without connections from before."""
    with app.app_context():
        db.engine.dispose()
    ended = app.test_cli_runner().invoke(args=list(map(str, arguments)))
    with app.app_context():
        db.engine.dispose()
    return ended.exit_code, ended.output


@pytest.mark.parametrize("lose", [lose_sqlite, lose_postgres])
def test_what_was_lost_comes_back(
    app_config: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    lose: Callable[[dict[str, object], Postgres | None], None],
) -> None:
    server: Postgres | None = None
    if lose is lose_postgres:
        server = request.getfixturevalue("postgres")
        app_config["DATABASE_URL"] = server.new_database().replace("app@", f"app:{DATABASE_PASSWORD}@")
    app = create_app(app_config)
    with app.app_context():
        schema().upgrade()
    member, uploads, backup = new_member(app), Path(str(app_config["UPLOAD_DIR"])), tmp_path / "backups/today"
    upload = post(
        member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}, headers={"Accept": "application/json"}
    )
    cookie = member.get_cookie("__Host-session")
    assert cookie is not None

    def stolen_cookie_is_alive() -> bool:
        thief = browser_like(app)
        thief.set_cookie("__Host-session", cookie.value, secure=True)
        return is_signed_in(thief)

    assert stolen_cookie_is_alive()

    seen: list[str] = []
    run = subprocess.run

    def spy(arguments: list[str], **kwargs: Any) -> Any:
        seen.extend(arguments)
        return run(arguments, **kwargs)

    monkeypatch.setattr(subprocess, "run", spy)
    assert command(app, "backup", backup) == (0, "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in backup.rglob("*") if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (backup, *backup.rglob("*")) if path.is_dir()} == {0o700}
    assert command(app, "backup", backup)[0] == 1

    post(member, "/logout")
    assert not stolen_cookie_is_alive()
    # Nothing is overwritten, neither files nor tables.
    before = sorted(uploads.rglob("*"))
    assert command(app, "restore", backup)[0] == 1
    aside = uploads.rename(tmp_path / "aside")
    assert command(app, "restore", backup)[0] == 1
    assert not any(uploads.iterdir())
    uploads.rmdir()
    aside.rename(uploads)
    assert sorted(uploads.rglob("*")) == before

    shutil.rmtree(uploads)
    lose(app_config, server)
    status, told = command(app, "restore", backup)
    assert (status, "Everybody has to sign in again" in told) == (0, True)
    assert not stolen_cookie_is_alive()
    owner = browser_like(create_app(app_config))
    assert sign_in(owner, password=PASSWORD).status_code == 303
    with owner.get(upload.headers["Location"]) as answer:
        assert answer.data == b"mine"
    assert {stat.S_IMODE(path.stat().st_mode) for path in uploads.rglob("*") if path.is_file()} == {0o600}
    assert not [part for part in seen if DATABASE_PASSWORD in part]
    assert {"pg_dump", "pg_restore"} & {*seen} == ({"pg_dump", "pg_restore"} if server else set())


@pytest.mark.parametrize("content", [[], ["database.db.part"], ["uploads"]])
def test_what_is_no_backup_is_refused(
    app: Flask, app_config: dict[str, object], tmp_path: Path, content: list[str]
) -> None:
    """And neither a database nor a file is made of it."""
    lose_sqlite(app_config)
    for name in content:
        (tmp_path / "backup" / name).mkdir(parents=True)
    status, told = command(app, "restore", tmp_path / "backup")
    assert (status, "There is no " in told) == (1, True)
    assert not Path(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")).exists()


def test_a_bucket_is_not_backed_up_and_that_is_told(
    app_config: dict[str, object], s3_server: S3, tmp_path: Path
) -> None:
    config = app_config | s3_server.settings()
    app, backup = create_app(config), tmp_path / "backup"
    member = new_member(app)
    post(member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")})
    status, told = command(app, "backup", backup)
    assert (status, [path.name for path in backup.iterdir()]) == (0, ["database.db"])
    assert f"Not copied: the uploads in {config['UPLOAD_STORAGE']}" in told
    for path in tmp_path.glob("app.db*"):
        path.unlink()
    status, told = command(app, "restore", backup)
    assert (status, f"Not restored: the uploads in {config['UPLOAD_STORAGE']}" in told) == (0, True)
    assert len(objects(config)) == 2
