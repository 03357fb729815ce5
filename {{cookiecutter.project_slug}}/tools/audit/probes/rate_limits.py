"""8 Rate limiting: how many requests are accepted, and from which clients?"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from functools import partial
from itertools import product
from unittest import mock

from flask import abort
from limits import parse_many
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.security.csrf import exempt
from app.security.declarations import declared_by
from app.security.rate_limits import KIND, LIMITS, UNLIMITED, limited, limiter
from app.settings import Settings
from app.visitors import public
from tools.audit.probes import is_pinned, server
from tools.audit.steps import Fault, Relaxed, probe
from tools.audit.subject import UNSAFE_METHODS, Browser, NoAnswer, Subject

WRONG = "a wrong guess"
JSON = {"Accept": "application/json"}
MANY = 70  # requests; a copy of the app accepts at most 60 per minute, 40 of a page
STRICTER = re.compile(
    r"(?<![A-Za-z])(?i:log[-_]?in|sign[-_]?(?:in|up)|regist(?:er|ration)|reset|forgot|uploads?$)(?![a-z])"
)
STRICTER_FIX = 'Mark the view with @limited("upload"), another kind, or a limit such as "10 per minute"'
DECLARED = "It is declared with @unlimited"
BUILT_IN = frozenset({"health.healthz"})


@probe("8.S1")
def requests_are_counted(subject: Subject) -> Iterator[str]:
    """Request a page until it is refused."""
    yield from is_pinned(subject, "flask-limiter")
    if _until_refused(subject, subject.page) is None and not _is_limited(subject, subject.page):
        yield f"{MANY} requests in a row are accepted."


@probe("8.S2")
def the_right_one_is_counted(subject: Subject) -> Iterator[str]:
    """Send requests from many addresses of one client, and from other clients."""
    page = subject.page
    if not subject.own:  # a foreign app may limit only some of its routes
        page = next((rule for rule in [page, *subject.rules("GET")] if _is_limited(subject, rule)), page)
    limit = _until_refused(subject, page)
    if limit is None:
        if _is_limited(subject, page):
            raise NoAnswer(f"{MANY} requests are too few to be refused, so no probe can test which clients are counted")
        yield "The requests of a page are not counted."
        return
    sources = {
        "X-Forwarded-For": ["192.0.2.7"] * (limit + 1),
        "addresses of one IPv6 network": [f"2001:db8:1:2::{number:x}" for number in range(limit + 1)],
        "an IPv4 address in IPv6 form": [("192.0.2.8", "::ffff:192.0.2.8")[number % 2] for number in range(limit + 1)],
    }
    if subject.own:
        holding = ("192.0.2.9", "64:ff9b::192.0.2.9", "2002:c000:209::1", "2002:c000:209:1::1")
        sources["an IPv4 address behind NAT64 or 6to4"] = [holding[number % 4] for number in range(limit + 1)]
    for what, addresses in sources.items():
        forged = what == "X-Forwarded-For"
        answers = [
            _ask(subject, page, address, {"X-Forwarded-For": f"10.0.{n // 250}.{n % 250}"} if forged else {})
            for n, address in enumerate(addresses)
        ]
        if answers[-1].status_code != 429:
            yield f"With {what}, one client gets as many requests as it likes."
    if any(_ask(subject, page, other).status_code == 429 for other in ("203.0.113.99", "64:ff9b::203.0.113.98")):
        yield "One client uses up the budget of all others."
    if _ask(subject, page, "2001:db8:1:3::1").status_code == 429:
        yield "One IPv6 network uses up the budget of its neighbours."
    yield from _users_count_apart(subject)
    if subject.own:
        yield from _networks_count_together(subject)
        if subject.make({"TRUSTED_PROXY_HOPS": None}).config["TRUSTED_PROXY_HOPS"]:
            yield "A proxy is trusted by default."
        yield from server.proxy_overwrites(subject, "X-Forwarded-For", "$remote_addr", "$proxy_add_x_forwarded_for")


@probe("8.S3")
def every_route_is_limited(subject: Subject) -> Iterator[str]:
    """Read the limit that each route announces, and flood those that need a stricter one."""
    for method in ("GET", *UNSAFE_METHODS) if subject.own else ("GET",):
        for rule in subject.rules(method):
            answer = _ask(subject, rule, "", JSON if subject.own else None, method)
            reason = declared_by(subject.app, rule.endpoint, method, UNLIMITED) if subject.own else ""
            if (
                "RateLimit-Limit" in answer.headers
                or _is_limited(subject, rule)
                or (reason and rule.endpoint in BUILT_IN)
            ):
                continue
            evidence = f"Nothing limits {f'{method} ' * (method != 'GET')}{rule.rule}"
            yield Relaxed(f"{evidence}: {reason}", DECLARED) if reason else Fault(f"{evidence}.", STRICTER_FIX)
    for path in ("/audit/nothing/here", subject.static_file("nothing.css")):
        if "RateLimit-Limit" not in subject.browser().open(path).headers:
            yield f"Nothing limits {path}."
    usual = _until_refused(subject, subject.page) or MANY
    for rule in subject.rules("POST"):
        if subject.own and not STRICTER.search(rule.rule):
            continue
        limit = _until_refused(subject, rule, "POST")
        if limit is None and _is_limited(subject, rule, "POST"):
            continue
        if limit is None:
            yield Fault(f"{MANY} POST {rule.rule} in a row are accepted.", STRICTER_FIX)
        elif limit >= usual and STRICTER.search(rule.rule):
            yield Fault(f"POST {rule.rule} has no stricter limit than a page.", STRICTER_FIX)
    if subject.own:
        usual_app = subject.make({"RATELIMIT_DEFAULT": None})
        announced = subject.browser(usual_app).open(subject.page.rule).headers.get("RateLimit-Limit", "0")
        if int(announced) > 1000:
            yield f"By default, a client may send {announced} requests of a page."
        yield from _own_limits(subject)
        yield from _nothing_goes_first(subject)
        yield from server.counters_hold(subject)
        yield from server.slow_clients_hold_no_thread(subject)


@probe("8.S5")
def refusals_are_clear(subject: Subject) -> Iterator[str]:
    """Flood a page, and read the refusal."""
    first = _ask(subject, subject.page, "192.0.2.60").headers
    if not {"RateLimit-Remaining", "X-RateLimit-Remaining"} & set(first.keys()):
        yield "RateLimit-Remaining is missing."
    for _ in range(MANY):
        page = _ask(subject, subject.page, "192.0.2.60")
        if page.status_code == 429:
            break
    if page.status_code != 429 and _is_limited(subject, subject.page):
        raise NoAnswer(f"{MANY} requests are too few to be refused, so no probe can test the refusal")
    if page.status_code != 429:
        yield f"No request is refused: number {MANY + 1} gets a {page.status_code}."
        return
    again = _ask(subject, subject.page, "192.0.2.60")
    if not page.headers.get("Retry-After", "").isdigit() or "Retry-After" not in again.headers:
        yield "The refusal is a 429 without Retry-After."
        return
    if "data-retry-after=" not in page.text or "data-retry-after=" not in again.text:
        yield "The page of a 429 has no countdown."
    problem = _ask(subject, subject.page, "192.0.2.60", JSON)
    if problem.mimetype != "application/problem+json" or problem.get_json()["status"] != 429:
        yield "A 429 is not sent as a problem (RFC 9457) to a script."
    if subject.own and subject.member:
        form = {"email": "tries@audit.example", "password": WRONG}
        if not re.search(r"(?i)left|remain", _main(subject.browser().send("/login", form).text)):
            yield "The sign-in form does not show how many tries are left."


def _ask(
    subject: Subject, rule: Rule, address: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> TestResponse:
    with subject.view(rule.endpoint, lambda: ""):
        return subject.browser(address=address).open(subject.url(rule), method=method, headers=headers)


def _until_refused(subject: Subject, rule: Rule, method: str = "GET") -> int | None:
    """Return the number of requests that one client may send in a row, None for ``MANY`` or more."""
    browser = subject.browser()
    path, form = subject.url(rule), _form(subject, browser, method)
    with subject.view(rule.endpoint, lambda: ""):
        for number in range(MANY):
            if browser.open(path, method=method, data=form, headers=JSON).status_code == 429:
                return number
    return None


def _is_limited(subject: Subject, rule: Rule, method: str = "GET") -> bool:
    """Return whether Flask-Limiter has a limit for a route of a foreign app, however high."""
    limiters = subject.app.extensions.get("limiter")
    if subject.own or not isinstance(limiters, set):
        return False
    limits: list[object] = []

    def view() -> str:
        limits.extend(limit for limiter in limiters for limit in limiter.current_limits)
        return ""

    browser = subject.browser()
    form = _form(subject, browser, method)
    with subject.view(rule.endpoint, view):
        answer = browser.open(subject.url(rule), method=method, data=form)
    return bool(limits) or answer.status_code == 429 or "RateLimit-Limit" in str(answer.headers)


def _form(subject: Subject, browser: Browser, method: str) -> dict[str, str]:
    """Return the form that a foreign app may require before it counts a request: the CSRF token."""
    return {"csrf_token": browser.token()} if not subject.own and method != "GET" and subject.app.secret_key else {}


def _users_count_apart(subject: Subject) -> Iterator[str]:
    if (member := subject.new_member()) is None:
        return
    member.address = "192.0.2.70"
    with subject.view(subject.page.endpoint, lambda: ""):
        refused = any(member.open(subject.page.rule, headers=JSON).status_code == 429 for _ in range(MANY))
    if not refused or _ask(subject, subject.page, member.address).status_code == 429:
        yield "A signed-in user is counted by address, not by user."
    sign_in = next((rule for rule in subject.rules("POST") if rule.rule == "/login"), None)
    if sign_in and (other := subject.new_member()):
        other.address = member.address
        with subject.view(sign_in.endpoint, lambda: ""):
            for _ in range(MANY):
                member.open("/login", method="POST", headers=JSON)
            if other.open("/login", method="POST", headers=JSON).status_code != 429:
                yield "An attacker's own accounts multiply the guesses at the accounts of others."


def _networks_count_together(subject: Subject) -> Iterator[str]:
    """Send forms from many /64 networks of one /56, and of one /48."""
    app = subject.make({})

    @exempt("The audit tries what is counted.")
    def form() -> str:
        return ""

    kinds = ("sign_in", "register", "reset")
    for kind in kinds:
        app.add_url_rule(f"/audit/{kind}", kind, public(limited(kind)(partial(form))), methods=["POST"])
    with mock.patch.dict(LIMITS, dict.fromkeys(kinds, "1 per minute")):  # the others are multiples of this
        for kind, (prefix, step, most) in product(kinds, ((56, 1, 8), (48, 256, 32))):
            sources = (f"2001:db8:{prefix}:{number % 256 * step:x}::1" for number in range(most + 1))
            browsers = (subject.browser(app, address=source) for source in sources)
            answers = (browser.open(f"/audit/{kind}", method="POST", headers=JSON).status_code for browser in browsers)
            passed = next((number for number, status in enumerate(answers) if status == 429), most + 1)
            if passed > most:
                yield f"The networks of one IPv6 /{prefix} share no limit for {kind}."
            if passed <= 1:
                yield f"In an IPv6 /{prefix}, one network uses up the budget of its neighbours for {kind}."


def _nothing_goes_first(subject: Subject) -> Iterator[str]:
    """Send requests that are refused whatever their view says, and then flood a page."""
    page = subject.page.rule
    refused: dict[str, tuple[str, dict[str, str]]] = {
        "for a foreign host": (page, {"host": "evil.example"}),
        "with an address that is too long": (f"{page}?a={'a' * 9000}", {}),
        "over http": (page, {"scheme": "http"}),
        "with a null byte": (f"{page}?audit=%00", {}),
    }
    for what, (path, how) in refused.items():
        if "RateLimit-Limit" not in subject.browser().open(path, **how).headers:  # type: ignore[arg-type]
            yield f"A request {what} is not counted."
    browser = subject.browser()
    before = subject.app.url_value_preprocessors
    with mock.patch.dict(before, {None: [*before[None], lambda *_: abort(403)]}):
        answers = [browser.open(page).status_code for _ in range(MANY)]
    if answers[-1] != 429:
        yield "A request that a url_value_preprocessor refuses is not counted."
    with (
        mock.patch.object(limiter.storage, "incr", wraps=limiter.storage.incr) as counted,
        mock.patch.object(subject.app.jinja_env, "get_or_select_template", side_effect=NotImplementedError) as rendered,
    ):
        answers.append(browser.open(page).status_code)
    if answers[-1] == 429 and (counted.called or rendered.called):
        yield "A client over its limit still makes the app count and render pages."


def _own_limits(subject: Subject) -> Iterator[str]:
    """Yield the limits of views that allow more than the default, and flood a view with a limit of its own."""

    def rate(limit: str) -> float:
        return min(part.amount / part.get_expiry() for part in parse_many(limit))

    default = Settings.model_fields["RATELIMIT_DEFAULT"].default
    for rule in subject.rules("GET", *UNSAFE_METHODS):
        found = {
            declared_by(subject.app, rule.endpoint, method, KIND, "", inherited=True) for method in rule.methods or ()
        }
        for limit in sorted(found - {"", *LIMITS}):
            if rate(limit) > rate(default):
                evidence = f"{rule.rule} has a limit of its own, {limit}, above RATELIMIT_DEFAULT ({default})."
                yield Relaxed(evidence, "It is declared with @limited")
    for file, node in subject.nodes:
        if isinstance(node, ast.Call) and re.search(r"\blimiter\.limit$", ast.unparse(node.func)):
            limit = str(getattr(node.args[0], "value", "")) if node.args else ""
            with contextlib.suppress(ValueError):  # only a running app knows it
                if rate(limit) > rate(default):
                    evidence = f"{file}:{node.lineno}: limiter.limit allows {limit}, above the default ({default})."
                    yield Fault(evidence, "Use @limited instead: the audit shows it as relaxed")
    app = subject.make({})
    app.add_url_rule("/audit/limited", "limited", public(limited("2 per minute")(partial(str))))
    browser = subject.browser(app)
    answers = [browser.open("/audit/limited") for _ in range(3)]
    if [answer.status_code for answer in answers] != [200, 200, 429] or answers[0].headers["RateLimit-Limit"] != "2":
        yield "A view has a limit of its own that does not count its requests."


def _main(text: str) -> str:
    return text.partition("<main")[2]
