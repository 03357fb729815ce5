"""Mitigation 3, Content Security Policy: injected markup must not run scripts, load resources or send data.

Nothing inline, nothing from elsewhere; a script runs only with the nonce of its response. ``relax_csp`` relaxes the
policy of one view. A policy that a view sets itself, as downloads do, is kept.
Source: W3C CSP Level 3; OWASP Content Security Policy Cheat Sheet; ASVS 5.0 V3.4.3, V3.4.6, V3.4.7,
V3.6.1, V15.2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flask import Flask, Response, g, request
from flask_talisman import Talisman

from app.security.findings import Finding
from app.security.headers import HEADERS
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
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "frame-ancestors": "'none'",
    # DOM sinks (innerHTML, eval, script.src …) accept no strings, and no script can create a Trusted Types policy.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
    "report-uri": REPORT_PATH,
}

POLICY_HEADERS = ("Content-Security-Policy", "Content-Security-Policy-Report-Only")

talisman = Talisman()

View = TypeVar("View", bound=Callable[..., Any])


def relax_csp(reason: str, **directives: str) -> Callable[[View], View]:
    """Relax the policy of one view for ``reason``, which the audit shows.

    ``directives`` replace those of the policy; write dashes as underscores. Example::

        @relax_csp("map tiles", img_src="'self' https://tiles.example")
    """
    if not reason.strip():
        raise ValueError("A relaxed policy needs a reason.")
    changes = {name.replace("_", "-"): value for name, value in directives.items()}

    def mark(view: View) -> View:
        view.csp_relaxed = (reason, changes)  # type: ignore[attr-defined]
        return talisman(content_security_policy=POLICY | changes)(view)  # type: ignore[no-any-return]

    return mark


def init_app(app: Flask) -> None:
    """Send the policy and Talisman's other headers, except HSTS (headers.py), with each response."""
    app.after_request(_finish)
    talisman.init_app(
        app,
        content_security_policy=POLICY,
        content_security_policy_nonce_in=["script-src"],
        content_security_policy_report_only=app.config["CSP_REPORT_ONLY"],
        content_security_policy_report_uri=REPORT_PATH,
        frame_options=HEADERS["X-Frame-Options"],
        permissions_policy=HEADERS["Permissions-Policy"],
        referrer_policy=HEADERS["Referrer-Policy"],
        session_cookie_samesite=app.config["SESSION_COOKIE_SAMESITE"],
        # Its redirect trusts any client's Host and X-Forwarded-Proto. headers.py does both instead.
        force_https=False,
        strict_transport_security=False,
    )
    app.after_request(_keep_the_views_own)


def check(app: Flask) -> Iterator[Finding]:
    """Report a policy that does not block violations."""
    if app.config["CSP_REPORT_ONLY"]:
        yield Finding("CP04", "relaxed", "The policy only reports.", "Remove CSP_REPORT_ONLY when the trial is over.")


# After-request hooks run in reverse order. This one runs before Talisman's, which overwrites a view's own values …
def _keep_the_views_own(response: Response) -> Response:
    own = ("Content-Security-Policy", "Permissions-Policy", "Referrer-Policy")
    g.views_own = {name: response.headers[name] for name in own if name in response.headers}
    return response


# … and this one runs after it.
def _finish(response: Response) -> Response:
    if targets := form_targets():
        for name in POLICY_HEADERS:
            if name in response.headers:
                more = f"form-action 'self' {targets}"
                response.headers[name] = response.headers[name].replace("form-action 'self'", more)
    if request.is_secure:
        # Browsers with report-to support ignore report-uri if both are set, and over http they then send no report.
        response.headers["Reporting-Endpoints"] = f'csp="{REPORT_PATH}"'
        for name in POLICY_HEADERS:
            if name in response.headers:
                response.headers[name] += "; report-to csp; upgrade-insecure-requests"
    response.headers.update(g.pop("views_own", {}))
    return response
