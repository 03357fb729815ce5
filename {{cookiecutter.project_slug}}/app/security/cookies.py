"""Mitigation 4, the session cookie: a stolen copy is a stolen session, so it must not leak and must not live long.

Source: OWASP Session Management Cheat Sheet; RFC 6265bis (``__Host-``); ASVS 5.0 V3.3.1-V3.3.4, V7.2.4,
V7.3.1, V7.3.2, V7.4.1, V7.4.3, V8.2.2, V13.4.2, V14.3.1.
"""

from __future__ import annotations

import contextlib
import re
import time
from datetime import timedelta

from flask import Flask, Request, Response, g, has_app_context, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from itsdangerous import BadData

from app.logs import security_event
from app.security.declarations import static_folder

NUMBER = 4
TITLE = "Session cookies"
SUMMARY = "The session cookie is sent over https only, is hidden from scripts and other sites, and expires."

# Browsers accept a __Host- cookie only with Secure, Path=/ and no Domain, so a sibling domain cannot plant one.
NAME = "__Host-session"
BORN = "_born"


class ExpiringSessions(SecureCookieSessionInterface):
    """Signed cookie sessions that expire by the server's clock, even if the browser keeps the cookie.

    Flask enforces the idle lifetime: it signs the cookie again with each response, and refuses an old signature.
    The absolute lifetime is counted from the session's creation time, which is stored in the session.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the cookie's session. One that is too old, or has no creation time, is replaced by an empty one."""
        found = super().open_session(app, request)
        if found is None:
            return None
        now = int(time.time())
        born = found.get(BORN)
        if found and not (isinstance(born, int) and 0 <= now - born < absolute_lifetime(app).total_seconds()):
            _remember_end("lifetime")
            return self.session_class()
        if not found and (cookie := request.cookies.get(self.get_cookie_name(app))):
            serializer = self.get_signing_serializer(app)
            # Not loads_unsafe: it decompresses what nobody has signed, and 7 kB can become 300 MB.
            with contextlib.suppress(BadData):
                if serializer and serializer.loads(cookie):  # without max_age: the signature is right, only too old
                    _remember_end("idle")
        return found

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set the cookie, with the session's creation time in it, except on what is for all and over http."""
        relaxed = (each.headers.get("Cache-Control") or "" for each in g.get("relaxed", ()))  # see headers.py
        cached = response.headers.getlist("Cache-Control") or relaxed
        if static_folder(app, request.endpoint) or re.search("public|s-maxage", " ".join(cached), re.IGNORECASE):
            return  # a shared cache may store it, and would store the visitor's cookie with it
        if self.get_cookie_secure(app) and not request.is_secure:
            return  # the browser rejects it, but an eavesdropper on http would see it
        if session and BORN not in session:
            session[BORN] = int(time.time())
            session.permanent = True
        super().save_session(app, session, response)


def _remember_end(reason: str) -> None:
    """Let ``_log_end`` log it. The rate limits open a session too, outside of Flask, where nothing is logged."""
    if has_app_context():
        g.session_end = "session_expired", reason


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
    app.before_request(_log_end)  # after the rate limits: a flood with an old cookie must not fill the log


def _log_end() -> None:
    """Log that this request has the cookie of a session that has ended; what found it set ``g.session_end``."""
    if "session_end" in g:
        name, reason = g.session_end
        security_event(name, reason=reason)
