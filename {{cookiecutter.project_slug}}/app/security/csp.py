"""Mitigation 3, Content Security Policy: injected markup must not run scripts, load resources or send data.

Nothing inline, nothing from elsewhere; a script runs only with the nonce of its response. ``relax`` of headers.py
relaxes it. A policy that a view sets itself, as downloads do, is kept.
Source: W3C CSP Level 3; OWASP Content Security Policy Cheat Sheet; ASVS 5.0 V3.4.3, V3.4.6, V3.4.7,
V3.6.1, V15.2.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from flask import Flask, Response, g, request
from flask_talisman import Talisman

from app import relaxations
from app.security import headers
from app.security.findings import Finding
from app.security.urls import form_targets

NUMBER = 3
TITLE = "Content Security Policy"
SUMMARY = "The browser runs only this app's own scripts, and reports every violation to the app."

REPORT_PATH = "/csp-reports"

POLICY = {
    "default-src": "'none'",
    "script-src": "'strict-dynamic'",  # Talisman adds the nonce
    "style-src": "'self'",
    "img-src": "'self'",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "frame-ancestors": "'none'",
    # DOM sinks (innerHTML, eval, script.src …) accept no strings, and no script can create a Trusted Types policy.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
    "report-uri": REPORT_PATH,
    "report-to": headers.REPORT_GROUP,
    "upgrade-insecure-requests": "",
}
# Browsers with report-to support ignore report-uri if both are set, and over http they then send no report.
ONLY_OVER_HTTPS = ("report-to", "upgrade-insecure-requests")
NONCE_IN = ["script-src", "script-src-elem"]


@cache
def sections(relaxed: tuple[headers.relax, ...], targets: str, https: bool) -> list[tuple[str, str]]:
    """Return the policy that ``relaxed`` leaves, as few pairs for Talisman. Computed once for each combination.

    ``targets`` are the hosts that views may redirect to after a form.

    Talisman adds the nonce to its sections, and joins all pairs for each response: so the others are one pair already.
    """
    policy: dict[str, str | None] = {name: POLICY[name] for name in POLICY if https or name not in ONLY_OVER_HTTPS}
    policy["form-action"] = f"{policy['form-action']} {targets}".strip()
    for each in relaxed:
        policy |= {name: value or None for name, value in each.csp.items()}
    kept = {name: value for name, value in policy.items() if value is not None}
    first, _, rest = "; ".join(f"{name} {kept[name]}".strip() for name in kept if name not in NONCE_IN).partition(" ")
    return [*((name, kept[name]) for name in NONCE_IN if name in kept), (first, rest)]


class _Policy:
    """What Talisman takes for a dictionary: it asks for the sections of each response's own policy."""

    def items(self) -> list[tuple[str, str]]:
        return sections(g.relaxed, form_targets(), request.is_secure)


def init_app(app: Flask) -> None:
    """Send the policy with each response. headers.py sends the other headers."""
    app.extensions["relaxations"] = tuple(relaxations.RELAXATIONS)
    app.after_request(_finish)
    Talisman(
        app,
        content_security_policy=_Policy(),
        content_security_policy_nonce_in=NONCE_IN,
        content_security_policy_report_only=app.config["CSP_REPORT_ONLY"],
        content_security_policy_report_uri=REPORT_PATH,
        frame_options=None,
        permissions_policy=None,
        session_cookie_samesite=app.config["SESSION_COOKIE_SAMESITE"],
        # Its redirect trusts any client's Host and X-Forwarded-Proto. headers.py does both instead.
        force_https=False,
        strict_transport_security=False,
    )
    app.after_request(_begin)


def check(app: Flask) -> Iterator[Finding]:
    """Report a policy that does not block violations."""
    if app.config["CSP_REPORT_ONLY"]:
        yield Finding("CP04", "relaxed", "The policy only reports.", "Remove CSP_REPORT_ONLY when the trial is over.")


# After-request hooks run in reverse order. This one runs before Talisman's, which overwrites a view's own values …
def _begin(response: Response) -> Response:
    g.relaxed = headers.relaxations()
    own = ("Content-Security-Policy", "Referrer-Policy")
    g.views_own = {name: response.headers[name] for name in own if name in response.headers}
    return response


# … and this one runs after it.
def _finish(response: Response) -> Response:
    if request.is_secure:
        response.headers["Reporting-Endpoints"] = f'{headers.REPORT_GROUP}="{REPORT_PATH}"'
    del response.headers["Referrer-Policy"]  # Talisman always sends one; headers.py sends the one that holds
    response.headers.update(g.pop("views_own", {}))
    request.environ[headers.SENT] = headers.headers_with(g.relaxed)
    return response
