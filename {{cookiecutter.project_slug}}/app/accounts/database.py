"""The database of the accounts: SQLite by default, any other by ``DATABASE_URL``.

The start of the app does not touch it. ``flask --app app db upgrade`` creates its tables and updates them with each
release, by the migrations in ``app/accounts/migrations``, and those of your own tables in ``app/migrations``.
"""

from __future__ import annotations

import os
import sqlite3
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa
from flask import Flask, Response, current_app, g
from sqlalchemy import orm

from app import paths
from app.accounts.models import User, db
from app.security.errors import Refusal, respond
from app.settings import SettingsError
from app.views.health import needs

if TYPE_CHECKING:
    from app.accounts.schema import Schema

CHANGED_MEANWHILE = "Your account was changed or deleted in another window. Please reload the page and check it."
NO_TABLES = "The database has no tables yet. Make them with: flask --app app db upgrade"
NO_DATABASE = (
    "The file of DATABASE_URL is damaged or no SQLite database. Restore it from a backup, or move it away and run: "
    "flask --app app db upgrade"
)
BUSY_TIMEOUT = 5000  # milliseconds that a writer waits for another writer


def schema() -> Schema:
    """Return what creates and updates the tables of the current app."""
    from app.accounts.schema import Schema  # here, because Alembic is a quarter of a start

    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    found: Schema = app.extensions.get("alembic") or Schema(app, sqlite_file(app))
    return found


class _Commands(click.Group):
    """The commands of Flask-Alembic, which are imported when one of them runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        from flask_alembic.cli import cli

        return cli.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        from flask_alembic.cli import cli

        return cli.get_command(ctx, cmd_name)


@click.group(cls=_Commands)
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Create and update the tables of the database."""
    ctx.obj = schema()
    ctx.default_map = {"revision": {"branch": "app"}}  # your own, not those of the template


def init_app(app: Flask) -> None:
    """Configure the connections. Raises SettingsError if no installed driver can open ``DATABASE_URL``."""
    # The log of a failed statement must not reveal addresses and password hashes.
    try:
        app.config["SQLALCHEMY_ENGINES"] = {"default": {"url": _absolute(app), "hide_parameters": True}}
        db.init_app(app)
    except (sa.exc.ArgumentError, ValueError, ImportError) as fault:
        raise SettingsError(
            f"DATABASE_URL: no installed driver can open it ({type(fault).__name__}). Install the driver, "
            "as in: pip install psycopg[binary]. Example: DATABASE_URL=postgresql+psycopg://user:password@host/name"
        ) from None
    # The extension's hook for async sessions would start a thread for every request. This app has no async sessions.
    app.teardown_appcontext_funcs = [hook for hook in app.teardown_appcontext_funcs if not iscoroutinefunction(hook)]
    for error in (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, sa.exc.ProgrammingError):
        app.register_error_handler(error, _answer_without_database)
    for race in (orm.exc.StaleDataError, orm.exc.ObjectDeletedError):
        app.register_error_handler(race, answer_to_a_race)
    with app.app_context():
        engine = db.engine
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "do_connect", _refuse_to_make_a_file)
        sa.event.listen(engine, "connect", _set_up_sqlite)
    app.cli.add_command(commands, "db")
    needs(app, "database", lambda: db.session.execute(sa.select(User.id).limit(1)))


def _absolute(app: Flask) -> sa.URL:
    """Return ``DATABASE_URL``, a path in it as an absolute one. Raises SettingsError for SQLite without a file."""
    url = sa.make_url(app.config["DATABASE_URL"])
    if url.get_backend_name() != "sqlite":
        return url
    if url.database in (None, "", ":memory:") or str(url.database).startswith("file:"):
        raise SettingsError(f"DATABASE_URL: names no file. Example: DATABASE_URL=sqlite:///{paths.INSTANCE / 'app.db'}")
    file = paths.INSTANCE / str(url.database)  # an absolute path stays as it is
    folder = next(parent for parent in file.parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SettingsError(
            f"DATABASE_URL: {folder} is not a folder that this app can write to. Example: DATABASE_URL=sqlite:///app.db"
        )
    return url.set(database=str(file))


def sqlite_file(app: Flask) -> Path | None:
    """Return the path of a SQLite database; None for a database of another kind."""
    url = sa.make_url(app.config["SQLALCHEMY_ENGINES"]["default"]["url"])
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """Allow reads during a write (WAL), and enforce foreign keys: deleting a user deletes the sessions."""
    try:
        for pragma in (
            "foreign_keys = ON",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"busy_timeout = {BUSY_TIMEOUT}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        raise sqlite3.OperationalError(NO_DATABASE) from error


def _refuse_to_make_a_file(_dialect: object, _record: object, arguments: list[str], _: object) -> None:
    """Never create a SQLite file on connect: it would be empty, and other users could read it."""
    if not Path(arguments[0]).exists():
        raise sqlite3.OperationalError(NO_TABLES)


def answer_to_a_race(_: Exception) -> Response:
    """Return a 409 for a request that another one has overtaken, by changing or deleting the account."""
    db.session.rollback()
    db.session.expunge_all()
    g.pop("_login_user", None)  # the error page asks again who is here
    return respond(Refusal(409, CHANGED_MEANWHILE))


def _answer_without_database(error: sa.exc.DBAPIError) -> Response:
    """Return a 503 with Retry-After, without any details of the failed statement."""
    if _lacks_tables(error):
        current_app.logger.error(NO_TABLES)
    elif isinstance(error, sa.exc.ProgrammingError):
        return respond(error)
    else:
        current_app.logger.error("The database failed: %s", error)
    message = "Accounts are not available at the moment. Please try again in a minute."
    return respond(Refusal(503, message, retry_after=60))


def _lacks_tables(error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    # 42P01 is undefined_table in PostgreSQL.
    return NO_TABLES in str(cause) or "no such table" in str(cause) or getattr(cause, "sqlstate", "") == "42P01"
