"""The endpoint for browsers' reports (3.S5), and ``flask csp-reports``, which summarizes them.

Browsers report what the Content Security Policy, COEP, COOP and Permissions-Policy block. Any client can post anything
here, so only a few sanitized fields of a report are logged and counted.
Source: W3C CSP Level 3, 5.3; W3C Reporting API; HTML Standard, 7.1.3, 7.1.4; W3C Permissions Policy; ASVS 5.0 V3.4.7.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import click
from flask import Blueprint, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from app import paths
from app.redaction import redact, redact_path
from app.security.csp import POLICY, REPORT_PATH
from app.security.csrf import exempt
from app.security.errors import refuse
from app.security.headers import DIRECTIVES
from app.security.rate_limits import limited
from app.security.urls import normal_host
from app.visitors import public

bp = Blueprint("csp_reports", __name__, cli_group=None)

MAX_BODY = 16 * 1024  # bytes
MAX_REPORTS = 20  # per request
MAX_FIELD = 200  # characters
MAX_FILE = 1024 * 1024  # bytes; the previous file takes as much again

# Browser extensions inject code into pages, and the policy blocks it. That is not a fault of the page.
EXTENSION = re.compile(r"(?i)(chrome|resource|[a-z-]*extension|webkit-masked-url|safari-[a-z-]*)(:|$)")
KEYWORD = re.compile(r"[a-z-]{1,40}")

# The types of the Reporting API's reports → the header that blocks, if they name no directive. Others are ignored.
TYPES = {
    "csp-violation": "",
    "coep": "cross-origin-embedder-policy",
    "coop": "cross-origin-opener-policy",
    "permissions-policy-violation": "permissions-policy",
}
# Our field → its names in a report of the Reporting API and of report-uri.
FIELDS = {
    "directive": ("effectiveDirective", "effective-directive", "violated-directive"),
    "blocked": ("blockedURL", "blocked-uri", "nextResponseURL", "previousResponseURL", "openedWindowURL", "policyId"),
    "document": ("documentURL", "document-uri"),
    "source": ("sourceFile", "source-file"),
}

# What was blocked → what would let it through. {name} is the directive, {value} the strict value and what was blocked.
OPEN_SOURCE = """@relax("why", csp={{"{name}": "{value}"}})"""
OPEN_DOM = '@relax("why", csp={{"require-trusted-types-for": None, "trusted-types": None}})'
DOORS = {
    ("script-src", "eval"): """@relax("why", csp={{"script-src": "'strict-dynamic' 'unsafe-eval'"}})""",
    ("script-src", "inline"): "move the code to a file in app/static/, and load it with a nonce",
    ("style-src", "inline"): "move the style to a class in app/static/app.css",
    "script-src": 'nonce="{{{{ csp_nonce() }}}}" on the element, and ' + OPEN_SOURCE,
    "require-trusted-types-for": OPEN_DOM,
    "trusted-types": OPEN_DOM,
    "cross-origin-embedder-policy": "crossorigin on the element if its host sends CORS headers, else "
    '@relax("why", headers={{"Cross-Origin-Embedder-Policy": "credentialless"}}), with None for a frame',
    "cross-origin-opener-policy": '@relax("why", headers={{"Cross-Origin-Opener-Policy": "same-origin-allow-popups"}})',
    "permissions-policy": '@relax("why", headers={{"Permissions-Policy": "{blocked}=(self)"}})',
}


@bp.post(REPORT_PATH)
@public
@exempt("Browsers send reports on their own, without a token; a report only adds to a log and a counter.")
@limited("csp_report")
def receive() -> tuple[str, int]:
    """Accept one report or a list and return 204. Invalid requests get a 400, 413 or 415."""
    request.max_content_length = MAX_BODY
    body = request.get_data()
    if request.mimetype not in ("application/csp-report", "application/reports+json"):
        refuse(415, "Only violation reports of browsers are accepted here.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        refuse(400, "This is not a report.")
    for report in _violations(found):
        words = {name: _harmless(name, report) for name in FIELDS}
        noise = words["blocked"] == "about" or EXTENSION.match(words["blocked"]) or EXTENSION.match(words["source"])
        if words["document"] and words["directive"] and not noise:
            line = json.dumps(words)
            current_app.logger.warning("CSP violation %s", line)
            _keep(line)
    return "", 204


def _violations(found: object) -> Iterator[dict[str, Any]]:
    reports: list[Any] = found if isinstance(found, list) else [found]
    if not all(isinstance(report, dict) for report in reports):
        refuse(400, "This is not a report.")
    for report in reports[:MAX_REPORTS]:
        kind = report.get("type")
        body = report.get("body") if isinstance(kind, str) and kind in TYPES else report.get("csp-report")
        if isinstance(body, dict):
            header = TYPES.get(str(kind))
            yield body | {"effectiveDirective": header, "documentURL": report.get("url")} if header else body


def _harmless(name: str, report: dict[str, Any]) -> str:
    """Return one field of a report without secret or malicious content, or ''."""
    value = next((report[key] for key in FIELDS[name] if isinstance(report.get(key), str)), "")
    if name == "directive":
        value = value.split(" ")[0]
    if KEYWORD.fullmatch(value):
        return value  # inline, eval, data …; or about, the document of a srcdoc frame
    try:
        url = urlsplit(value)
        host = quote(url.hostname or "", safe=":[]") + (f":{url.port}" if url.port else "")
    except ValueError:
        return ""
    is_ours = normal_host(url.netloc) == request.host
    path = redact_path(unquote(url.path), _route(unquote(url.path)) if is_ours else None)
    page = path if is_ours else ""  # pages of other sites don't have our policy
    address = f"{url.scheme}://{host}{path}" if host else url.scheme
    # Without the query, which may contain tokens, and redacted before it is cut: half a token would not be recognized.
    return redact(page if name == "document" else address)[:MAX_FIELD]


def _route(path: str) -> Rule | None:
    adapter = current_app.create_url_adapter(request)
    path = path.removeprefix(request.root_path)
    methods = adapter.allowed_methods(path) if adapter else ()
    try:
        return adapter.match(path, method=next(iter(methods)), return_rule=True)[0] if adapter and methods else None
    except (HTTPException, UnicodeError):  # the router redirects two slashes, and can't quote a surrogate
        return None


def _keep(line: str) -> None:
    path = _file()
    try:
        if path.exists() and path.stat().st_size > MAX_FILE:
            path.replace(path.with_suffix(".old"))
        paths.make_private_folder(path.parent)
        with open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(line + "\n")
    except OSError:
        current_app.logger.exception("The CSP report could not be stored")


def _file() -> Path:
    return Path(current_app.instance_path) / "csp-reports.jsonl"


@bp.cli.command("csp-reports")
@click.option("--limit", default=20, show_default=True, help="How many kinds of violation to show.")
def summary(limit: int) -> None:
    """Count what browsers blocked, by directive or header, blocked URL and page. The most frequent come first.

    Below each stands what lets it through on that page. Anybody can send a report, so check that the page needs it.
    """
    kinds: Counter[tuple[str, str, str]] = Counter()
    for path in (_file().with_suffix(".old"), _file()):
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    report = json.loads(line)
                    url = urlsplit(report["blocked"])
                    blocked = f"{url.scheme}://{url.netloc}" if url.netloc else report["blocked"]
                    kinds[report["directive"], blocked, report["document"]] += 1
                except (ValueError, LookupError, TypeError):  # a partial line, from a full disk or a crash
                    continue
    for (directive, blocked, document), count in kinds.most_common(limit):
        click.echo(f"{count:>6}  {directive:<20} {blocked or '-':<30} {document}")
        click.echo(f"{'':>6}  {_door(directive, blocked)}")
    if not kinds:
        click.echo("No violation was reported.")


def _door(directive: str, blocked: str) -> str:
    """Return what would let ``blocked`` through; '' if the report doesn't say enough."""
    name = re.sub("-(elem|attr)$", "", directive)
    source = blocked if "://" in blocked else f"{blocked}:"  # data:, blob:
    value = f"{POLICY.get(name, '')} {source}".replace("'none'", "").strip()
    door = DOORS.get((name, blocked)) or DOORS.get(name) or (OPEN_SOURCE if name in DIRECTIVES and blocked else "")
    return door.format(name=name, blocked=blocked, value=value)
