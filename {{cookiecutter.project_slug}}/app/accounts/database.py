"""The database of the accounts: SQLite by default, any other by ``DATABASE_URL``.

The start of the app does not touch it. ``flask --app app db upgrade`` creates its tables and updates them with each
release, by the migrations in ``app/accounts/migrations``, and those of your own tables in ``app/migrations``.
"""

from __future__ import annotations

import os
import re
import sqlite3
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa
from flask import Flask, Response, current_app
from sqlalchemy import orm

from app import paths
from app.accounts.models import User, db
from app.security.errors import Refusal, respond
from app.settings import SettingsError
from app.views.health import needs

if TYPE_CHECKING:
    from app.accounts.schema import Schema

CHANGED_MEANWHILE = "Your account was changed or deleted in another window. Please reload the page and check it."
BEHIND = "The database lacks tables, columns or a migration. Run: flask --app app db upgrade"
NO_DATABASE = (
    "The file of DATABASE_URL is damaged or no SQLite database. Restore it from a backup, or move it away and run: "
    "flask --app app db upgrade"
)
LONG = 24 * 3600  # seconds that an answer to a command may take
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
    current_app.config["DATABASE_TIMEOUT"] = LONG  # a migration of a large table takes long
    ctx.obj = schema()
    ctx.default_map = {"revision": {"branch": "app"}}  # your own, not those of the template


def init_app(app: Flask) -> None:
    """Configure the connections. Raises SettingsError if no installed driver can open ``DATABASE_URL``."""
    # The log of a failed statement must not reveal addresses and password hashes.
    try:
        app.config["SQLALCHEMY_ENGINES"] = {"default": {"url": _complete(app), "hide_parameters": True}}
        if not sqlite_file(app):
            # Each thread may have a connection, so that none waits for another's; this number is kept open.
            pool = {"pool_size": app.config["DATABASE_POOL_SIZE"], "max_overflow": -1, "pool_pre_ping": True}
            app.config["SQLALCHEMY_ENGINES"]["default"] |= pool
        db.init_app(app)
    except (sa.exc.ArgumentError, ValueError, ImportError) as fault:
        raise SettingsError(
            f"DATABASE_URL: no installed driver can open it ({type(fault).__name__}). "
            "Example: DATABASE_URL=postgresql://user:password@host/name"
        ) from None
    # The extension's hook for async sessions would start a thread for every request. This app has no async sessions.
    app.teardown_appcontext_funcs = [hook for hook in app.teardown_appcontext_funcs if not iscoroutinefunction(hook)]
    for error in (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, sa.exc.ProgrammingError):
        app.register_error_handler(error, _answer_without_database)
    for race in (orm.exc.StaleDataError, orm.exc.ObjectDeletedError):
        app.register_error_handler(race, answer_to_a_race)
    with app.app_context():
        _set_up(app, db.engine)
        # Not one of the pool: a process that is about to fork must not share a connection with its workers.
        own = sa.create_engine(db.engine.url, poolclass=sa.NullPool)
    _set_up(app, own)
    app.cli.add_command(commands, "db")
    needs(app, "database", lambda: _ask(app, own))


def _set_up(app: Flask, engine: sa.Engine) -> None:
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "do_connect", _refuse_to_make_a_file)
        sa.event.listen(engine, "connect", _set_up_sqlite)
    elif engine.driver == "psycopg":
        from app.accounts import postgres  # here, because SQLite needs no psycopg

        postgres.init_app(app, engine)


def _ask(app: Flask, engine: sa.Engine) -> None:
    """Raise LookupError unless the database answers and has all migrations of this version of the app."""
    try:
        with engine.connect() as connection:
            if not app.extensions.get("database_is_current"):
                from app.accounts.schema import newest  # here, because Alembic is a quarter of a start

                there = connection.scalars(sa.text("SELECT version_num FROM alembic_version"))
                if missing := set(newest()) - set(there):
                    raise LookupError(f"{BEHIND} ({', '.join(sorted(missing))})")
                app.extensions["database_is_current"] = True
            connection.execute(sa.select(User.id).limit(1))
    except sa.exc.DBAPIError as error:
        raise LookupError(_in_words(error)) from error


def _complete(app: Flask) -> sa.URL:
    """Return ``DATABASE_URL`` with a driver, and a path in it as an absolute one.

    Raises SettingsError for SQLite without a file, and for a host that begins within the password: logs name the host.
    """
    url = sa.make_url(app.config["DATABASE_URL"])
    if "@" in (url.host or ""):
        raise SettingsError("DATABASE_URL: an @ in its password must be percent-encoded, as %40")
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
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
        raise sqlite3.OperationalError("no such table, because there is no file")


def answer_to_a_race(_: Exception) -> Response:
    """Return a 409 for a request that another one has overtaken, by changing or deleting the account."""
    return respond(Refusal(409, CHANGED_MEANWHILE))


def _answer_without_database(error: sa.exc.SQLAlchemyError) -> Response:
    """Return a 503 with Retry-After, without any details of the failed statement."""
    if isinstance(error, sa.exc.ProgrammingError) and not _is_behind(error):
        return respond(error)
    current_app.logger.error("%s", _in_words(error))
    message = "Accounts are not available at the moment. Please try again in a minute."
    return respond(Refusal(503, message, retry_after=60))


def _in_words(error: sa.exc.SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{BEHIND} ({cause})" if _is_behind(error) else f"The database failed: {cause}"


def _is_behind(error: sa.exc.SQLAlchemyError) -> bool:
    cause = getattr(error, "orig", None)
    # In PostgreSQL, 42P01 is undefined_table and 42703 is undefined_column.
    return bool(re.match("no such (table|column)", str(cause))) or getattr(cause, "sqlstate", "") in ("42P01", "42703")
