"""The signed-in user: Flask-Security, with sessions that end on the server.

The cookie contains a random secret, and the database has a row for it. A cookie without a row is worthless, so a
stolen copy becomes invalid at the sign-out, with a new password and after either lifetime. Not used on purpose:
Flask-Security's views (a JSON API, sign-in after registration, responses that take longer for existing accounts) and
tokens, Flask-Login's remember-me and session protection (a thief copies the user agent, mobile users change address).
Source: OWASP Session Management and Authentication Cheat Sheets; ASVS 5.0 V6.2, V6.3.8, V7.2-V7.4.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import click
import sqlalchemy as sa
from flask import Flask, current_app, flash, g, redirect, request, session, url_for
from flask.cli import AppGroup
from flask.typing import ResponseReturnValue
from flask_security import FSQLALiteUserDatastore, RoleMixin, Security, current_user, hash_password
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import orm

from app.accounts import credentials
from app.accounts.mail import WaitingMail
from app.accounts.models import Session, User, db, utcnow
from app.logs import security_event
from app.security.backoff import forget_addresses
from app.security.cookies import absolute_lifetime, start_session
from app.security.csrf import UNSAFE_METHODS
from app.security.errors import refuse, wants_problem
from app.security.templating import render_text
from app.storage.stored import storage
from app.visitors import Visitors, is_for_members

LAST_SEEN_PRECISION = 60  # seconds; a write per request would be too many
MAX_SESSIONS = 20  # per account; a new one ends the least recently used
# OWASP Password Storage Cheat Sheet: argon2id, 19 MiB, 2 passes. With more memory, attackers could exhaust it.
ARGON2 = {"argon2__memory_cost": 19456, "argon2__time_cost": 2, "argon2__parallelism": 1}

cli = AppGroup("users", help="Manage accounts.")


def init_app(app: Flask) -> None:
    """Set up Flask-Security, and the command ``flask users``."""
    app.config.update(
        # The noqa and nosec below: the name of a hash algorithm is not a password.
        SECURITY_PASSWORD_HASH="argon2",  # noqa: S106 # nosec B106
        SECURITY_PASSWORD_SCHEMES=["argon2"],
        SECURITY_PASSWORD_SINGLE_HASH=["argon2"],
        SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS=ARGON2,
        # Reset links contain a hash of the password hash, which is long and random and so needs no slow hash.
        SECURITY_HASHING_SCHEMES=["hex_sha256"],
        SECURITY_RESET_PASSWORD_WITHIN=timedelta(hours=1),
        SECURITY_CONFIRM_EMAIL_WITHIN=timedelta(days=2),
        SECURITY_EMAIL_HTML=False,
        SECURITY_CLI_USERS_NAME=None,
        SECURITY_CLI_ROLES_NAME=None,
        SESSION_PROTECTION=None,
    )
    security = Security(
        app,
        FSQLALiteUserDatastore(db, User, RoleMixin),  # there are no roles
        register_blueprint=False,
        mail_util_cls=WaitingMail,
        render_template=render_text,
    )
    # Flask-Security ignores the fallbacks. Given several keys, the last one signs and all are accepted (1.S5).
    keys = [*reversed(app.config["SECRET_KEY_FALLBACKS"]), app.config["SECRET_KEY"]]
    security.reset_serializer = URLSafeTimedSerializer(keys, salt=app.config["SECURITY_RESET_SALT"])
    security.confirm_serializer = URLSafeTimedSerializer(keys, salt=app.config["SECURITY_CONFIRM_SALT"])
    # There are no roles, and for them Flask-Principal would load the user for each request.
    security.principal.skip_static = True
    security.principal.identity_loaders.clear()
    security.login_manager.user_loader(_load_user)
    security.login_manager.request_loader(lambda _: None)  # account_id relies on it: only a session signs in
    app.extensions["visitors"] = Members()
    app.before_request(_ask_who_is_here_again)
    app.before_request(app.extensions["visitors"].ask_to_sign_in)
    app.cli.add_command(cli)


class Members(Visitors):
    """The visitors of an app with accounts: the answers depend on the signed-in user."""

    def account_id(self) -> str | None:
        """Return the id of the signed-in account, or None."""
        if "_user_id" not in session:  # most requests that count for an address end here
            return None
        user = current_user._get_current_object()
        return str(user.id) if user.is_authenticated else None

    def claim(self, session: Mapping[str, Any]) -> str | None:
        """Return the secret of a session, which may have ended."""
        secret: str | None = session.get("_user_id")
        return secret

    def account_name(self) -> str | None:
        """Return the address of the signed-in account, or None."""
        return current_user.email if current_user.is_authenticated else None

    def known_name(self) -> str | None:
        """Return the address of the account if Flask-Login has loaded it for this request, else None."""
        name: str | None = vars(g._login_user).get("email") if "_login_user" in g else None
        return name

    def ask_to_sign_in(self) -> ResponseReturnValue | None:
        """Return a redirect to the sign-in, or None for a signed-in user and for a public view.

        Flask-Security's ``auth_required`` would check the CSRF token again, and a stale token would then lose the
        user's input: see ``csrf.form_view``.
        """
        if not is_for_members() or current_user.is_authenticated:
            return None
        if wants_problem():
            refuse(401, "Please sign in first.", event="authz_fail")
        security_event("authz_fail", reason="Nobody is signed in.")
        flash("Please sign in first.")
        # A redirect can't repeat a POST.
        target = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
        return redirect(url_for("security.login", next=target), 303)

    def is_still_here(self) -> bool:
        """Return whether the session still has a row. Long-running views ask again before they act."""
        with db.sessionmaker() as own:  # a view's transaction may show what was, and would keep its connection
            return _live_session(current_session_id(), own) is not None

    def stay_unknown(self) -> None:
        """Let templates, for which Flask-Login loads the user, have an anonymous one."""
        if "_login_user" not in g:
            g._login_user = current_app.login_manager.anonymous_user()  # type: ignore[attr-defined]


def member() -> User:
    """Return the signed-in account. In a public view with a visitor who has none, it refuses the request (401)."""
    if not current_user.is_authenticated:
        refuse(401, "Please sign in first.")
    return cast("User", current_user._get_current_object())


def find_user(email: str) -> User | None:
    """Return the account of a normalized address, or None."""
    return db.session.scalar(sa.select(User).where(User.email == email))


def create_user(email: str, password: str) -> User | None:
    """Create an account, without commit, and return it; None if the address has one. Both cases write as much."""
    taken = find_user(email) is not None
    user = User(email=f"{secrets.token_hex(16)}@invalid" if taken else email, password=hash_password(password))
    db.session.add(user)
    try:
        db.session.flush()
    except sa.exc.IntegrityError:  # another request registered the address at the same time
        db.session.rollback()
        return None
    if taken:
        db.session.delete(user)
        db.session.flush()
    # Both cases log an event, so that both take the same time.
    if taken:
        security_event("input_validation_fail", account=email, reason="The address already has an account.")
    else:
        security_event("user_created", account=email)
    return None if taken else user


def erase(user: User) -> None:
    """Delete an account with its sessions and files, without commit, and forget the addresses that know its password.

    Call ``storage().delete_all`` again after the commit: until then, a new session can still store files.
    """
    db.session.delete(user)
    db.session.flush()  # raises StaleDataError before any file is deleted
    storage().delete_all(user.owner_key)
    forget_addresses(user.email)


def start_empty(user: User) -> User:
    """Replace an account by an empty one of the same address, without commit, and return it.

    Anybody can register an address of somebody else. Its owner gets the account by resetting the password, but nothing
    that is in it: until the address is confirmed, a reset starts an empty account. The link that confirms it works only
    while signed in to that account, so the owner can't confirm an account whose password somebody else knows.
    """
    erase(user)
    empty = User(email=user.email, password=user.password)
    db.session.add(empty)
    return empty


def sign_in(user: User) -> None:
    """Start a session for ``user`` in this browser, and commit."""
    secret = secrets.token_urlsafe(32)
    agent = "".join(filter(str.isprintable, request.user_agent.string))[:200]
    begun = Session(id=_row_id(secret), user_id=user.id, fs_uniquifier=user.fs_uniquifier, user_agent=agent)
    db.session.add(begun)
    kept = [begun.id, *(entry.id for entry in live_sessions(user)[:MAX_SESSIONS])]
    dead = sa.or_(_is_over(**_since()), sa.and_(Session.user_id == user.id, Session.id.not_in(kept)))
    db.session.execute(sa.delete(Session).where(dead))
    db.session.commit()
    start_session()
    session["_user_id"] = secret  # what Flask-Login passes to _load_user
    session["owner"] = user.owner_key


def sign_out() -> None:
    """End this browser's session, which invalidates all copies of its cookie."""
    if current_user.is_authenticated:
        end_sessions(Session.id == current_session_id(), reason="logout")
    start_session()


def end_sessions(which: sa.ColumnElement[bool], reason: str = "revoked") -> int:
    """End the signed-in account's sessions that match ``which``, and commit. Returns their number."""
    ended = db.session.execute(sa.delete(Session).where(Session.user_id == current_user.id, which))
    db.session.commit()
    count = cast("sa.CursorResult[Any]", ended).rowcount
    if count:
        security_event("session_expired", reason=reason, sessions=count)
    return count


def live_sessions(user: User) -> list[Session]:
    """Return the sessions of an account, most recently used first."""
    mine = _LIVE.where(Session.user_id == user.id).order_by(Session.last_seen_at.desc())
    return list(db.session.scalars(mine, _since()))


def current_session_id() -> str:
    """Return the id of this request's session. Only if somebody is signed in."""
    return _row_id(session["_user_id"])


def _row_id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _is_over(idle_since: Any, old_since: Any) -> sa.ColumnElement[bool]:
    return sa.or_(Session.last_seen_at < idle_since, Session.created_at < old_since)


# Built once: to build a statement takes longer than to run it. ``_since`` returns their parameters.
_LIVE = (
    sa.select(Session)
    .join(Session.user)
    .options(orm.contains_eager(Session.user))
    .where(sa.not_(_is_over(sa.bindparam("idle_since"), sa.bindparam("old_since"))))
    .where(Session.fs_uniquifier == User.fs_uniquifier)
)
_LIVE_BY_ID = _LIVE.where(Session.id == sa.bindparam("row_id"))


def _since() -> dict[str, datetime]:
    """Return the times before which a session is over. The idle time is coarse; the cookie's signature is exact."""
    idle = current_app.permanent_session_lifetime + timedelta(seconds=LAST_SEEN_PRECISION)
    return {"idle_since": utcnow() - idle, "old_since": utcnow() - absolute_lifetime(current_app)}


def _live_session(row_id: str, within: orm.Session) -> Session | None:
    return within.scalar(_LIVE_BY_ID, {"row_id": row_id, **_since()})


def _load_user(secret: str) -> User | None:
    """Return the account of a cookie's secret. If the session has ended, clear the cookie's content."""
    row_id = _row_id(secret)
    found = _live_session(row_id, db.session)
    if found is None:
        g.session_end = "session_use_after_expire", "ended"
        start_session()
        return None
    if utcnow() - found.last_seen_at >= timedelta(seconds=LAST_SEEN_PRECISION):
        db.session.execute(sa.update(Session).where(Session.id == row_id).values(last_seen_at=utcnow()))
    # Release the connection before the body is read: slow clients must not exhaust the pool (8.T4).
    db.session.commit()
    return found.user


def _ask_who_is_here_again() -> None:
    """Load the user again after the body has been read, which a client can delay for a minute on purpose.

    Meanwhile the session may have ended, or the password may have changed. The CSRF check, which runs before this,
    has read the body.
    """
    if request.method in UNSAFE_METHODS:
        db.session.expunge_all()
        g.pop("_login_user", None)


@cli.command("create")
@click.argument("email")
def create(email: str) -> None:
    """Create an account. The password is prompted for, or read from standard input."""
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
    if not (user := create_user(address, password)):
        raise click.ClickException(f"{address} already has an account.")
    user.confirmed_at = utcnow()  # the administrator vouches for the address
    db.session.commit()
    click.echo(f"The account {address} was created.")
