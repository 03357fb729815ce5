"""Backup and restore: after a loss of everything, people sign in and have their files. Ended sessions stay ended."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app import create_app
from app.accounts.database import schema
from app.accounts.models import db
from tests.accounts.people import PASSWORD, is_signed_in, sign_in
from tests.accounts.postgres import Postgres, postgres
from tests.conftest import browser_like, new_member, post, session_cookie
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
    stolen = session_cookie(member)

    def stolen_cookie_is_alive() -> bool:
        thief = browser_like(app)
        thief.set_cookie("__Host-session", stolen, secure=True)
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


def damage(path: str, change: Callable[[Path], object]) -> Any:
    return pytest.param(path, change, id=f"{path} {change.__name__.strip('_')}")


def absent(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("This is no database.\n" * 1000)


def overwritten(path: Path) -> None:
    """Damage the middle. The header and the list of tables stay intact."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[len(whole) * 3 // 4 :])


def of_another_app(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE alembic_version (version_num)")


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def outside(path: Path) -> None:
    """Move it to a folder whose name is not an owner's."""
    path.rename(path.parents[1] / "owner.json")
    (path.parents[1] / "owner").mkdir()
    (path.parents[1] / "owner.json").rename(path.parents[1] / "owner" / path.name)


DAMAGES = [
    *(damage("database.db", change) for change in (absent, empty, cut, text, overwritten, of_another_app)),
    damage("uploads", absent),
    *(damage("uploads/*/*.json", change) for change in (a_link, outside)),
    *(damage("uploads/*/*[0-9a-f]", change) for change in (absent, a_link)),
]


def backed_up(app: Flask, place: Path) -> None:
    """Make a backup with an account and an upload."""
    post(new_member(app), "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")})
    assert command(app, "backup", place)[0] == 0


@pytest.mark.parametrize(("path", "change"), DAMAGES)
def test_a_damaged_backup_is_refused_in_one_line(
    app: Flask, app_config: dict[str, object], tmp_path: Path, path: str, change: Callable[[Path], object]
) -> None:
    """And neither a database nor a file is made of it."""
    backed_up(app, tmp_path / "backup")
    shutil.rmtree(str(app_config["UPLOAD_DIR"]))
    lose_sqlite(app_config)
    (damaged,) = (tmp_path / "backup").glob(path)
    change(damaged)
    status, told = command(app, "restore", tmp_path / "backup")
    assert (status, told.count("\n")) == (1, 1), told
    assert told.startswith(f"Error: {tmp_path}/backup/") or told.startswith(f"Error: There is no {tmp_path}/backup/")
    assert not Path(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")).exists()
    assert [file for file in Path(str(app_config["UPLOAD_DIR"])).rglob("*") if file.is_file()] == []


def test_a_folder_that_cannot_be_read_is_not_left_out(
    app: Flask, app_config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user is: neither a backup nor a restore is without its files."""
    backed_up(app, tmp_path / "backup")
    uploads = Path(str(app_config["UPLOAD_DIR"]))
    owners = [path for place in (uploads, tmp_path / "backup/uploads") for path in place.iterdir() if path.is_dir()]

    def refusing(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def of_another_user(path: Any) -> Any:
            if Path(path) in owners:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return read(path)

        return of_another_user

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    assert command(app, "backup", tmp_path / "another") == (1, f"Error: {owners[0]}: Permission denied.\n")
    assert not (tmp_path / "another").exists()
    lose_sqlite(app_config)
    uploads.rename(tmp_path / "aside")
    assert command(app, "restore", tmp_path / "backup") == (1, f"Error: {owners[1]}: Permission denied.\n")
    assert not Path(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")).exists()


def test_a_backup_can_be_restored_from_a_place_that_cannot_be_written_to(app: Flask, tmp_path: Path) -> None:
    backed_up(app, tmp_path / "backup")
    with contextlib.closing(sqlite3.connect(tmp_path / "backup/database.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)  # WAL needs files beside it


def test_what_is_restored_counts_for_the_quota_of_all_owners(app_config: dict[str, object], tmp_path: Path) -> None:
    app = create_app(app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 5})
    backed_up(app, tmp_path / "backup")
    uploads = Path(str(app_config["UPLOAD_DIR"]))
    for owner in [path for path in uploads.iterdir() if path.is_dir()]:
        shutil.rmtree(owner)
    lose_sqlite(app_config)
    assert app.test_cli_runner().invoke(args=["uploads", "sweep"]).exit_code == 0
    assert command(app, "restore", tmp_path / "backup")[0] == 0
    member = browser_like(app)
    assert sign_in(member, password=PASSWORD).status_code == 303
    assert post(member, "/uploads", {"file": (io.BytesIO(b"more"), "notes.txt")}).status_code == 503


@pytest.mark.parametrize("change", [absent, empty, cut, text, overwritten])
def test_a_damaged_dump_is_refused_in_one_line(
    app_config: dict[str, object], tmp_path: Path, postgres: Postgres, change: Callable[[Path], object]
) -> None:
    app_config["DATABASE_URL"] = postgres.new_database()
    app = create_app(app_config)
    with app.app_context():
        schema().upgrade()
    backed_up(app, tmp_path / "backup")
    shutil.rmtree(str(app_config["UPLOAD_DIR"]))
    lose_postgres(app_config, postgres)
    change(tmp_path / "backup/database.dump")
    status, told = command(app, "restore", tmp_path / "backup")
    assert (status, told.count("\n"), told.startswith("Error: pg_restore failed: ")) == (1, 1, True), told
    with app.app_context():
        assert sa.inspect(db.engine).get_table_names() == []


def test_a_dump_of_another_app_is_refused(app_config: dict[str, object], tmp_path: Path, postgres: Postgres) -> None:
    app = create_app(app_config | {"DATABASE_URL": postgres.new_database()})
    assert command(app, "backup", tmp_path / "backup") == (0, "")
    status, told = command(app, "restore", tmp_path / "backup")
    assert (status, "not part of a backup of this app" in told) == (1, True)


def test_without_a_database_there_is_no_backup(app_config: dict[str, object], tmp_path: Path) -> None:
    """As with a wrong DATABASE_URL: a daily backup would be empty, and nobody would know."""
    app = create_app(app_config | {"DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"})
    status, told = command(app, "backup", tmp_path / "backup")
    assert (status, told.startswith(f"Error: There is no {tmp_path / 'other.db'}. ")) == (1, True)
    assert not [*tmp_path.glob("other*"), *tmp_path.glob("backup*")]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("uploads/monday", "which must have no other files"),
        (".", "there already"),
        ("/", "there already"),
        ("/proc/monday", "can't be made: No such file or directory."),
        ("app.db/monday", "can't be made: Not a directory."),
    ],
)
def test_a_backup_has_a_place_of_its_own(app: Flask, tmp_path: Path, place: str, why: str) -> None:
    """In UPLOAD_DIR, it would keep the app from starting again."""
    status, told = command(app, "backup", tmp_path / place)
    assert (status, told.count("\n"), why in told) == (1, 1, True), told
    assert command(app, "backup", tmp_path / "elsewhere") == (0, "")


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
    from_before = Path(str(config["UPLOAD_DIR"]), f"session-{'0' * 32}")  # when files were not in a bucket
    from_before.mkdir(parents=True)
    status, told = command(app, "restore", backup)
    assert (status, f"Not restored: the uploads in {config['UPLOAD_STORAGE']}" in told) == (0, True)
    assert len(objects(config)) == 2
