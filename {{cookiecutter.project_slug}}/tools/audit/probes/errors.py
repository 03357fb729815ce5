"""5 Errors: what does a failure reveal to a visitor, and what does the log contain?"""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from unittest import mock

from flask import Response, abort, redirect, request, url_for
from werkzeug.exceptions import ServiceUnavailable, TooManyRequests, default_exceptions
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.test import TestResponse

from app.security.findings import facts
from tools.audit import yours
from tools.audit.probes import SIGNED
from tools.audit.steps import probe
from tools.audit.subject import Browser, Subject, random_key

STATUSES = (400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 502, 503)
PROBLEM = "application/problem+json"
SECRET = "audit-" + "hunter2"
TELLING = ("Traceback", SECRET, "werkzeug", "Werkzeug", "File &#34;", 'File "', "sqlite", "SELECT", ".py")


@probe("5.S1")
def every_status_has_a_page(subject: Subject) -> Iterator[str]:
    """Make a view fail with each status."""
    subject.needs_page()
    texts: dict[str, int] = {}
    details: dict[str, int] = {}
    for status in STATUSES:
        page = _failing(subject, lambda status=status: abort(status))
        if page.status_code != status:
            yield f"{status} becomes {page.status_code}."
        default = default_exceptions[status].description or "" if status in default_exceptions else ""
        if page.mimetype != "text/html" or default[:40] in page.text or len(page.text) < 200:
            yield f"{status} shows the framework's own page."
        words = "".join(re.findall(r"(?s)<main.*</main>", page.text)) or page.text
        if (words := re.sub(r"[0-9a-f]{32}|\d+", "", words)) in texts:
            yield f"{status} has the same text as {texts.get(words)}."
        texts[words] = status
        problem = _failing(subject, lambda status=status: abort(status), headers={"Accept": "application/json"})
        body = problem.get_json(silent=True) or {}
        if (
            problem.mimetype != PROBLEM
            or body.get("status") != status
            or body.get("title") != HTTP_STATUS_CODES[status]
        ):
            yield f"{status} is not sent as a problem (RFC 9457) to a script."
        if (detail := str(body.get("detail", status))) in details:
            yield f"{status} has the same detail as {details[detail]}."
        details[detail] = status
    fetch = {"Accept": "*/*", "Sec-Fetch-Dest": "empty"}
    if _failing(subject, lambda: abort(409), headers=fetch).mimetype != PROBLEM:
        yield "A script that states no preference gets the page."


@probe("5.S2")
def nothing_is_told(subject: Subject) -> Iterator[str]:
    """Make a view raise exceptions that contain a secret."""
    subject.needs_page()
    for headers in ({}, {"Accept": "application/json"}):
        answer = _failing(subject, _raise, headers=headers)
        told = [word for word in (*TELLING, str(subject.package)) if word in answer.text]
        if told or answer.status_code != 500:
            yield f"A failure answers {answer.status_code} and shows {', '.join(told) or 'nothing'}."
    # The text of an exception that the app has defined may be for people.
    for kind in [each for each in subject.app.error_handler_spec[None][None] if each.__module__ == "builtins"]:
        if SECRET in _failing(subject, mock.Mock(side_effect=kind.__new__(kind, SECRET))).text:
            yield f"The text of a {kind.__name__} is shown."
    if subject.app.debug:
        yield "Debug is on: the development server may offer a console."
    with subject.view(subject.page.endpoint, lambda: redirect(url_for(subject.page.endpoint))):
        if "<" in subject.browser().open(subject.page.rule).text:
            yield "A redirect carries the framework's own page."
    if subject.own:
        yield from _own_pages_tell_nothing(subject)


@probe("5.S3")
def the_log_has_it_all(subject: Subject) -> Iterator[str]:
    """Make a view fail, and read the log."""
    subject.needs_page()
    before = subject.logged()
    answer = _failing(subject, _raise_with_password, path="/audit/%0a%1b[31mforged%0d", headers={"Cookie": "a=b"})
    log = "\n".join(subject.logged(before))
    number = answer.headers.get("X-Request-ID", "")
    if "AuditError" not in log:
        yield "The log does not show what failed."
    if not number or number not in answer.text or number not in log:
        yield "The page shows no id that finds its line in the log."
    if SECRET in log:
        yield "A password is in the log."
    if subject.app.secret_key and str(subject.app.secret_key) in log:
        yield "The key is in the log."
    forged = _failing(subject, _raise, headers={"X-Request-ID": "forged-id"}).headers.get("X-Request-ID")
    if forged == "forged-id":
        yield "Clients can choose the id of their requests, and so forge another request's."
    if subject.own:
        yield from _settings_are_redacted(subject)
        yield from _forms_and_paths_are_redacted(subject)
        yield from _attacks_are_events(subject)
    if any(line.startswith(("\x1b", "forged")) for line in log.splitlines()) or "\x1b" in log:
        yield "A client can forge a line of the log with a path."


def _settings_are_redacted(subject: Subject) -> Iterator[str]:
    former, start = random_key(), len(subject.log.getvalue())
    redis = "redis://:remains@127.0.0.1:1/0"
    with subject.instead({"SECRET_KEY_FALLBACKS": former, "RATELIMIT_STORAGE_URI": redis}):
        key = str(subject.app.secret_key)
        _failing(subject, lambda: _throw(AuditError(f"{former} and {key}; the word remains")))
    log = subject.log.getvalue()[start:]
    if former in log or key in log:
        yield "The app's own keys are in the log."
    if "the word remains" not in log:
        yield "A password of the settings that is a word is cut out of every line, which reveals it."


def _forms_and_paths_are_redacted(subject: Subject) -> Iterator[str]:
    """Log a form as Python shows it, with a line break, and open links with a token."""
    start = len(subject.log.getvalue())
    form = {"password": [SECRET], "csrf_token": SECRET}
    text = f"{form} {list(form.items())} <password>{SECRET}</password> redis://:{SECRET}@host\nforged\x1b[31m"
    _failing(subject, lambda: _throw(AuditError(text)))
    for token in (SIGNED, SIGNED.replace(".", "")):
        subject.browser().open(f"/audit/{token}")
    subject.browser().open("/audit/page from 192.0.2.1: 200")
    log = subject.log.getvalue()[start:]
    if SECRET in log:
        yield "A password in a form is in the log."
    if SIGNED in log or SIGNED.replace(".", "") in log:
        yield "A token in the path of a link is in the log."
    if "\nforged" in log or "\x1b" in log:
        yield "The text of an exception forges a line of the log."
    if "from 192.0.2.1" in log or not any("/audit/page" in line and "404" in line for line in log.splitlines()):
        yield "A path forges or hides a part of its line."


def _attacks_are_events(subject: Subject) -> Iterator[str]:
    """Look for security events, and for what they must not contain."""
    requests: dict[str, tuple[Browser, str, dict[str, Any]]] = {}
    for rule in subject.rules("POST")[:1]:
        foreign = {"method": "POST", "headers": {"Origin": "https://evil.example"}}
        requests["from another site"] = subject.browser(), subject.url(rule), foreign
    requests["with a null byte"] = subject.browser(), f"{subject.page.rule}?a=%00", {}
    if subject.takes("/login"):
        guess = subject.browser()
        form = {"csrf_token": guess.token(), "email": "nobody@audit.example", "password": SECRET}
        form |= yours.fields("/login")
        requests["with a wrong password"] = guess, "/login", {"method": "POST", "data": form}
    if subject.takes("/uploads"):
        owner = subject.new_member() or subject.browser()
        requests["for the file of another owner"] = owner, f"/uploads/{'0' * 32}", {}
    for name, (browser, path, how) in requests.items():
        start = len(subject.log.getvalue())
        number = browser.open(path, **how).headers.get("X-Request-ID", "")
        lines = [line for line in subject.log.getvalue()[start:].splitlines() if "event" in line and number in line]
        if len(lines) != 1 or browser.address not in lines[0]:
            yield f"A request {name} leaves {len(lines)} security events, which must name the client's network."
        if re.search(rf"{SECRET}|nobody@", "".join(lines)):
            yield "A security event contains the address or the password that somebody entered."
    flood = subject.browser()
    start = len(subject.log.getvalue())
    answers = [flood.open(subject.page.rule).status_code for _ in range(200)]
    if (refused := answers.count(429)) > 1 and subject.log.getvalue()[start:].count("\n") > 5:
        yield f"A client over its limit writes to the log with each of {refused} requests."


@probe("5.S4")
def nothing_gets_past(subject: Subject) -> Iterator[str]:
    """Make hooks, the session, the templates and the database fail."""
    subject.needs_page()
    app = subject.app
    places = {
        "a hook before the view": (app.before_request_funcs, lambda: _raise()),
        "a hook after the view": (app.after_request_funcs, lambda _: _raise()),
        "a teardown": (app.teardown_request_funcs, lambda _: _raise()),
    }
    for place, (hooks, hook) in places.items():
        with mock.patch.dict(hooks, {None: [*hooks[None], hook]}):  # type: ignore[index]
            answer = subject.browser().open(subject.page.rule)
        yield from _fault_of(answer, place)
    with (
        mock.patch.object(app.jinja_env, "get_or_select_template", _raise),
        mock.patch.object(app.jinja_env, "get_template", _raise),
    ):
        yield from _fault_of(_failing(subject, _raise), "the error page itself")
        if (status := _failing(subject, lambda: abort(404)).status_code) != 404:
            yield f"While the error page is broken, a 404 becomes a {status}."
    yield from _fault_of(_failing(subject, lambda: Response(_broken_stream())), "a streamed body")
    if subject.own:
        yield from _database_fails(subject)
    with mock.patch.object(app.session_interface, "open_session", _raise):
        yield from _fault_of(subject.browser().open(subject.page.rule), "the session")
    with mock.patch.object(app, "make_response", _raise):
        yield from _fault_of(subject.browser().open(subject.page.rule), "the response")


@probe("5.S5")
def statuses_are_right(subject: Subject) -> Iterator[str]:
    """Send requests that must get a 400, 404, 405, 410, 429 or 503."""
    subject.needs_page()
    if (status := subject.browser().open("/audit/nothing/here").status_code) != 404:
        yield f"An unknown path answers {status}."
    wrong = subject.browser().open(subject.page.rule, method="TRACE")
    if wrong.status_code != 405 or "GET" not in wrong.headers.get("Allow", ""):
        yield f"A wrong method answers {wrong.status_code}, without Allow."
    for rule in subject.rules("TRACE"):
        yield f"{rule.rule} accepts TRACE."
    for error in (TooManyRequests, ServiceUnavailable):
        answer = _failing(subject, lambda error=error: _throw(error(retry_after=7)))
        if answer.headers.get("Retry-After") != "7":
            yield f"Retry-After is lost on {answer.status_code}."
    hooks = subject.app.after_request_funcs
    with mock.patch.dict(hooks, {None: [*hooks[None], lambda _: abort(410)]}):
        if (status := subject.browser().open(subject.page.rule).status_code) != 410:
            yield f"A refusal by a hook becomes a {status}."
    page = subject.page.rule
    if subject.own:
        if (status := subject.browser().open(f"{page}?audit=%00").status_code) != 400:
            yield f"A null byte in a URL answers {status}."
        for rule in subject.rules("POST")[:1]:
            browser = subject.browser()
            form = {"csrf_token": browser.token(), "audit": "a\0"}
            with subject.view(rule.endpoint, lambda: f"it holds {request.form['audit']}"):
                if "it holds" in browser.open(subject.url(rule), method="POST", data=form).text:
                    yield "A null byte in a form reaches the views."
    for path in ("/%ff%fe", "/%00", "/?%00=%ff", "/" + "a" * 9000):
        if (status := subject.browser().open(path).status_code) >= 500:
            yield f"A malformed URL answers {status}."


def _own_pages_tell_nothing(subject: Subject) -> Iterator[str]:
    """Check the pages that depend on the app's state, and debug."""
    debug = subject.make({"FLASK_DEBUG": True})
    with subject.view(subject.page.endpoint, _raise, debug):
        shown = subject.browser(debug).open(subject.page.rule).text  # with the traceback, on the app's own page
        if "<title>" not in shown or debug.config["PROPAGATE_EXCEPTIONS"] is not False:
            yield "In debug, an exception reaches the server and its console."
    with subject.instead({"CSP_REPORT_ONLY": True}):
        evidence = [fact.evidence for fact in facts(subject.app)]
        pages = [rule.rule for rule in subject.rules("GET") if not rule.arguments]
        texts = {page: html.unescape(subject.browser().open(page).text) for page in pages}
    for page, text in texts.items():
        if any(each in text for each in evidence):
            yield f"{page} shows every visitor what this deployment relaxes."
    for rule in subject.rules("GET"):
        if not rule.arguments and _tells(subject, subject.browser().open(rule.rule).text):
            yield f"{rule.rule} shows settings."
        if "ready" in rule.rule and "uploads" in subject.app.extensions.get("readyz", ()):
            with mock.patch("tempfile.TemporaryFile", side_effect=OSError(SECRET)):
                answer = subject.browser().open(rule.rule)
            if SECRET in answer.text or answer.status_code != 503:
                yield f"{rule.rule} answers {answer.status_code} and reveals why a part is down."
            if "uploads" in answer.text:
                yield f"{rule.rule} tells every visitor which part is down."


def _tells(subject: Subject, text: str) -> bool:
    return str(subject.app.secret_key) in text or str(subject.folder) in text


def _database_fails(subject: Subject) -> Iterator[str]:
    """Make the database fail for a signed-in user."""
    if (member := subject.member) is None:
        return
    # An app without accounts has no such package.
    error = importlib.import_module("sqlalchemy.exc").OperationalError(f"SELECT {SECRET}", {}, Exception(SECRET))
    with mock.patch("sqlalchemy.orm.Session.scalar", side_effect=error):
        answer = member.open("/account")
    if answer.status_code != 503 or SECRET in answer.text or "<main" not in answer.text:
        yield f"Without its database the app answers {answer.status_code}, not a page with a 503."


def _broken_stream() -> Iterator[bytes]:
    if SECRET:
        raise AuditError(SECRET)
    yield b""


class AuditError(Exception):
    """The exception that the audit's views raise."""


def _throw(error: Exception) -> NoReturn:
    raise error


def _raise(*_: object, **__: object) -> NoReturn:
    raise AuditError(f"{SECRET}: SELECT")


def _raise_with_password() -> NoReturn:
    raise AuditError(f"login(password='{SECRET}', x)")


def _failing(subject: Subject, view: object, *, path: str = "", headers: dict[str, str] | None = None) -> TestResponse:
    """Return the response of a page whose view fails."""
    browser: Browser = subject.browser()
    with subject.view(subject.page.endpoint, view):  # type: ignore[arg-type]
        if path:
            browser.open(path)
        return browser.open(subject.page.rule, headers=headers)


def _fault_of(answer: TestResponse, place: str) -> Iterator[str]:
    if answer.status_code != 500 or "Traceback" in answer.text or SECRET in answer.text or not answer.text:
        yield f"A failure in {place} is not handled."
