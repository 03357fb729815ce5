"""The tables: accounts, their sessions, and mails to send. ``app/accounts/migrations`` creates and changes them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from flask_login import UserMixin
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column


class Model(orm.DeclarativeBase):
    """The base of all tables. It names their constraints, so that later migrations can change them."""

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
    """Return the current time in UTC, without a time zone: SQLite stores none."""
    return datetime.now(UTC).replace(tzinfo=None)


class User(Model, UserMixin):  # type: ignore[misc]
    """An account.

    ``fs_uniquifier`` (Flask-Security's name) changes with the password, which invalidates reset links and sessions.
    ``owner_key`` identifies the owner of uploads; unlike ``id`` it is never reused.
    ``confirmed_at`` is None until the user has shown access to the mailbox of ``email``: somebody else may have
    registered the address.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.String(254), unique=True)
    password: Mapped[str] = mapped_column(sa.String(255))
    fs_uniquifier: Mapped[str] = mapped_column(sa.String(64), unique=True, default=lambda: secrets.token_hex(16))
    owner_key: Mapped[str] = mapped_column(sa.String(32), unique=True, default=lambda: secrets.token_hex(16))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    confirmed_at: Mapped[datetime | None]

    # Of two concurrent changes, for example of the password, one succeeds; the other raises StaleDataError.
    __mapper_args__ = {"version_id_col": fs_uniquifier, "version_id_generator": False}  # noqa: RUF012 - SQLAlchemy's way


class Session(Model):
    """The session of a signed-in browser. Deleting the row ends the session.

    ``id`` is a hash of the secret in the browser's cookie, so pages may show it.
    ``fs_uniquifier`` is the user's value at the sign-in.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    fs_uniquifier: Mapped[str] = mapped_column(sa.String(64))
    user_agent: Mapped[str] = mapped_column(sa.String(200))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_seen_at: Mapped[datetime] = mapped_column(default=utcnow)
    user: Mapped[User] = orm.relationship(lazy="joined", innerjoin=True)


class Mail(Model):
    """A mail that waits to be sent. ``app/accounts/mail.py`` deletes the row when the mail server has taken the mail.

    With ``needs_token``, the link in ``body`` lacks its token. It is made when the mail is sent. ``kind`` and
    ``request_id`` are for the log.
    """

    __tablename__ = "mails"

    id: Mapped[int] = mapped_column(primary_key=True)
    recipient: Mapped[str] = mapped_column(sa.String(254))
    subject: Mapped[str] = mapped_column(sa.String(200))
    body: Mapped[str] = mapped_column(sa.Text)
    needs_token: Mapped[bool]
    tries: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    kind: Mapped[str] = mapped_column(sa.String(40), server_default="unknown")
    request_id: Mapped[str] = mapped_column(sa.String(128), server_default="-")
