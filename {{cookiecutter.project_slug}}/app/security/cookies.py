"""Mitigation 4, the session cookie: a stolen copy is a stolen session, so it must not leak and must not live long.

Source: OWASP Session Management Cheat Sheet; RFC 6265bis (``__Host-``); ASVS 5.0 V3.3.1-V3.3.4, V7.2.4,
V7.3.1, V7.3.2, V7.4.1, V7.4.3, V8.2.2, V13.4.2, V14.3.1.
"""

from __future__ import annotations

import hashlib
import re
import time
from datetime import timedelta
from typing import Any

from flask import Flask, Request, Response, g, has_app_context, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from itsdangerous import BadData, TimedSerializer, TimestampSigner

from app.logs import security_event
from app.security.declarations import static_folder

NUMBER = 4
TITLE = "Session cookies"
SUMMARY = "The session cookie is sent over https only, is hidden from scripts and other sites, and expires."

# Browsers accept a __Host- cookie only with Secure, Path=/ and no Domain, so a sibling domain cannot plant one.
NAME = "__Host-session"
BORN = "_born"
# A cookie is signed again when this part of the idle lifetime has passed, so a session may end that much early: a
# minute of an hour. Flask would sign it with each response, which takes time on every page.
REFRESH_AFTER = 1 / 60
# What a page stores without the visitor doing anything: the token of its forms, messages, the owner of no files yet.
STORED_BY_PAGES = {"csrf_token", "_flashes", "owner"}

# Seconds that the clocks of servers may differ: what one of them signs has a time in the future for another one, which
# itsdangerous would refuse. The other times need no tolerance. Those in the database are only compared with the past,
# the tickets of images (turns.py) last 12 seconds longer than their requests, and Redis has a clock of its own.
CLOCK_TOLERANCE = 10


class TolerantSigner(TimestampSigner):
    """Signs with the time. It accepts a time that is up to ``CLOCK_TOLERANCE`` seconds in the future."""

    def unsign(self, signed_value: str | bytes, max_age: int | None = None, return_timestamp: bool = False) -> Any:
        """Return what was signed, also with its time. Raises BadData if it is forged, too old or too far ahead."""
        if max_age is not None:
            _, signed_at = super().unsign(signed_value, return_timestamp=True)
            if 0 < signed_at.timestamp() - self.get_timestamp() <= CLOCK_TOLERANCE:
                max_age = None
        return super().unsign(signed_value, max_age, return_timestamp)  # type: ignore[call-overload]


class CookieSession(SecureCookieSession):
    """A session. If ``unread``, it stands for one that this server can't read, and that another one may know.

    ``signed_at`` is when its cookie was signed, in seconds since 1970.
    """

    unread = False
    signed_at = 0.0


class ExpiringSessions(SecureCookieSessionInterface):
    """Signed cookie sessions that expire by the server's clock, even if the browser keeps the cookie.

    The idle lifetime is counted from the signature: the cookie is signed again while the session is used. The absolute
    lifetime is counted from the session's creation time, which is stored in the session.

    A server can't read a cookie that was signed with a key of another server, or written by a newer version. Its pages
    leave that cookie in the browser: the visitor is still signed in where it came from. Their forms work all the same:
    a hash of the cookie takes the place of the secret that a session has for its CSRF tokens. The first form that is
    sent, or anything else that a view stores, starts a new session: a sign-in after the key was replaced.
    """

    session_class = CookieSession

    def open_session(self, app: Flask, request: Request) -> CookieSession:
        """Return the cookie's session, an empty one for one that is too old, or one that is ``unread``."""
        if not (cookie := request.cookies.get(self.get_cookie_name(app))):
            return self.session_class()
        try:
            # Not loads_unsafe: it decompresses what nobody has signed, and 7 kB can become 300 MB.
            content, signed_at = self.get_signing_serializer(app).loads(cookie, return_timestamp=True)  # type: ignore[union-attr]
        except BadData:
            content = {}
        found, now = self.session_class(content), int(time.time())
        if not isinstance(born := found.get(BORN), int):
            unread = self.session_class({"csrf_token": hashlib.sha256(cookie.encode()).hexdigest()})
            unread.unread = True
            return unread
        found.signed_at = signed_at.timestamp()
        for reason, begun, lifetime in (
            ("lifetime", born, absolute_lifetime(app)),
            ("idle", found.signed_at, app.permanent_session_lifetime),
        ):
            if not -CLOCK_TOLERANCE <= now - begun < lifetime.total_seconds():
                if has_app_context():  # the rate limits open a session too, outside of Flask, where nothing is logged
                    g.session_end = "session_expired", reason
                return self.session_class()
        return found

    def should_set_cookie(self, app: Flask, session: SessionMixin) -> bool:
        """Return whether to sign the cookie: if it has changed, or its signature is old (``REFRESH_AFTER``).

        Each response signs it while other keys are accepted, since the key of the old signature may be removed soon,
        and while the session holds a list or a dictionary, since Flask does not notice changes inside it.
        """
        always = app.config["SECRET_KEY_FALLBACKS"] or any(isinstance(each, dict | list) for each in session.values())
        signed_at = 0 if always else getattr(session, "signed_at", 0)
        old = time.time() - signed_at >= app.permanent_session_lifetime.total_seconds() * REFRESH_AFTER
        return session.modified or (old and super().should_set_cookie(app, session))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set the cookie, with the session's creation time in it, except on what is for all and over http."""
        relaxed = (each.headers.get("Cache-Control") or "" for each in g.get("relaxed", ()))  # see headers.py
        cached = response.headers.getlist("Cache-Control") or relaxed
        if static_folder(app, request.endpoint) or re.search("public|s-maxage", " ".join(cached), re.IGNORECASE):
            return  # a shared cache may store it, and would store the visitor's cookie with it
        if self.get_cookie_secure(app) and not request.is_secure:
            return  # the browser rejects it, but an eavesdropper on http would see it
        if getattr(session, "unread", False) and not g.get("csrf_valid") and session.keys() <= STORED_BY_PAGES:
            session.modified = False
        elif session and BORN not in session:
            session[BORN] = int(time.time())
            session.permanent = True
        super().save_session(app, session, response)


def absolute_lifetime(app: Flask) -> timedelta:
    """Return the absolute lifetime. Like Flask's idle one, it may be set in seconds or as a timedelta."""
    value: timedelta | int = app.config["SESSION_ABSOLUTE_LIFETIME"]
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def start_session() -> None:
    """Start a new session when a visitor's privileges change, with a new CSRF token.

    This prevents session fixation: an attacker may have planted the old session, and would know its CSRF token.
    """
    session.clear()
    g.pop("csrf_token", None)


def init_app(app: Flask) -> None:
    """Set the cookie's attributes; app/settings.py already refuses a domain, another path and SameSite=None."""
    app.config.update(
        SESSION_COOKIE_NAME="session" if app.debug else NAME,
        SESSION_COOKIE_SECURE=not app.debug,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_REFRESH_EACH_REQUEST=True,
    )
    app.session_interface = ExpiringSessions()
    # For sessions, CSRF tokens and links in mails: neither Flask nor its extensions have a setting for it.
    TimedSerializer.default_signer = TolerantSigner
    app.after_request(_log_end)


def _log_end(response: Response) -> Response:
    """Log that this request has the cookie of a session that has ended; what found it set ``g.session_end``.

    What is over a rate limit comes here once at most: a flood with an old cookie must not fill the log.
    """
    if "session_end" in g:
        name, reason = g.pop("session_end")
        security_event(name, reason=reason)
    return response
