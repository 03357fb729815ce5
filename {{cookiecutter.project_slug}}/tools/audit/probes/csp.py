"""3 Content Security Policy: what does the browser still run, load or send?"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from flask import Flask, abort, request
from werkzeug.datastructures import Headers

from app.security.headers import relax
from app.security.urls import form_targets
from app.views import csp_reports
from app.visitors import public
from tests.policies import directives, lets_through, looser, relaxed_at, with_relaxations
from tools.audit.probes import DECLARED, SIGNED, is_pinned
from tools.audit.steps import Fault, Relaxed, probe
from tools.audit.subject import Subject

# Directive → the sources that it may allow. A missing directive falls back to default-src.
MOST = {
    "default-src": {"'none'"},
    "script-src": {"'strict-dynamic'", "'nonce'", "'self'", "'none'"},
    "style-src": {"'self'", "'nonce'", "'none'"},
    "img-src": {"'self'", "'none'"},
    "connect-src": {"'self'", "'none'"},
    "font-src": {"'self'", "'none'"},
    "media-src": {"'self'", "'none'"},
    "frame-src": {"'self'", "'none'"},
    "worker-src": {"'self'", "'none'"},
    "manifest-src": {"'self'", "'none'"},
    "form-action": {"'self'", "'none'"},
    "base-uri": {"'none'"},
    "object-src": {"'none'"},
    "frame-ancestors": {"'none'"},
}
INLINE = re.compile(
    r"(?i)<(?P<tag>script|img|iframe|form|link(?![^>]*\srel=[\"']?(?:canonical|alternate|author|license|help|me|next|prev|search)))"
    r"\b[^>]*\s(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//(?P<address>[^\s\"'>{}]*)[^>]*"
    r"|<script(?![^>]*\b(?:src|type=[\"']?application/(?:[\w.-]+\+)?json)\b)|(?P<style><style\b|<[^>{}]+\sstyle\s*=)|<[^>{}]+\son[a-z]+\s*="
)
MAIL = re.compile("(?:^|/)e?mails?/")  # no policy applies to a mail, and mail programs need styles inline
# What it is → the directives that may let it through, by their start. A script with a nonce may come from anywhere.
LET_BY = {
    "img": "img-|default-",
    "iframe": "frame-s|child-|default-",
    "form": "form-",
    "style": "style-",
    "code": "(?!)",
}
TO_FILES = "Move it to a file in app/static/; data for a script goes into a data attribute, by tojson"

# Required directives. All but script-src have no fallback.
NEEDED = ("default-src", "script-src", "form-action", "base-uri", "frame-ancestors")


@probe("3.S1")
def talisman_is_pinned(subject: Subject) -> Iterator[str]:
    """Read the requirements."""
    yield from is_pinned(subject, "flask-talisman")


@probe("3.S2")
def every_response_has_a_policy(subject: Subject) -> Iterator[str]:
    """Request a page, a file, an unknown path, and a page while sessions fail."""
    paths = (subject.page.rule, "/audit/nothing/here", subject.static_file("nothing.css"))
    answers = {path: subject.browser().open(path).headers for path in paths}
    if subject.own:
        with mock.patch.object(subject.app.session_interface, "open_session", side_effect=OSError):
            answers["A failure outside of Flask"] = subject.browser().open(subject.page.rule).headers
    for what, headers in answers.items():
        policy = headers.get("Content-Security-Policy") or headers.get("Content-Security-Policy-Report-Only", "")
        if not policy:
            yield f"{what} has no policy."
        elif subject.own and "frame-ancestors" not in policy:
            yield f"{what} has a policy that lets any site frame it."


@probe("3.S3")
def policy_is_strict(subject: Subject) -> Iterator[str]:
    """Read the policy of a page, and compare its nonces."""
    policy = policy_of(subject, subject.page.rule)
    if not policy:
        yield "The page has no policy that blocks anything."
        return
    relaxed = {name: each.reason for each in relaxed_at(subject.app, subject.page.rule) for name in each.csp}
    with subject.app.test_request_context(base_url=f"https://{subject.host}"):
        targets = form_targets()  # which 10.S2 shows
    for name, evidence in _weak(policy, targets):
        yield Relaxed(f"{evidence} ({relaxed[name]})", DECLARED) if name in relaxed else evidence
    first, second = (_nonces(subject) for _ in range(2))
    if first[0] and first[0] == second[0]:
        yield "The nonce is the same in two responses."
    for header, in_page in (first, second):
        if set(in_page) - {header}:
            yield "A script of the page has no nonce, or a different one from the policy's."
            break


def _weak(policy: dict[str, list[str]], targets: str) -> Iterator[tuple[str, str]]:
    """Yield the directives of a policy that let through more than they should, with what that is.

    ``targets`` are the hosts that ``may_redirect_to`` adds to ``form-action``.
    """
    for name in NEEDED:
        if name not in policy:
            instead = ", default-src replaces it" if name == "script-src" and "default-src" in policy else ""
            yield name, f"{name} is missing{instead}."
    for name, most in MOST.items():
        if more := set(policy.get(name, ())) - most - set(targets.split() if name == "form-action" else ()):
            yield name, f"{name} allows {' '.join(sorted(more))}."
    if not {"'nonce'", "'strict-dynamic'"} <= set(policy.get("script-src", ())):
        yield "script-src", "script-src requires no nonce with 'strict-dynamic'."
    if policy.get("require-trusted-types-for") != ["'script'"]:
        yield "require-trusted-types-for", "require-trusted-types-for 'script' is missing."
    if "upgrade-insecure-requests" not in policy:
        yield "upgrade-insecure-requests", "upgrade-insecure-requests is missing."


@probe("3.S4")
def views_are_not_loosened(subject: Subject) -> Iterator[str]:
    """Compare the policies of all routes, and search the templates for code that a strict policy would block."""
    for each, where in subject.relaxed_views().items():
        if each.csp:
            changes = "; ".join(f"{name} {value or 'removed'}" for name, value in each.csp.items())
            yield Relaxed(f"{where}: {changes} ({each.reason})", DECLARED)
    usual = _texts(policy_of(subject, "/audit/nothing/here" if subject.own else subject.page.rule))
    answers = {rule.rule: headers for rule, headers in subject.answers}
    for rule in subject.rules("GET"):
        with subject.view(rule.endpoint, lambda: ""):
            policies = [policy_of(subject, subject.url(rule))]
        if rule.rule in answers:
            policies.append(_parsed(answers[rule.rule]))
        may = with_relaxations(usual, relaxed_at(subject.app, subject.url(rule)))
        # A redirect or an error page keeps the strict policy, also where a view replaces a directive.
        unusual = [_texts(policy) for policy in policies if looser(_texts(policy), usual)]
        if more := {name for policy in unusual for name in looser(policy, may)}:
            yield f"{rule.rule}: {', '.join(sorted(more))} differs, without a reason."
    for name, source in subject.templates.items():
        for inline in INLINE.finditer(source):
            if MAIL.search(name) and (inline["style"] or inline["tag"] == "img"):
                continue
            line = source.count("\n", 0, inline.start()) + 1
            evidence = f"{name}:{line}: Code that is inline or from another origin, which a strict policy blocks."
            kind = (inline["tag"] or ("style" if inline["style"] else "code")).lower()
            reason = _reason_for(subject, kind, inline["address"] or "'unsafe-inline'")
            fix = DECLARED if reason else "" if inline["tag"] else TO_FILES
            yield Relaxed(f"{evidence} ({reason})", fix) if reason else Fault(evidence, fix)
    yield from _relaxing(subject)
    if subject.own:
        with subject.instead({"CSP_REPORT_ONLY": True}):
            headers = subject.browser().open(subject.page.rule).headers
        if "Content-Security-Policy-Report-Only" not in headers:
            yield "CSP_REPORT_ONLY does not make the policy report only."


def _reason_for(subject: Subject, kind: str, address: str) -> str:
    """Return why the app lets a part of a template through; '' if nothing declares it."""
    for each in subject.relaxed_views():
        for name, value in each.csp.items():
            sources = (value or "").split() if re.match(LET_BY.get(kind, ""), name) else []
            if any(lets_through(source, address) for source in sources):
                return each.reason
    with subject.app.test_request_context(base_url=f"https://{subject.host}"):
        targets = form_targets().split() if kind == "form" else []
    return "@may_redirect_to" if address.partition("/")[0].lower() in targets else ""


@probe("3.S5")
def violations_are_reported(subject: Subject) -> Iterator[str]:
    """Send reports as browsers do, and as attackers do."""
    headers = subject.browser().open(subject.page.rule).headers
    policy = policy_of(subject, subject.page.rule)
    where = next(iter(policy.get("report-uri", [])), "")
    if not where:
        yield "The policy has no report-uri."
        return
    group = next(iter(policy.get("report-to", [])), "")
    if not group or f'{group}="{where}"' not in headers.get("Reporting-Endpoints", ""):
        yield "report-to and Reporting-Endpoints do not name the same URL."
    if not subject.own:
        return
    page = f"https://{subject.host}/audit/{SIGNED}"
    old = {"document-uri": f"{page}?token=hunter2", "violated-directive": "img-src", "effective-directive": "img-src"}
    blocked = 'https://evil.example/x"<b>\n2026 ERROR forged?q=hunter2'
    foreign = "https://foreign.example/page"
    attempts = [
        ("application/csp-report", {"csp-report": {**old, "blocked-uri": blocked}}, 204),
        (
            "application/reports+json",
            [
                {
                    "type": "csp-violation",
                    "body": {"documentURL": page, "effectiveDirective": "font-src", "blockedURL": "https://b.example/"},
                }
            ],
            204,
        ),
        (
            "application/reports+json",
            [{"type": "coep", "url": page, "body": {"type": "corp", "blockedURL": "https://tiles.example/?q=hunter2"}}],
            204,
        ),
        ("application/csp-report", {"csp-report": {**old, "blocked-uri": "chrome-extension://abc"}}, 204),
        ("application/csp-report", {"csp-report": {**old, "document-uri": foreign}}, 204),
        ("application/csp-report", {"csp-report": {**old, "x": "y" * 50_000}}, 413),
        ("application/csp-report", ["nonsense"], 400),
    ]
    start = len(subject.log.getvalue())
    for content_type, body, status in attempts:
        answer = subject.browser().open(where, method="POST", data=json.dumps(body), content_type=content_type)
        if answer.status_code != status:
            yield f"{where} answers {answer.status_code} instead of {status}."
    logged = [line for line in subject.log.getvalue()[start:].splitlines() if "CSP violation" in line]
    if len(logged) != 3:
        yield f"{len(logged)} reports were logged, instead of the 3 valid ones."
    summary = subject.run("csp-reports")
    if re.search(rf"hunter2|{SIGNED}|foreign\.example|<b>|ERROR forged", "".join([*logged, summary])):
        yield "Secret, foreign or forged parts of reports are logged, or kept."
    if "evil.example" not in summary or "font-src" not in summary:
        yield "flask csp-reports does not summarize the reports."
    if "https://tiles.example" not in summary or "@relax(" not in summary:
        yield "flask csp-reports does not say what opens the page for what was blocked."
    many = json.dumps([{"type": "csp-violation", "body": {"documentURL": page, "effectiveDirective": "img-src"}}] * 100)
    start = len(subject.log.getvalue())
    subject.browser().open(where, method="POST", data=many, content_type="application/reports+json")
    if subject.log.getvalue()[start:].count("CSP violation") > 50:
        yield "One request may bring any number of reports."
    counts = [int(line.split()[0]) for line in subject.run("csp-reports").splitlines()[::2]]
    if counts != sorted(counts, reverse=True) or len(counts) < 3:
        yield "flask csp-reports does not show the most frequent first."
    with mock.patch.object(csp_reports, "MAX_FILE", 500):
        for _ in range(6):
            subject.browser().open(where, method="POST", data=many, content_type="application/reports+json")
    if sum(path.stat().st_size for path in Path(subject.app.instance_path).glob("csp-reports*")) > 8_000:
        yield "The file of the reports grows without limit."
    own = subject.browser().open(where, method="POST", data="[]").headers.get("RateLimit-Limit")
    if own and own == headers.get("RateLimit-Limit"):
        yield "Reports have no limit of their own."
    flood = subject.browser()
    answers = [flood.open(where, method="POST", data="[]", content_type="text/plain").status_code for _ in range(70)]
    if answers[-1] != 429:
        yield "A flood of reports is not stopped."


def _relaxing(subject: Subject) -> Iterator[str]:
    """Relax one view, and compare its policy with those of other views."""
    if not subject.own:
        return
    app: Flask = subject.app
    endpoint, elsewhere = subject.page.endpoint, "https://relaxed.audit.example"
    mark = relax("the audit's reason", csp={"img-src": f"'self' {elsewhere}"})
    view = public(mark(lambda: abort(404) if request.args else ""))
    with mock.patch.dict(app.view_functions, {endpoint: view}):
        relaxed = policy_of(subject, subject.page.rule)
        others = [policy_of(subject, "/audit/nothing/here"), policy_of(subject, f"{subject.page.rule}?fail=1")]
        reasons = [each.reason for each in subject.relaxed_views()]
    fresh = subject.make({})  # created after the view was relaxed: in an app, decorators run before create_app
    everywhere = subject.browser(fresh).open(subject.page.rule).headers.get("Content-Security-Policy", "")
    if elsewhere not in relaxed.get("img-src", ()):
        yield "@relax does not relax its view."
    if elsewhere in str(others) or elsewhere in everywhere:
        yield "@relax relaxes other views or error pages as well."
    if "the audit's reason" not in reasons:
        yield "A view that @relax relaxes does not say why."
    with contextlib.suppress(ValueError):
        relax(" ", csp={"img-src": elsewhere})
        yield "@relax needs no reason."


def policy_of(subject: Subject, path: str) -> dict[str, list[str]]:
    """Return the enforced policy of ``path``, with every nonce replaced by ``'nonce'``."""
    return _parsed(subject.browser().open(path).headers)


def _parsed(headers: Headers) -> dict[str, list[str]]:
    header = re.sub(r"'nonce-[^']*'", "'nonce'", headers.get("Content-Security-Policy", ""))
    return {name: value.split() for name, value in directives(header).items()}


def _texts(policy: dict[str, list[str]]) -> dict[str, str]:
    return {name: " ".join(words) for name, words in policy.items()}


def _nonces(subject: Subject) -> tuple[str, list[str]]:
    """Return the nonce of the policy, and those of the page's scripts ('' for a script without one)."""
    page = subject.browser().open(subject.page.rule)
    header = re.search(r"'nonce-([^']*)'", page.headers.get("Content-Security-Policy", ""))
    scripts = re.findall(r"<script\b([^>]*)>", page.text)
    found = [re.search(r'nonce="([^"]*)"', script) for script in scripts]
    return header[1] if header else "", [match[1] if match else "" for match in found]
