"""The database: the accounts, and where each of them is signed in.

SQLite without a setting, any other by ``DATABASE_URL``. The tables are made and changed by ``flask db upgrade`` out of
``app/migrations/``; a SQLite file that is not there yet is made at start.
"""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from pathlib import Path

import sqlalchemy as sa
from flask import Flask, Response, current_app
from flask_alembic import Alembic
from flask_login import UserMixin
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

from app.security.errors import Refusal, respond
from app.settings import SettingsError

CHANGED_MEANWHILE = "Your account was changed in another window. Please reload the page and look."
BUSY_TIMEOUT = 5000  # milliseconds that a writer waits for another one


class Model(orm.DeclarativeBase):
    """What all tables share: names for their constraints, which a migration needs to change them later."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(session_options={"expire_on_commit": False})


def utcnow() -> datetime:
    """Give the time in UTC, without a zone: SQLite keeps none."""
    return datetime.now(UTC).replace(tzinfo=None)


class User(Model, UserMixin):  # type: ignore[misc]
    """An account.

    ``fs_uniquifier`` (Flask-Security's name) changes with the password: reset links and sessions of before don't fit.
    ``owner_key`` names the owner of uploads; unlike ``id`` it is never given to anybody again.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.String(254), unique=True)
    password: Mapped[str] = mapped_column(sa.String(255))
    fs_uniquifier: Mapped[str] = mapped_column(sa.String(64), unique=True, default=lambda: secrets.token_hex(16))
    owner_key: Mapped[str] = mapped_column(sa.String(32), unique=True, default=lambda: secrets.token_hex(16))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    # Of two changes at once, of the password say, only one gets through: the other one's row is no longer there.
    __mapper_args__ = {"version_id_col": fs_uniquifier, "version_id_generator": False}  # noqa: RUF012 - SQLAlchemy's way


class Session(Model):
    """A browser that is signed in, for as long as its row is here.

    ``id`` comes from the secret in the browser's cookie by a one-way function: it shows in pages and opens nothing.
    ``fs_uniquifier`` is the user's at the sign-in.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    fs_uniquifier: Mapped[str] = mapped_column(sa.String(64))
    user_agent: Mapped[str] = mapped_column(sa.String(200))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_seen_at: Mapped[datetime] = mapped_column(default=utcnow)
    user: Mapped[User] = orm.relationship(lazy="joined", innerjoin=True)


def init_app(app: Flask) -> None:
    """Connect to the database of the settings, and make the tables of a SQLite file that is not there yet.

    Raises SettingsError when no installed driver can open the URL.
    """
    # The log of a statement that failed must not tell addresses and password hashes.
    app.config["SQLALCHEMY_ENGINES"] = {"default": {"url": app.config["DATABASE_URL"], "hide_parameters": True}}
    try:
        db.init_app(app)
    except (sa.exc.ArgumentError, ValueError, ImportError) as fault:
        raise SettingsError(
            f"DATABASE_URL: no installed driver can open it ({type(fault).__name__}). Install the driver, "
            "as in: pip install psycopg[binary]. Example: DATABASE_URL=postgresql+psycopg://user:password@host/name"
        ) from None
    # The extension's hook for async sessions would start a thread for every request. There are no such sessions here.
    app.teardown_appcontext_funcs = [hook for hook in app.teardown_appcontext_funcs if not iscoroutinefunction(hook)]
    for error in (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError):
        app.register_error_handler(error, _answer_without_database)
    app.register_error_handler(orm.exc.StaleDataError, lambda _: respond(Refusal(409, CHANGED_MEANWHILE)))
    with app.app_context():
        engine = db.engine
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _set_up_sqlite)
            if engine.url.database in (None, "", ":memory:"):
                Model.metadata.create_all(engine)
            elif not Path(engine.url.database).exists():
                _make_sqlite_file(app, engine.url, Path(engine.url.database))
    Alembic(app, run_mkdir=False, metadatas=Model.metadata)


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """Let readers work beside a writer, and let no session outlive its user."""
    for pragma in ("foreign_keys = ON", "journal_mode = WAL", "synchronous = NORMAL", f"busy_timeout = {BUSY_TIMEOUT}"):
        connection.execute(f"PRAGMA {pragma}")


def _make_sqlite_file(app: Flask, url: sa.URL, path: Path) -> None:
    """Make the file with all its tables, or none: several workers may start at once, and any may be stopped."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".database-") as folder:
        new = Path(folder, "new")
        new.touch(0o600)
        engine = sa.create_engine(url.set(database=str(new)))
        Alembic(app, run_mkdir=False, command_name="", metadatas=Model.metadata, engines=engine).upgrade()
        engine.dispose()
        if not path.exists():
            new.rename(path)


def _answer_without_database(error: Exception) -> Response:
    """Say that it is our fault and for how long, and nothing of the statement that failed."""
    current_app.logger.error("The database failed (are its tables there? flask --app app db upgrade): %s", error)
    # The page must not ask the database who is here.
    current_app.login_manager._update_request_context_with_user()  # type: ignore[attr-defined]
    message = "Accounts are not available at the moment. Please try again in a minute."
    return respond(Refusal(503, message, retry_after=60))
