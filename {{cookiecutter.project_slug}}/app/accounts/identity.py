"""Who is signed in: Flask-Security, with sessions that end on the server.

The cookie holds a random secret, the database a row for it. Without the row a cookie is worth nothing, so a copy dies
with the sign-out, with a new password and with either lifetime. What is left out of Flask-Security on purpose: its
views (a JSON API, sign-in after registration, answers that take longer for accounts that exist), its tokens, and
Flask-Login's remember-me and its comparison of addresses and user agents, which a thief copies and a train ride breaks.
Source: OWASP Session Management and Authentication Cheat Sheets; ASVS 5.0 V6.2, V6.3.8, V7.2-V7.4.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from datetime import timedelta
from typing import Any, cast

import click
import sqlalchemy as sa
from flask import Flask, current_app, flash, g, redirect, request, session, url_for
from flask.cli import AppGroup
from flask.typing import ResponseReturnValue
from flask_security import FSQLALiteUserDatastore, RoleMixin, Security, current_user, hash_password
from itsdangerous import URLSafeTimedSerializer

from app.accounts import credentials
from app.accounts.mail import BackgroundMail
from app.accounts.models import Session, User, db, utcnow
from app.security.cookies import start_session
from app.security.csrf import UNSAFE_METHODS
from app.security.errors import refuse, wants_json
from app.security.templating import render_text
from app.visitors import Visitors

LAST_SEEN_PRECISION = 60  # seconds; a write for every request would be too much
MAX_SESSIONS = 20  # of one account; the oldest ends when another begins

cli = AppGroup("users", help="Manage accounts.")


def init_app(app: Flask) -> None:
    """Set up Flask-Security, and the command ``flask users``."""
    app.config.update(
        # OWASP Password Storage Cheat Sheet: argon2id, 19 MiB, 2 passes. More memory would be a way to exhaust it.
        # The marks below: the name of a method is no password.
        SECURITY_PASSWORD_HASH="argon2",  # noqa: S106 # nosec B106
        SECURITY_PASSWORD_SCHEMES=["argon2"],
        SECURITY_PASSWORD_SINGLE_HASH=["argon2"],
        SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS={
            "argon2__memory_cost": 19456,
            "argon2__time_cost": 2,
            "argon2__parallelism": 1,
        },
        # Reset links hold a hash of the password's hash, which is long and random: it needs no slow one.
        SECURITY_HASHING_SCHEMES=["hex_sha256"],
        SECURITY_RESET_PASSWORD_WITHIN=timedelta(hours=1),
        SECURITY_EMAIL_HTML=False,
        SECURITY_CLI_USERS_NAME=None,
        SECURITY_CLI_ROLES_NAME=None,
        SESSION_PROTECTION=None,
    )
    security = Security(
        app,
        FSQLALiteUserDatastore(db, User, RoleMixin),  # there are no roles
        register_blueprint=False,
        mail_util_cls=BackgroundMail,
        render_template=render_text,
    )
    # Flask-Security would ignore the fallbacks. Given several keys, the last signs and all are accepted (1.S5).
    keys = [*reversed(app.config["SECRET_KEY_FALLBACKS"]), app.config["SECRET_KEY"]]
    security.reset_serializer = URLSafeTimedSerializer(keys, salt=app.config["SECURITY_RESET_SALT"])
    security.principal.skip_static = True
    security.login_manager.user_loader(_load_user)
    security.login_manager.request_loader(lambda _: None)
    app.extensions["visitors"] = Members()
    app.before_request(_ask_who_is_here_again)
    app.cli.add_command(cli)


class Members(Visitors):
    """What the app asks about a visitor, answered by who is signed in."""

    def account_id(self) -> str | None:
        """Return the id of the account that is signed in, or None."""
        return str(current_user.id) if current_user.is_authenticated else None

    def ask_to_sign_in(self) -> ResponseReturnValue | None:
        """Return the way to the sign-in, or None for who is signed in.

        Flask-Security's ``auth_required`` would also check the CSRF token once more, and a stale one would then lose
        what was typed: see ``csrf.form_view``.
        """
        if current_user.is_authenticated:
            return None
        if wants_json():
            refuse(401, "Please sign in first.")
        flash("Please sign in first.")
        # A form can't be sent again by a redirect.
        target = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
        return redirect(url_for("security.login", next=target), 303)

    def is_still_here(self) -> bool:
        """Ask the database once more whether the session lives, in a view that has taken its time."""
        return _live_session(current_session_id()) is not None


def member() -> User:
    """Give the account that is signed in, in a view that asks for one."""
    return cast("User", current_user._get_current_object())


def find_user(email: str) -> User | None:
    """Give the account of a normalised address."""
    return db.session.scalar(sa.select(User).where(User.email == email))


def create_user(email: str, password: str) -> bool:
    """Make an account, or give False if the address has one. Either takes as long, since as much is written."""
    taken = find_user(email) is not None
    user = User(email=f"{secrets.token_hex(16)}@invalid" if taken else email, password=hash_password(password))
    db.session.add(user)
    try:
        db.session.flush()
    except sa.exc.IntegrityError:  # somebody else took the address at this moment
        db.session.rollback()
        return False
    if taken:
        db.session.delete(user)
    db.session.commit()
    return not taken


def sign_in(user: User) -> None:
    """Begin a session for ``user`` in this browser, and commit."""
    secret = secrets.token_urlsafe(32)
    agent = "".join(filter(str.isprintable, request.user_agent.string))[:200]
    begun = Session(id=_row_id(secret), user_id=user.id, fs_uniquifier=user.fs_uniquifier, user_agent=agent)
    db.session.add(begun)
    kept = [begun.id, *(entry.id for entry in live_sessions(user)[:MAX_SESSIONS])]
    dead = sa.or_(_is_over(), sa.and_(Session.user_id == user.id, Session.id.not_in(kept)))
    db.session.execute(sa.delete(Session).where(dead))
    db.session.commit()
    start_session()
    session["_user_id"] = secret  # what Flask-Login passes to _load_user
    session["owner"] = user.owner_key


def sign_out() -> None:
    """End this browser's session, with all copies of its cookie."""
    if current_user.is_authenticated:
        end_sessions(Session.id == current_session_id())
    start_session()


def end_sessions(which: sa.ColumnElement[bool]) -> int:
    """End sessions of the account that is signed in, and commit. Gives their number."""
    ended = db.session.execute(sa.delete(Session).where(Session.user_id == current_user.id, which))
    db.session.commit()
    return cast("sa.CursorResult[Any]", ended).rowcount


def live_sessions(user: User) -> list[Session]:
    """Give the sessions of an account, the last used first."""
    mine = sa.select(Session).join(Session.user).where(Session.user_id == user.id, _is_live())
    return list(db.session.scalars(mine.order_by(Session.last_seen_at.desc())))


def current_session_id() -> str:
    """Give the session of this request, in a view that asks for a sign-in."""
    return _row_id(session["_user_id"])


def _row_id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _is_over() -> sa.ColumnElement[bool]:
    """Give the condition that a session has ended in time. The cookie's own signature ends it to the second."""
    config, now = current_app.config, utcnow()
    idle = timedelta(seconds=config["PERMANENT_SESSION_LIFETIME"] + LAST_SEEN_PRECISION)
    absolute = timedelta(seconds=config["SESSION_ABSOLUTE_LIFETIME"])
    return sa.or_(Session.last_seen_at < now - idle, Session.created_at < now - absolute)


def _is_live() -> sa.ColumnElement[bool]:
    return sa.and_(sa.not_(_is_over()), Session.fs_uniquifier == User.fs_uniquifier)


def _live_session(row_id: str) -> Session | None:
    return db.session.scalar(sa.select(Session).join(Session.user).where(Session.id == row_id, _is_live()))


def _load_user(secret: str) -> User | None:
    """Give the account of a cookie's secret. Of a session that has ended, nothing may be left in the cookie."""
    row_id = _row_id(secret)
    found = _live_session(row_id)
    if found is None:
        start_session()
        return None
    if utcnow() - found.last_seen_at >= timedelta(seconds=LAST_SEEN_PRECISION):
        db.session.execute(sa.update(Session).where(Session.id == row_id).values(last_seen_at=utcnow()))
    # Give the connection back before the body is read: slow senders must not hold the whole pool (8.T4).
    db.session.commit()
    return found.user


def _ask_who_is_here_again() -> None:
    """Forget what was known before the body came in: it may have taken its sender a minute, on purpose.

    Meanwhile the session may have ended, or the password changed. The check of the token, which comes before this,
    has read the body.
    """
    if request.method in UNSAFE_METHODS:
        db.session.expunge_all()
        g.pop("_login_user", None)


@cli.command("create")
@click.argument("email")
def create(email: str) -> None:
    """Make an account. The password is asked for, or read from standard input."""
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.buffer.readline().decode(errors="replace").rstrip("\r\n")
    try:
        address = credentials.normal_email(email)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    password = credentials.normal_password(password)
    if fault := credentials.fault(password, address):
        raise click.ClickException(fault)
    if not create_user(address, password):
        raise click.ClickException(f"{address} has an account already.")
    click.echo(f"{address} has an account now.")
