"""Back up the database and the uploads, and restore them: ``flask --app app backup FOLDER``, ``… restore FOLDER``.

A backup is made while the app runs: first a consistent copy of the database, then the uploads. So each file that a row
names is in the backup, unless its owner deleted it meanwhile. The other way round, a newer row could name a missing
file. Files in a bucket are not copied. Buckets have their own means, such as versions and replication.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess  # nosec B404
from collections.abc import Iterator
from pathlib import Path

import click
import sqlalchemy as sa
from flask import Flask, current_app
from flask.cli import with_appcontext

from app import paths
from app.accounts.database import LONG, sqlite_file
from app.accounts.models import Session, db
from app.storage import folder, total
from app.storage.stored import ID, OWNER, storage

DONE = (
    "Restored. Everybody has to sign in again. If the backup is from an earlier version of the app, run: "
    "flask --app app db upgrade"
)


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(_backup)
    app.cli.add_command(_restore)


@click.command("backup")
@click.argument("place", metavar="FOLDER", type=click.Path(path_type=Path))
@with_appcontext
def _backup(place: Path) -> None:
    """Copy the database and the uploads to FOLDER, which must not exist. A bucket is not copied.

    Keep it as safe as the database: it holds addresses and password hashes. SECRET_KEY is not in it.
    """
    file = sqlite_file(current_app)
    if file and not file.is_file():
        raise click.ClickException(f"There is no {file}. Check DATABASE_URL, or run: flask --app app db upgrade")
    place = place.resolve()
    part = place.parent / f"{place.name}.part"  # until it is complete, it has another name
    _refuse_if_there(place, part)
    if storage() is folder and place.is_relative_to(folder.root().resolve()):
        raise click.ClickException(f"{place} is in UPLOAD_DIR, which must have no other files. Choose another folder.")
    try:
        paths.make_private_folder(part)
    except OSError as error:
        raise click.ClickException(f"{part} can't be made: {error.strerror}.") from None
    if file:
        _copy_sqlite(file, part / "database.db")
    else:
        _run("pg_dump", "--format=custom", f"--file={part / 'database.dump'}")
    if storage() is folder:
        _copy_uploads(folder.root(), part / "uploads")
    else:
        click.echo(
            f"Not copied: the uploads in {current_app.config['UPLOAD_STORAGE']}. Back up the bucket now.", err=True
        )
    part.rename(place)


@click.command("restore")
@click.argument("place", metavar="FOLDER", type=click.Path(path_type=Path))
@with_appcontext
def _restore(place: Path) -> None:
    """Restore the database and the uploads from FOLDER. Stop the app first.

    Nothing is overwritten: SQLite's file, the tables in PostgreSQL and the uploads must not exist.
    """
    if storage() is folder:
        _refuse_if_there(*(path for path in folder.root().iterdir() if OWNER.fullmatch(path.name)))
        _refuse_damaged_uploads(place / "uploads")
    if file := sqlite_file(current_app):
        # A -wal of another database would damage this one.
        _refuse_if_there(*(file.with_name(f"{file.name}{suffix}") for suffix in ("", "-wal", "-shm")))
        _refuse_damaged_sqlite(place / "database.db")
        _copy_sqlite(place / "database.db", file)
    else:
        tables = _run("pg_restore", "--list", str(place / "database.dump"), connect=False)
        if not re.search(r" TABLE \S+ sessions ", tables):
            raise _damaged(place / "database.dump")
        # All or nothing: a table that is there ends it, and the database stays as it was.
        _run("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", str(place / "database.dump"))
    # A session that was ended after the backup must not be alive again: its cookie may be a stolen copy (4.T1).
    current_app.config["DATABASE_TIMEOUT"] = LONG  # there may be millions
    db.session.execute(sa.delete(Session))
    db.session.commit()
    if storage() is folder:
        _copy_uploads(place / "uploads", folder.root())
        total.measure()
    else:
        click.echo(f"Not restored: the uploads in {current_app.config['UPLOAD_STORAGE']}.", err=True)
    click.echo(DONE)


def _refuse_if_there(*files: Path) -> None:
    if there := next((path for path in files if path.exists()), None):
        raise click.ClickException(f"{there} is there already. Nothing was changed.")


def _damaged(path: Path, reason: object = "") -> click.ClickException:
    why = f" ({reason})" if reason else ""
    return click.ClickException(f"{path} is damaged, or not part of a backup of this app{why}. Nothing was changed.")


def _refuse_damaged_sqlite(source: Path) -> None:
    """Raise an error unless ``source`` is an undamaged database of this app."""
    if not source.is_file():
        raise click.ClickException(f"There is no {source}.")
    try:
        with contextlib.closing(sqlite3.connect(source)) as backup:
            backup.execute("SELECT 1 FROM sessions, alembic_version")
            (found,) = backup.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(source, error) from None
    if found != "ok":
        raise _damaged(source, " ".join(found.split()))


def _refuse_damaged_uploads(source: Path) -> None:
    """Raise an error unless each upload is complete. A link could lead to a file that is not its owner's."""
    if not source.is_dir():
        raise click.ClickException(f"There is no {source}.")
    for facts in _facts(source):
        names_fit = OWNER.fullmatch(facts.parent.name) and ID.fullmatch(facts.stem)
        for path in (facts, facts.with_suffix("")):
            if not names_fit or facts.parent.is_symlink() or path.is_symlink() or not path.is_file():
                raise _damaged(path)


def _facts(source: Path) -> Iterator[Path]:
    """Yield what makes each upload visible. Raises an error for a folder that can't be read: glob leaves it out."""
    try:
        for owned in source.iterdir():
            if owned.is_dir() and owned.name != "lost+found":  # which many volumes have, and only root may read
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    yield from [path for path in owned.iterdir() if path.suffix == ".json"]
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from None


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, also while others write to it."""
    paths.make_private_folder(target.parent)
    target.touch(0o600, exist_ok=False)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")  # with WAL, it could not be read where nobody may write


def _run(tool: str, *arguments: str, connect: bool = True) -> str:
    """Run a tool of PostgreSQL, and return what it prints.

    Other users of this machine can see its arguments, so the password is not in them.
    """
    url = sa.make_url(current_app.config["SQLALCHEMY_ENGINES"]["default"]["url"])
    if url.get_backend_name() != "postgresql":
        raise click.ClickException("Only SQLite and PostgreSQL are backed up here. Use the tools of your database.")
    address = url._replace(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [tool, *[f"--dbname={address}"] * connect, *arguments]
    try:
        return subprocess.run(  # noqa: S603 # nosec B603
            command, env=environment, umask=0o077, check=True, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout
    except FileNotFoundError:
        raise click.ClickException(f"There is no {tool} here. Its package is postgresql-client.") from None
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"{tool} failed: {next(iter(error.stderr.splitlines()), '')}") from None


def _copy_uploads(source: Path, target: Path) -> None:
    """Copy all files that are visible, with their modes and times."""
    paths.make_private_folder(target)
    for facts in _facts(source):
        owned = target / facts.parent.name
        paths.make_private_folder(owned)
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            for path in (facts.with_suffix(""), facts):
                shutil.copy2(path, owned / path.name)
