"""Mitigation 4, the session cookie: who holds a copy of it is its owner, so it must not travel, leak or last.

Source: OWASP Session Management Cheat Sheet; RFC 6265bis (``__Host-``); ASVS 5.0 V3.3.1-V3.3.4, V7.3.1, V7.3.2.
"""

from __future__ import annotations

import time

from flask import Flask, Request, Response, g, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin

NUMBER = 4
TITLE = "Session cookies"
SUMMARY = "The session cookie travels over https only, hides from scripts and other sites, and ends in time."

# Browsers take a __Host- cookie only with Secure, Path=/ and no Domain: a sister domain cannot plant one.
NAME = "__Host-session"
BORN = "_born"


class ExpiringSessions(SecureCookieSessionInterface):
    """Signed cookie sessions that end on the server's clock, whatever the browser keeps.

    The idle lifetime is Flask's: the cookie is signed anew with each response, and too old a signature is refused.
    The absolute one needs the time of birth, kept inside the session.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Give the session of the cookie; one that is too old, or has no birth, is an empty one."""
        found = super().open_session(app, request)
        if found is None:
            return None
        now = int(time.time())
        born = found.get(BORN)
        if found and not (isinstance(born, int) and 0 <= now - born < app.config["SESSION_ABSOLUTE_LIFETIME"]):
            return self.session_class()
        return found

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set the cookie, with the session's birth in it, on what may carry one."""
        if request.endpoint == "static":
            return  # a cache may keep a static file, and must not keep somebody's cookie with it
        if self.get_cookie_secure(app) and not request.is_secure:
            return  # whoever listens on http would see it, though the browser drops it
        if session and BORN not in session:
            session[BORN] = int(time.time())
            session.permanent = True
        super().save_session(app, session, response)


def start_session() -> None:
    """Begin the session afresh when a visitor's rights change: what was known of the old one is worth nothing.

    Against session fixation: an attacker may have planted the old session, and would know its CSRF token.
    """
    session.clear()
    g.pop("csrf_token", None)


def init_app(app: Flask) -> None:
    """Set the cookie's attributes; the settings have refused a domain, a path or SameSite=None already."""
    app.config.update(
        SESSION_COOKIE_NAME="session" if app.debug else NAME,
        SESSION_COOKIE_SECURE=not app.debug,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_REFRESH_EACH_REQUEST=True,
    )
    app.session_interface = ExpiringSessions()
