"""The tables: the accounts, and where each of them is signed in. ``app/accounts/migrations`` makes and changes them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from flask_login import UserMixin
from flask_sqlalchemy_lite import SQLAlchemy
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column


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
