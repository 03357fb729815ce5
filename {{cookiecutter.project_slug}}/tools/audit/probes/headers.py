"""6 Headers: does every response enable the browser's protections?"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from typing import NoReturn
from unittest import mock

from flask import Response
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.test import TestResponse

from app.visitors import PUBLIC
from tests.policies import relaxed_at
from tools.audit.probes import DECLARED, is_pinned, server
from tools.audit.steps import Fault, Relaxed, probe
from tools.audit.subject import FOREIGN_ORIGIN, Subject

TWO_YEARS = 2 * 365 * 24 * 3600

# Some of the features that a page does not need. By default, browsers grant most of them to the page itself.
POWERFUL = ("camera", "microphone", "geolocation", "payment", "usb", "display-capture", "serial", "hid")
ISOLATION = {
    "Cross-Origin-Opener-Policy": ("same-origin",),
    "Cross-Origin-Embedder-Policy": ("require-corp", "credentialless"),
    "Cross-Origin-Resource-Policy": ("same-origin",),
    "X-Permitted-Cross-Domain-Policies": ("none",),
    "Referrer-Policy": ("strict-origin-when-cross-origin", "same-origin", "strict-origin", "no-referrer"),
}
CORS_FIX = "Name the sites that may read it, or send no Access-Control-Allow-Credentials"
CACHE_FIX = 'Send "private" instead, or mark the view with @public'
SCANNERS = {
    "MDN's Observatory": r"(?i)observatory",
    "a CSP evaluator": r"(?i)csp.?evaluator",
    "a header checker": r"shcheck",
}


@probe("6.S1")
def talisman_is_pinned(subject: Subject) -> Iterator[str]:
    """Read the requirements."""
    yield from is_pinned(subject, "flask-talisman")


@probe("6.S2")
def every_response_has_them(subject: Subject) -> Iterator[str]:
    """Request one response of each kind."""
    browser = subject.browser()
    static = subject.static_file(next((path.name for path in subject.package.glob("static/*.*")), "nothing"))
    answers = {
        "a page": browser.open(subject.page.rule),
        "a file": browser.open(static),
        "a file that has not changed": browser.open(static, headers={"If-None-Match": "*"}),
        "a 404": browser.open("/audit/nothing/here"),
        "a 405": browser.open(subject.page.rule, method="TRACE"),
        "a redirect to https": browser.open(subject.page.rule, scheme="http"),
        "an unknown host": browser.open(subject.page.rule, host="unknown.example"),
    }
    with mock.patch.object(subject.app.session_interface, "open_session", side_effect=OSError):
        answers["a failure outside of Flask"] = browser.open(subject.page.rule)
    teardowns = subject.app.teardown_request_funcs
    with mock.patch.dict(teardowns, {None: [*teardowns[None], _fail]}):
        answers["a failure after the response"] = browser.open(subject.page.rule)
    if subject.own and subject.takes("/uploads"):
        answers["a download"] = _download(subject)
    relaxed = _relaxed(subject)
    for kind, answer in answers.items():
        twice = [name for name in server.OWN_HEADERS if len(answer.headers.getlist(name)) > 1]
        if twice:
            yield f"{kind} has {', '.join(twice)} twice."
        wanted = ["X-Content-Type-Options", "X-Frame-Options", *ISOLATION]
        if kind != "a redirect to https":  # browsers ignore it over http
            wanted.append("Strict-Transport-Security")
        lacking = [name for name in wanted if name not in answer.headers and name not in relaxed]
        if lacking:
            yield f"{kind} ({answer.status_code}) lacks {', '.join(lacking)}."
        policy = answer.headers.get("Content-Security-Policy", "")
        if subject.own and "frame-ancestors 'none'" not in policy and "X-Frame-Options" not in relaxed:
            yield f"{kind} ({answer.status_code}) may be framed, as far as its Content-Security-Policy says."
    if subject.own:
        yield from server.proxy_refuses_plainly(subject)


@probe("6.S3")
def https_is_enforced(subject: Subject) -> Iterator[str]:
    """Send requests over http, with forged proxy headers and with another host."""
    browser = subject.browser()
    for method, headers in (
        ("GET", {}),
        ("POST", {}),
        ("GET", {"X-Forwarded-Host": "evil.example"}),
    ):
        answer = browser.open(subject.page.rule, method=method, scheme="http", headers=headers)
        where = answer.headers.get("Location", "")
        if answer.status_code != 308 or not where.startswith(f"https://{subject.host}/"):
            forged = "".join(f" with {name}" for name in headers)
            yield f"{method} over http{forged} answers {answer.status_code} {where}."
    # An app may take this for a proxy that it must not trust, and refuse.
    status = browser.open(subject.page.rule, scheme="http", headers={"X-Forwarded-Proto": "https"}).status_code
    if status not in (308, 503):
        yield f"GET over http with X-Forwarded-Proto answers {status}."
    found = browser.open(subject.page.rule).headers
    hsts = found.get("Strict-Transport-Security", "")
    age = re.search(r"max-age=(\d+)", hsts)
    if not age or int(age[1]) < TWO_YEARS or "includeSubDomains" not in hsts:
        yield f"Strict-Transport-Security is {hsts or 'missing'!r}."
    relaxed = _relaxed(subject)
    for each, where in subject.relaxed_views().items():
        if "frame-ancestors" in each.csp:
            by = each.csp["frame-ancestors"] or "all sites"
            yield Relaxed(f"{where}: frames in {by} ({each.reason})", DECLARED)
    for name, value in (("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff"), ("X-XSS-Protection", "0")):
        if found.get(name) != value and name not in relaxed:
            yield f"{name} is {found.get(name, 'missing')!r}."
    if "preload" in hsts:
        yield "HSTS has preload, which is hard to undo, without the setting HSTS_PRELOAD."
    if subject.own:
        second = subject.make({"TRUSTED_HOSTS": f"{subject.host},second.example"})
        moved = subject.browser(second).open(subject.page.rule, scheme="http", host="second.example")
        if not moved.headers.get("Location", "").startswith(f"https://{subject.host}/"):
            yield "The redirect to https repeats the request's host."
        yield from server.proxy_overwrites(subject, "X-Forwarded-Proto", "$scheme", "https")
    if subject.own and "preload" not in subject.browser(subject.make({"HSTS_PRELOAD": True})).open(
        subject.page.rule
    ).headers.get("Strict-Transport-Security", ""):
        yield "HSTS_PRELOAD does not add preload to HSTS."


@probe("6.S4")
def the_rest_is_sent(subject: Subject) -> Iterator[str]:
    """Read the headers of a page that another site's script requests."""
    found = subject.browser().open(subject.page.rule, headers={"Origin": FOREIGN_ORIGIN}).headers
    if found.get("Access-Control-Allow-Origin") in ("*", "null", FOREIGN_ORIGIN):
        yield "Access-Control-Allow-Origin lets any site read the page."
    for rule, headers in subject.answers:
        # Without credentials, another site reads only what anybody may read.
        anybody = headers.get("Access-Control-Allow-Origin") in ("null", FOREIGN_ORIGIN)
        if anybody and headers.get("Access-Control-Allow-Credentials", "").lower() == "true":
            yield Fault(f"{rule.rule}: Any site may read it with a visitor's cookies.", CORS_FIX)
        shared = re.search(r"(?i)\bpublic\b|\bs-maxage\b", headers.get("Cache-Control", ""))
        if shared and subject.member and not subject.declares(rule, PUBLIC):
            yield Fault(f"{rule.rule}: Caches may give a member's page to others ({shared[0]}).", CACHE_FIX)
    for each, where in subject.relaxed_views().items():
        if each.headers:
            changes = "; ".join(f"{name} {value or 'removed'}" for name, value in each.headers.items())
            yield Relaxed(f"{where}: {changes} ({each.reason})", DECLARED)
    for place, headers in [("", found), *((f"{rule.rule}: ", headers) for rule, headers in subject.answers)]:
        relaxed = _relaxed(subject, place.rstrip(": ") or subject.page.rule)
        for name, evidence in _weak(headers):
            if name not in relaxed:
                yield f"{place}{evidence}"
    if "no-store" not in found.get("Cache-Control", "") and "Cache-Control" not in _relaxed(subject):
        yield f"Cache-Control is {found.get('Cache-Control', 'missing')!r} on a page."
    yield from _versions(found)
    stricter = {"Referrer-Policy": "no-referrer", "Content-Security-Policy": "sandbox"}
    with subject.view(subject.page.endpoint, lambda: Response("", headers=stricter)):
        kept = subject.browser().open(subject.page.rule).headers
    if lost := [name for name, value in stricter.items() if kept.get(name) != value]:
        yield f"A view's own, stricter {', '.join(lost)} is overwritten."


def _weak(headers: Headers) -> Iterator[tuple[str, str]]:
    """Yield the headers that allow more than they should, with what that is."""
    for name, values in ISOLATION.items():
        if headers.get(name, "").partition(";")[0] not in values:
            yield name, f"{name} is {headers.get(name, 'missing')!r}."
    denied = headers.get("Permissions-Policy", "").replace(" ", "").split(",")
    if granted := [name for name in POWERFUL if f"{name}=()" not in denied]:
        yield "Permissions-Policy", f"Permissions-Policy grants {', '.join(granted)}."


def _relaxed(subject: Subject, path: str = "") -> set[str]:
    """Return the headers that the app declares to relax at ``path``, by default that of the page."""
    relaxed = relaxed_at(subject.app, path or subject.page.rule)
    framed = any("frame-ancestors" in each.csp for each in relaxed)
    return {name for each in relaxed for name in each.headers} | ({"X-Frame-Options"} if framed else set())


@probe("6.S5")
def scanners_are_tests(subject: Subject) -> Iterator[str]:
    """Read the tests."""
    run = "\n".join(_tests_that_run(subject))
    for scanner, sign in SCANNERS.items():
        if not re.search(sign, run):
            yield f"No test runs {scanner}."
    for path in subject.project.glob("tests/**/package.json") if subject.own else ():
        for name, version in json.loads(path.read_text(encoding="utf-8")).get("dependencies", {}).items():
            if not version[:1].isdigit():
                yield f"{name} is not pinned in {path.name}."


def _tests_that_run(subject: Subject) -> Iterator[str]:
    """Yield the names in the project's tests that run scanners, without skipped tests."""
    for path in sorted(subject.project.glob("tests/**/*.py")):
        text = path.read_bytes()
        if not any(re.search(sign.encode(), text) for sign in SCANNERS.values()):
            continue
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):  # Python can't run it either
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and re.match("test_(?!.*_sees_)", node.name):
                marks = " ".join(map(ast.unparse, node.decorator_list))
                if not re.search("skip|xfail", marks):
                    # Names only: a string may mention a scanner without running it.
                    yield " ".join([node.name, *(each.id for each in ast.walk(node) if isinstance(each, ast.Name))])


def _download(subject: Subject) -> TestResponse:
    """Upload a file, and download it."""
    visitor = subject.member or subject.browser()
    file = FileStorage(io.BytesIO(b"text"), "a.txt", content_type="text/plain")
    stored = visitor.send("/uploads", {"file": file}, headers={"Accept": "application/json"})
    return visitor.open(f"/uploads/{stored.get_json()['id']}")


def _fail(_: object) -> NoReturn:
    raise OSError


def _versions(found: Headers) -> Iterator[str]:
    for name in ("Server", "X-Powered-By"):
        if re.search(r"[\d.]{3}", found.get(name, "")):
            yield f"{name} reveals a version."
