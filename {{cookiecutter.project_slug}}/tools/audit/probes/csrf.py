"""2 CSRF: is a state-changing request accepted without the token of its own session?"""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isfunction
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import Any
from unittest import mock

from flask import Flask
from flask.views import MethodView
from flask_wtf import FlaskForm
from werkzeug.routing import Rule
from wtforms.form import BaseForm

from app.security.csp import REPORT_PATH
from app.security.csrf import EXEMPT, SHOWS_FORM_AGAIN, exempt
from app.security.declarations import declared_by
from app.security.findings import Finding
from app.visitors import public
from tests.lint.code import FOREIGN, own_files
from tests.lint.forms import Reasons, read_by_hand
from tools.audit.probes import is_pinned
from tools.audit.steps import Fault, Relaxed, probe
from tools.audit.subject import UNSAFE_METHODS, Browser, NoAnswer, NotApplicable, Subject, View, random_key

STALE = {"csrf_token": "x.y.z"}  # nosec B105 - belongs to no session
REACHED = "the view was reached"
# A verb that is the last part of a path, before its arguments.
VERB = re.compile(r"(?i)/(?:log[-_]?out|sign[-_]?out|delete|remove|cancel|destroy|revoke|end)(?:/<[^>]*>)*/?$")
# The names in the code of a view that shows a form, and that acts only on a POST.
SHOWS_FORM = re.compile(r"Form$|^(?:form_class|render_template|stream_template|validate_on_submit)$")
ACTS_ON_POST = frozenset(("validate_on_submit", "is_submitted", "method"))
DECLARED = "It is declared with @exempt, which is for requests that no cookie authenticates"


@probe("2.S1")
def flask_wtf_is_pinned(subject: Subject) -> Iterator[str]:
    """Read the requirements."""
    if not subject.own:
        _state_changing(subject)
    yield from is_pinned(subject, "flask-wtf")


@probe("2.S2")
def tokens_need_the_key(subject: Subject) -> Iterator[str]:
    """Send a token signed with another key, and one signed with a former key."""
    if not subject.own:
        if not _form_classes(subject):
            _guarded(subject)
        keys = subject.app.config.get("WTF_CSRF_SECRET_KEY") or subject.app.secret_key
        if subject.app.secret_key not in (keys if isinstance(keys, list | tuple) else [keys]):
            yield Relaxed(
                "WTF_CSRF_SECRET_KEY signs the tokens, not SECRET_KEY: make sure it is as strong and also rotated."
            )
        return
    rule = _guarded(subject)
    former, key = str(subject.app.secret_key), random_key()
    plain, rotated = (
        subject.make({"SECRET_KEY": key}),
        subject.make({"SECRET_KEY": key, "SECRET_KEY_FALLBACKS": former}),
    )
    for made_by, other, wanted, fault in (
        (subject.app, plain, False, "A token signed with another key is accepted."),
        (subject.app, rotated, True, "A token signed with the former key is refused."),
        (rotated, plain, True, "New tokens are still signed with the former key."),
    ):
        token, raw = _token(subject, made_by)
        session = subject.forge({"csrf_token": raw, "_born": int(time.time())}, other)
        browser = subject.browser(other)
        browser.take_cookie(session)
        if subject.reaches(rule, _unsafe(rule)[0], browser, data={"csrf_token": token}) != wanted:
            yield fault


@probe("2.S3")
def forms_are_flask_forms(subject: Subject) -> Iterator[str]:
    """Search for other forms, and for views that read form fields directly."""
    _state_changing(subject)
    for form in _form_classes(subject, BaseForm):
        if not {"FlaskForm", "QueryForm"} & {each.__name__ for each in form.__mro__}:
            yield f"{form.__module__}.{form.__name__} is not a FlaskForm."
    runs = _runs(subject)
    for file, tree in subject.trees.items():
        for line, what, reason in read_by_hand(tree, runs.get(str(subject.package / file), {})):
            evidence = f"{file}:{line}: {what}"
            yield Relaxed(f"{evidence}: {reason}", DECLARED) if reason else f"{evidence}."


@probe("2.S4")
def forms_render_their_token(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates."""
    _state_changing(subject)
    if not any("<form" in source.lower() for source in subject.templates.values()):
        raise NotApplicable("no template contains a form")
    yield from subject.static("CF04")


@probe("2.S5")
def routes_ask_for_the_token(subject: Subject) -> Iterator[str]:
    """Send each route the requests that another site could send."""
    rules = _state_changing(subject)
    token, _ = _token(subject)
    stale = _stale_token(subject)
    protected = _is_protected(subject)
    for why, places in _exempted(subject).items():
        yield Relaxed(f"No token is needed for {', '.join(map(' '.join, places))}: {why}", DECLARED)
    for rule in rules:
        view = subject.app.view_functions[rule.endpoint]
        for method in _unsafe(rule):
            reason = declared_by(subject.app, rule.endpoint, method, EXEMPT)
            if subject.own and reason:
                continue  # it is in the list, whatever else refuses a request there
            attacks = {
                "a missing token": {},
                "a wrong token": {"csrf_token": "x" + token[1:]},
                "another session's token": {"csrf_token": token},
            }
            for what, form in attacks.items():
                if subject.reaches(rule, method, subject.browser(), data=form):
                    evidence = f"{method} {rule.rule} accepts {what}"
                    if protected and not subject.own and (reason or _is_exempt(subject, rule, view)):
                        yield Relaxed(f"{evidence}: it is exempt, without a reason.")
                    elif not subject.own and _asks_itself(subject, view):
                        yield Relaxed(f"{evidence}: only its form checks the token, nothing before it.")
                    else:
                        yield f"{evidence}."
                    break
            else:
                if not subject.own and not protected:
                    yield f"{method} {rule.rule} is refused, but not because of the token: it may not require one."
    if stale and (protected or subject.own):
        rule, (browser, form) = _guarded(subject), stale
        if subject.reaches(rule, _unsafe(rule)[0], browser, data=form):
            yield "A token from two days ago is accepted."
    if protected and not set(UNSAFE_METHODS) <= set(subject.app.config.get("WTF_CSRF_METHODS", ())):
        yield "WTF_CSRF_METHODS omits state-changing methods."
    confirmed = {rule.rule for rule in subject.rules("POST") if _acts_only_on_post(subject, rule)}
    for rule in subject.rules("GET"):
        if VERB.search(rule.rule) and rule.rule not in confirmed:  # a GET there only asks
            yield Fault(
                f"GET {rule.rule} looks state-changing.", "Accept only POST: any link can make a browser send a GET"
            )
    yield from _stale_forms(subject)
    if subject.own:
        yield from _exemption_spreads(subject)


@probe("2.S6")
def other_origins_are_refused(subject: Subject) -> Iterator[str]:
    """Send a valid token from another site, and read the scripts."""
    rule = _guarded(subject)
    method = _unsafe(rule)[0]
    elsewhere = {
        "marked as cross-site by the browser": {"Sec-Fetch-Site": "cross-site"},
        "from another origin": {"Origin": "https://evil.example"},
        "from a host whose name begins like ours": {"Origin": f"https://{subject.host}.evil.example"},
        "from our host over http": {"Origin": f"http://{subject.host}"},
        "from a sandboxed frame": {"Origin": "null"},
        "from another site's page": {"Referer": "https://evil.example/"},
        "without an origin": {"Referer": ""},
    }
    for what, headers in elsewhere.items():
        browser = subject.browser()
        token = browser.token()
        if subject.reaches(rule, method, browser, data={"csrf_token": token}, headers=headers):
            fault = f"A request {what} is accepted with a valid token."
            yield fault if subject.own else Relaxed(fault)  # another site has no valid token
    browser = subject.browser()
    token = browser.token()
    if not subject.reaches(rule, method, browser, headers={"X-CSRFToken": token}):
        yield "The token in the header X-CSRFToken is not accepted."
    pages = [browser.open(subject.page.rule).text] if subject.own else subject.templates.values()
    scripts = {
        name: path.read_text(encoding="utf-8", errors="replace")
        for name, path in own_files(subject.package, "static/**/*.js")
    }
    senders = [name for name, text in scripts.items() if re.search(r"fetch\(|XMLHttpRequest", text)]
    if (subject.own or senders) and not any(re.search(r"csrf-token|csrf_token\(", page) for page in pages):
        yield "No <meta> passes the token to scripts."
    for name in senders:
        # A library leaves it to the page which requests have the token; without it, the app refuses them.
        if not name.endswith(".min.js") and not re.search(r"X-CSRFToken|csrfHeaders\(", scripts[name]):
            yield f"{name} sends requests without X-CSRFToken."
    for name, text in scripts.items():
        if "X-CSRFToken" in text:
            ours = re.search(r"(\w+)\s*=\s*[^;=]*\.origin\s*===?\s*(window\.)?location\.origin", text)
            if not ours or len(re.findall(rf"\b{ours[1]}\b", text)) < 2:
                yield f"{name} would send the token to another origin."


def _unsafe(rule: Rule) -> list[str]:
    return [method for method in UNSAFE_METHODS if method in (rule.methods or ())]


def _state_changing(subject: Subject) -> list[Rule]:
    if not (rules := subject.rules(*UNSAFE_METHODS)):
        raise NotApplicable("no route accepts another method than GET")
    if not subject.knows_visitors and "csrf" not in subject.app.extensions:
        raise NotApplicable("no code reads a session, a cookie or Basic credentials, which another site could abuse")
    return rules


def _guarded(subject: Subject) -> Rule:
    """Return a route that refuses a request without a token and accepts one with it."""
    fault = "no route refuses a request without a token"
    for rule in _state_changing(subject):
        if subject.reaches(rule, _unsafe(rule)[0], subject.browser()):
            continue
        browser = subject.browser()
        if subject.reaches(rule, _unsafe(rule)[0], browser, data={"csrf_token": browser.token()}):
            return rule
        fault = "no route accepts a request with its page's token and refuses one without"
    raise NoAnswer(fault)


def _is_protected(subject: Subject) -> bool:
    """Return whether a route requires a token. A refusal alone is no proof: a hook may have another reason for it."""
    try:
        return bool(_guarded(subject))
    except NoAnswer:
        return False


def _token(subject: Subject, app: Flask | None = None) -> tuple[str, str]:
    """Return a token of a new session, and the value that the session stores for it."""
    browser = subject.browser(app)
    token = browser.token()
    return token or "x" * 40, str(browser.session().get("csrf_token", ""))


def _stale_token(subject: Subject) -> tuple[Browser, dict[str, str]] | None:
    """Return a browser with a valid session, and a token from two days ago; None if sessions store no token."""
    now = time.time()
    browser = subject.browser()
    with mock.patch("time.time", return_value=now - 2 * 86400):
        token = browser.token()
        kept = browser.session()
    if not kept:
        return None
    value = subject.forge({**kept, "_born": int(now)})
    browser.take_cookie(value)
    return browser, {"csrf_token": token}


def _stale_forms(subject: Subject) -> Iterator[str]:
    """Search for views that lose the user's input if the token is stale, and for views that act on a stale token."""
    if not subject.own:
        return
    for rule in subject.rules("POST"):
        if "GET" in (rule.methods or ()) and not declared_by(subject.app, rule.endpoint, "POST", EXEMPT):
            with subject.view(rule.endpoint, lambda: "shown again"):
                answer = subject.browser().open(subject.url(rule), method="POST", data=STALE)
            lost, library = answer.text != "shown again" or answer.status_code != 400, subject.library_of(rule.endpoint)
            if lost and (library or any(map(SHOWS_FORM.search, _names_in(subject, rule, "GET", "POST")))):
                evidence = f"The user's input at {rule.rule} is lost if its token is stale"
                fix = "Mark the view with @form_view"
                yield (
                    Relaxed(f"{evidence}: it is a route of {library}.", fix) if library else Fault(f"{evidence}.", fix)
                )
    for rule in subject.rules(*UNSAFE_METHODS):
        for method in _unsafe(rule):
            shows_again = declared_by(subject.app, rule.endpoint, method, SHOWS_FORM_AGAIN)
            if shows_again and "validate_on_submit" not in _names_in(subject, rule, method):
                evidence = f"{method} {rule.rule} would act on a stale token."
                yield Fault(evidence, "Act only after form.validate_on_submit(), as @form_view requires")


def _acts_only_on_post(subject: Subject, rule: Rule) -> bool:
    """Return whether a route that takes POST does something else for a GET, or nothing."""
    apart = subject.run_by(rule.endpoint, "GET") is not subject.run_by(rule.endpoint, "POST")
    return apart or "GET" not in (rule.methods or ()) or bool(ACTS_ON_POST & _names_in(subject, rule, "POST"))


def _names_in(subject: Subject, rule: Rule, *methods: str) -> set[str]:
    """Return the names in the code that a view runs for these methods, and in what it calls of its class."""
    kind = getattr(subject.innermost(rule.endpoint), "view_class", None)
    names: set[str] = set()
    waiting: list[Any] = [getattr(subject.run_by(rule.endpoint, method), "__code__", None) for method in methods]
    for code in waiting:  # this also visits what the loop appends
        new = {*getattr(code, "co_names", ())} - names
        names |= new
        waiting += [each for each in getattr(code, "co_consts", ()) if isinstance(each, CodeType)]
        called = (getattr(kind, name, None) for name in new)
        waiting += [inspect.unwrap(each).__code__ for each in called if isfunction(each)]
    return names


def _exempted(subject: Subject) -> dict[str, list[tuple[str, str]]]:
    """Return each reason of an exemption, with the methods and paths that it holds for."""
    found: dict[str, list[tuple[str, str]]] = {}
    for rule in subject.app.url_map.iter_rules() if subject.own else ():
        # From another site's page, a WebSocket is as dangerous as a POST.
        for method in ["GET"] if rule.websocket else _unsafe(rule):
            reason = declared_by(subject.app, rule.endpoint, method, EXEMPT)
            if reason and rule.rule != REPORT_PATH:
                found.setdefault(reason, []).append((method, rule.rule))
    return found


def _runs(subject: Subject) -> dict[str, dict[int, Reasons]]:
    """Return why views, and hooks of their blueprints, run without a token: by the file and first line of each."""
    found: dict[str, dict[int, Reasons]] = {}
    for rule in subject.rules("GET", *UNSAFE_METHODS) if subject.own else ():
        hooks = (subject.app.before_request_funcs.get(name, ()) for name in rule.endpoint.split(".")[:-1])
        for method in rule.methods or ():
            reason = declared_by(subject.app, rule.endpoint, method, EXEMPT) if method in UNSAFE_METHODS else ""
            run = subject.run_by(rule.endpoint, method)
            for code in (getattr(function, "__code__", None) for function in (run, *chain(*hooks))):
                if code:
                    found.setdefault(code.co_filename, {}).setdefault(code.co_firstlineno, set()).add(reason)
    return found


def _exemption_spreads(subject: Subject) -> Iterator[str]:
    """Add an exempt view, and views that are like it in one way or another and that nobody has exempted."""
    mark = exempt("The audit tries what an exemption opens.")

    class Parent(MethodView):
        def post(self) -> str:
            return REACHED

    class Child(Parent):
        pass

    views: dict[str, tuple[Callable[..., Any], bool]] = {
        "a partial": (mark(partial(_view())), True),
        "a view": (mark(_view()), True),
        "another view of the same name": (_view(), False),
        "a class": (mark(Parent).as_view("parent"), True),
        "a class derived from it": (Child.as_view("child"), False),
    }
    app = subject.make({})
    for number, (view, _) in enumerate(views.values()):
        app.add_url_rule(f"/audit/{number}", f"audit-{number}", public(view), methods=["POST"])
    for number, (what, (_, opened)) in enumerate(views.items()):
        answer = subject.browser(app).open(f"/audit/{number}", method="POST")
        if opened and answer.text != REACHED:
            yield f"The exemption of {what} comes to nothing: a request without a token gets a {answer.status_code}."
        elif not opened and answer.text == REACHED:
            yield f"An exemption also opens {what}."


def _view() -> Callable[[], str]:
    """Make a view; all of them have one name."""

    def view() -> str:
        return REACHED

    return view


def _is_exempt(subject: Subject, rule: Rule, view: View) -> bool:
    """Return whether Flask-WTF exempts a view of a foreign app from the token."""
    name = f"{view.__module__}.{getattr(view, '__name__', '')}"
    protection, blueprint = subject.app.extensions.get("csrf"), rule.endpoint.rpartition(".")[0]
    return name in getattr(protection, "_exempt_views", ()) or blueprint in getattr(
        protection, "_exempt_blueprints", ()
    )


def _asks_itself(subject: Subject, view: View) -> bool:
    """Return whether the code of a foreign view validates a form of Flask-WTF, which requires the token."""
    if not _form_classes(subject) or subject.app.config.get("WTF_CSRF_ENABLED") is False:
        return False
    places = [inspect.unwrap(view), *vars(getattr(view, "view_class", object)).values()]
    names = {code.co_names for each in places if (code := getattr(each, "__code__", None))}
    return any("validate_on_submit" in each for each in names)


def _form_classes(subject: Subject, base: type = FlaskForm) -> list[type]:
    """Return the form classes of the app's own modules."""
    found = []
    for form in _subclasses(base):
        module = sys.modules.get(form.__module__)
        file = Path(getattr(module, "__file__", None) or "/").resolve()
        folder = subject.package if subject.own else subject.project
        parts = file.relative_to(folder).parts if file.is_relative_to(folder) else FOREIGN
        if not FOREIGN & set(parts) and getattr(module, form.__name__, None) is form:
            found.append(form)
    return found


def _subclasses(base: type) -> Iterator[type]:
    found: type
    for found in base.__subclasses__():
        yield found
        yield from _subclasses(found)
