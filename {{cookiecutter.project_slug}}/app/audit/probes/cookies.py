"""4 Session cookies: how does the cookie travel, and how long does a copy of it live?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest import mock

from flask import session

from app.audit.steps import step
from app.audit.subject import NotApplicable, Subject
from app.settings import SettingsError

MEND = "Leave the session's settings to app/security/cookies.py"


@step("4.S1", "Secure: never over http", MEND, "V3.3.1")
def cookie_is_secure(subject: Subject) -> Iterator[str]:
    """Have a session begun, over https and over http."""
    if "Secure" not in _attributes(subject):
        yield "The session cookie also travels over http."
    if _set_cookie(subject, "http"):
        yield "The session cookie is set over http, where anybody can read it."


@step("4.S2", "HttpOnly: out of reach for scripts", MEND, "V3.3.4")
def cookie_is_http_only(subject: Subject) -> Iterator[str]:
    """Have a session begun."""
    if "HttpOnly" not in _attributes(subject):
        yield "Scripts can read the session cookie."


@step("4.S3", "SameSite: not sent with other sites' forms", MEND, "V3.3.2")
def cookie_is_same_site(subject: Subject) -> Iterator[str]:
    """Have a session begun, and try the setting that would undo it."""
    attributes = _attributes(subject)
    if not {"SameSite=Lax", "SameSite=Strict"} & set(attributes):
        yield "Other sites' forms carry the session cookie."
    yield from _starts_with(subject, "SESSION_COOKIE_SAMESITE", "None")


@step(
    "4.S4",
    "A session ends when idle, after its longest life, and with the sign-out",
    MEND,
    "V7.3.1",
    "V7.3.2",
    "V7.4.1",
)
def session_ends(subject: Subject) -> Iterator[str]:
    """Come back with a copy of the cookie, later and later."""
    idle, longest = (
        subject.app.config["PERMANENT_SESSION_LIFETIME"],
        subject.app.config.get("SESSION_ABSOLUTE_LIFETIME"),
    )
    idle = int(getattr(idle, "total_seconds", lambda: idle)())
    if idle > 86400:
        yield f"A session lives for {idle} seconds without a request."
    if not longest or int(longest) > 604800:
        yield "A session that is used lives for ever."
        longest = 30 * 86400
    now = int(time.time())
    born = _value(subject)
    for after, steps, alive in ((idle - 5, 1, True), (idle + 5, 1, False), (int(longest) + 5, 60, False)):
        cookie = born
        for number in range(1, steps):
            moment = now + after * number // steps
            with mock.patch("time.time", lambda moment=moment: moment):
                cookie = _value(subject, cookie) or cookie
        with mock.patch("time.time", lambda moment=now + after: moment):
            if _is_alive(subject, cookie) != alive:
                yield f"A session of {after} seconds ago is {'over' if alive else 'alive'}."
    yield from _sign_out_ends_it(subject)


@step("4.S5", "A __Host- name, path / and no domain", MEND, "V3.3.3")
def cookie_belongs_to_the_host(subject: Subject) -> Iterator[str]:
    """Have a session begun, and try the settings that would undo it."""
    attributes = _attributes(subject)
    if not attributes[0].startswith("__Host-"):
        yield "The session cookie has no __Host- name: a sister domain can plant one."
    if "Path=/" not in attributes or any(each.startswith("Domain=") for each in attributes):
        yield "The session cookie has another path, or a domain."
    yield from _starts_with(subject, "SESSION_COOKIE_DOMAIN", "audit.example")
    yield from _starts_with(subject, "SESSION_COOKIE_PATH", "/app")


def _starts_with(subject: Subject, setting: str, value: str) -> Iterator[str]:
    if not subject.own:
        return
    try:
        subject.make({setting: value})
    except SettingsError:
        return
    yield f"The app starts with {setting}={value}."


def _begin() -> str:
    session["audit"] = session.get("audit", 0) + 1
    return str(session["audit"])


def _set_cookie(subject: Subject, scheme: str = "https") -> str:
    if not subject.app.secret_key:
        raise NotApplicable("the app has no secret key, so no sessions")
    with subject.view(subject.page.endpoint, _begin):
        cookies = subject.browser().open(subject.page.rule, scheme=scheme).headers.getlist("Set-Cookie")
    name = subject.app.config["SESSION_COOKIE_NAME"]
    return next((cookie for cookie in cookies if cookie.startswith(f"{name}=")), "")


def _attributes(subject: Subject) -> list[str]:
    if not (cookie := _set_cookie(subject)):
        raise LookupError("no session cookie came over https")
    return cookie.split("; ")


def _value(subject: Subject, cookie: str = "") -> str:
    """Give the cookie's value after one more request."""
    name, browser = subject.app.config["SESSION_COOKIE_NAME"], subject.browser()
    if cookie:
        browser.client.set_cookie(name, cookie, domain=subject.host, secure=True)
    with subject.view(subject.page.endpoint, _begin):
        browser.open(subject.page.rule)
    found = browser.client.get_cookie(name, domain=subject.host)
    return found.value if found else ""


def _is_alive(subject: Subject, cookie: str) -> bool:
    browser = subject.browser()
    browser.client.set_cookie(subject.app.config["SESSION_COOKIE_NAME"], cookie, domain=subject.host, secure=True)
    with subject.view(subject.page.endpoint, lambda: "alive" if "audit" in session else "over"):
        return browser.open(subject.page.rule).text == "alive"


def _sign_out_ends_it(subject: Subject) -> Iterator[str]:
    if (member := subject.new_member()) is None:
        return
    name = subject.app.config["SESSION_COOKIE_NAME"]
    found = member.client.get_cookie(name, domain=subject.host)
    copy = subject.browser()
    copy.client.set_cookie(name, found.value if found else "", domain=subject.host, secure=True)
    if copy.open("/account").status_code != 200:
        yield "A sign-in gives no session."
    member.send("/logout", {})
    if copy.open("/account").status_code == 200:
        yield "A copy of the cookie still opens the account after the sign-out."
