"""4 Session cookies: how is the cookie sent, and how long does a stolen copy stay valid?"""

from __future__ import annotations

import ast
import os
import re
import runpy
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from flask import Flask, session

from tools.audit.steps import Fault, Relaxed, probe
from tools.audit.subject import Browser, NoAnswer, NotApplicable, Subject

COOKIE_FIX = 'Name it "__Host-…", and set it with secure=True, httponly=True, samesite="Lax"'


@probe("4.S1")
def cookie_is_secure(subject: Subject) -> Iterator[str]:
    """Start a session over https and over http."""
    _any_session(subject)
    if "Secure" not in _attributes(subject):
        yield "The session cookie is also sent over http."
    for rule in subject.rules("GET"):
        with subject.view(rule.endpoint, _begin):
            if "Set-Cookie" in subject.browser().open(subject.url(rule), scheme="http").headers:
                yield f"{rule.rule} sets the session cookie over http, where it can be intercepted."
    cookie, later = _value(subject), time.time() + _lifetimes(subject.app)[0] / 2  # it is then signed again
    with mock.patch("time.time", return_value=later):
        if "Set-Cookie" in _browser_with(subject, cookie).open(subject.static_file("app.css")).headers:
            yield "A static file carries the session cookie, so shared caches may store it."
    yield from _set_without(subject, "secure")
    if subject.own:
        if subject.make({"FLASK_DEBUG": None}).debug:
            yield "Debug, which sends the cookie over http, is on by default."
        yield from _served_in_debug(subject)


@probe("4.S2")
def cookie_is_http_only(subject: Subject) -> Iterator[str]:
    """Start a session, and look for the cookie in the pages."""
    if "HttpOnly" not in _attributes(subject):
        yield "Scripts can read the session cookie."
    yield from _set_without(subject, "httponly", Relaxed)
    if not subject.own:
        return
    visitor = subject.new_member() or _browser_with(subject, _value(subject))
    for rule in subject.rules("GET"):
        if not rule.arguments and (cookie := visitor.cookie()) and cookie in visitor.open(rule.rule).text:
            yield f"{rule.rule} contains the session cookie, so scripts can read it."


@probe("4.S3")
def cookie_is_same_site(subject: Subject) -> Iterator[str]:
    """Start a session, and try the setting that would weaken it."""
    attributes = _attributes(subject)
    if not {"SameSite=Lax", "SameSite=Strict"} & set(attributes):
        yield "The session cookie is sent with forms of other sites."
    yield from _set_without(subject, "samesite")
    if subject.own:
        strict = subject.make({"SESSION_COOKIE_SAMESITE": "Strict"})
        if "SameSite=Strict" not in _set_cookie(subject, app=strict):
            yield "SESSION_COOKIE_SAMESITE=Strict has no effect."
    yield from _starts_with(subject, "SESSION_COOKIE_SAMESITE", "None")


@probe("4.S4")
def session_ends(subject: Subject) -> Iterator[str]:
    """Use a copy of the cookie at later and later times."""
    _any_session(subject)
    idle, longest = _lifetimes(subject.app)
    if idle > 86400:
        yield f"A session lives for {idle} seconds without a request."
    if not 0 < longest <= 604800:
        yield "A session in use never expires."
        longest = 30 * 86400
    now = int(time.time())
    born = _value(subject)
    for after, steps, alive in ((idle - 5, 1, True), (idle + 5, 1, False), (longest + 5, 60, False)):
        cookie = born
        for number in range(1, steps):
            moment = now + after * number // steps
            with mock.patch("time.time", lambda moment=moment: moment):
                cookie = _value(subject, cookie) or cookie
        with mock.patch("time.time", lambda moment=now + after: moment):
            if _is_alive(subject, cookie) != alive:
                yield f"A session from {after} seconds ago is {'over' if alive else 'still valid'}."
    if _is_alive(subject, subject.forge({"audit": 1})):
        yield "A session without a creation time is valid."
    if subject.own:
        lives = _lifetimes(subject.make({"PERMANENT_SESSION_LIFETIME": None, "SESSION_ABSOLUTE_LIFETIME": None}))
        if lives[0] > 3600 or lives[1] > 43200:
            yield f"By default, a session lives for {lives[0]} seconds idle, and {lives[1]} at most."
        yield from _starts_with(subject, "PERMANENT_SESSION_LIFETIME", "100000000")
        yield from _starts_with(subject, "SESSION_ABSOLUTE_LIFETIME", "100000000")
    yield from _sign_out_ends_it(subject)


@probe("4.S5")
def cookie_belongs_to_the_host(subject: Subject) -> Iterator[str]:
    """Start a session, and try the settings that would weaken it."""
    attributes = _attributes(subject)
    if not attributes[0].startswith("__Host-"):
        yield "The session cookie has no __Host- prefix: a sibling domain can plant one."
    if "Path=/" not in attributes or any(each.startswith("Domain=") for each in attributes):
        yield "The session cookie has another path, or a domain."
    for place, call in _set_by_code(subject):
        name = call.args[0] if call.args else None
        if isinstance(name, ast.Constant) and not str(name.value).startswith("__Host-"):
            yield Fault(f"{place}: The cookie {name.value!r} has no __Host- prefix.", COOKIE_FIX)
    yield from _starts_with(subject, "SESSION_COOKIE_DOMAIN", "audit.example")
    yield from _starts_with(subject, "SESSION_COOKIE_PATH", "/app")
    yield from _starts_with(subject, "SESION_COOKIE_SECURE", "1")  # a misspelled setting must be refused


def _lifetimes(app: Flask) -> tuple[int, int]:
    """Return the idle and the absolute lifetime in seconds, 0 for none."""
    idle: Any = app.config["PERMANENT_SESSION_LIFETIME"]
    return int(getattr(idle, "total_seconds", lambda: idle)()), int(app.config.get("SESSION_ABSOLUTE_LIFETIME") or 0)


def _starts_with(subject: Subject, setting: str, value: str) -> Iterator[str]:
    if subject.own and not subject.refuses({setting: value}):
        yield f"The app starts with {setting}={value}."


def _set_by_code(subject: Subject) -> Iterator[tuple[str, ast.Call]]:
    """Yield each place where the code sets another cookie than the session's."""
    for file, node in subject.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".set_cookie"):
            yield f"{file}:{node.lineno}", node


def _set_without(subject: Subject, attribute: str, kind: type[Fault] = Fault) -> Iterator[str]:
    for place, call in _set_by_code(subject):
        given = [each.value for each in call.keywords if each.arg in (attribute, None)]
        if not given or (isinstance(given[0], ast.Constant) and given[0].value in (None, False, "None")):
            yield kind(f"{place}: A cookie is set without {attribute}.", COOKIE_FIX)


def _begin() -> str:
    session["audit"] = session.get("audit", 0) + 1
    return str(session["audit"])


def _served_in_debug(subject: Subject) -> Iterator[str]:
    """Start wsgi.py, as a production server does, with FLASK_DEBUG set."""
    if not (server := subject.package.parent / "wsgi.py").exists():
        return
    environment = {name: str(value) for name, value in subject.settings.items() if isinstance(value, str | int)}
    with mock.patch.dict(os.environ, environment | {"FLASK_DEBUG": "1"}):
        try:
            runpy.run_path(str(server))
        except SystemExit:
            return
    yield "wsgi.py serves the app in debug."


def _set_cookie(subject: Subject, scheme: str = "https", app: Flask | None = None) -> str:
    _any_session(subject)
    with subject.view(subject.page.endpoint, _begin, app):
        cookies = subject.browser(app).open(subject.page.rule, scheme=scheme).headers.getlist("Set-Cookie")
    name = subject.app.config["SESSION_COOKIE_NAME"]
    return next((cookie for cookie in cookies if cookie.startswith(f"{name}=")), "")


def _any_session(subject: Subject) -> None:
    if not subject.app.secret_key:
        raise NotApplicable("the app has no secret key, so no sessions")
    if not subject.keeps_sessions:
        raise NotApplicable("no code uses a session")
    subject.needs_page()


def _attributes(subject: Subject) -> list[str]:
    if not (cookie := _set_cookie(subject)):
        raise NoAnswer("no session cookie was set over https")
    return cookie.split("; ")


def _browser_with(subject: Subject, cookie: str) -> Browser:
    """Return a browser with a copy of this cookie ('' for none)."""
    browser = subject.browser()
    if cookie:
        browser.take_cookie(cookie)
    return browser


def _value(subject: Subject, cookie: str = "") -> str:
    """Return the cookie's value after one more request."""
    browser = _browser_with(subject, cookie)
    with subject.view(subject.page.endpoint, _begin):
        browser.open(subject.page.rule)
    return browser.cookie()


def _is_alive(subject: Subject, cookie: str) -> bool:
    with subject.view(subject.page.endpoint, lambda: "alive" if "audit" in session else "over"):
        return _browser_with(subject, cookie).open(subject.page.rule).text == "alive"


def _sign_out_ends_it(subject: Subject) -> Iterator[str]:
    """Check that the server itself ends the session of an account."""
    if (member := subject.new_member()) is None:
        return
    email, password = subject.new_account()
    visitor = subject.browser()
    visitor.token()
    before = visitor.session()
    visitor.send("/login", {"email": email, "password": password})
    if not before or before.items() & visitor.session().items() - {("_permanent", True)}:
        yield "The session continues after the sign-in: an attacker may have planted it (session fixation)."
    thief = _browser_with(subject, member.cookie())
    if thief.open("/account").status_code != 200:
        yield "A sign-in starts no session."
    if '"storage"' not in member.send("/logout", {}).headers.get("Clear-Site-Data", ""):
        yield "After the sign-out, the browser keeps what scripts have stored."
    if thief.open("/account").status_code == 200:
        yield "A copy of the cookie still opens the account after the sign-out."
    other, owner = subject.sign_in(email, password), subject.sign_in(email, password)
    new = f"another {password}"
    owner.send("/account/password", {"password": password, "new_password": new, "new_password_confirm": new})
    if other.open("/account").status_code == 200:
        yield "A new password does not end the other sessions."
    yield from _sessions_of_others(subject)
    yield from _rows_end(subject)


def _sessions_of_others(subject: Subject) -> Iterator[str]:
    """Try to end another user's session, then end it as its owner, by resetting the password."""
    email, password = subject.new_account()
    first, second = subject.sign_in(email, password), subject.sign_in(email, password)
    for path in re.findall(r'action="(/account/sessions/\w+/end)"', first.open("/account").text):
        if stranger := subject.new_member():
            stranger.send(path, {})
    if not first.open("/account").status_code == second.open("/account").status_code == 200:
        yield "A user who knows the id of another user's session can end it."
    third = subject.sign_in(email, password)
    # The page lists the sessions, the one in use first.
    last = re.findall(r'action="(/account/sessions/\w+/end)"', third.open("/account").text)[-1:]
    for path in last:
        third.send(path, {})
    if not last or [each.open("/account").status_code for each in (first, second, third)].count(200) != 2:
        yield "A user can't end one of the sessions of the account."
    third.send("/account/sessions/end", {})
    if [each.open("/account").status_code == 200 for each in (first, second, third)] != [False, False, True]:
        yield "A user can't end all other sessions of the account."
    second = subject.sign_in(email, password)
    subject.reset_password(email, f"new {password}")
    if second.open("/account").status_code == 200:
        yield "A password reset by mail does not end the sessions."


def _rows_end(subject: Subject) -> Iterator[str]:
    """Advance the time for the server's record of a session, but not for the cookie."""
    now = datetime.now(UTC).replace(tzinfo=None)
    idle, longest = _lifetimes(subject.app)
    for member, moments in (
        (subject.new_member(), [idle + 90]),
        (subject.new_member(), [*range(500, longest, 500), longest + 90]),
    ):
        status = 0
        for after in moments:
            with mock.patch("app.accounts.identity.utcnow", return_value=now + timedelta(seconds=after)):
                status = member.open("/account").status_code if member else 0
        if status == 200:
            yield f"The server's record of a session from {moments[-1]} seconds ago is still valid."
