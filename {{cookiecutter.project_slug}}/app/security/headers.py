"""Mitigation 6, security headers: many of a browser's protections are off until a response enables them.

Every response has them: pages, files, redirects, errors, even the plain 500 of last resort. Talisman sends those it
supports (see csp.py); this module adds the rest, and any that are missing, outside of Flask. A value that a view has
set itself is kept.
Source: OWASP HTTP Headers Cheat Sheet and Secure Headers Project; RFC 6797; ASVS 5.0 V3.4.1, V3.4.2,
V3.4.4, V3.4.5, V3.4.8, V3.5.8, V4.1.3, V13.4.6, V14.3.2, V15.2.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, redirect, request
from werkzeug.sansio.utils import get_current_url
from werkzeug.urls import iri_to_uri

from app.security.findings import Finding
from app.security.urls import canonical_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

NUMBER = 6
TITLE = "Security headers"
SUMMARY = "Every response makes the browser use https, guess no types, and keep other sites from framing or reading it."

HSTS_MAX_AGE = 2 * 365 * 24 * 3600  # seconds; the preload list asks for one year at least

# The powerful features that today's Chromium knows on every system; it warns of others on each page. So bluetooth and
# web-share are left out, which it lacks on Linux: both ask the visitor first. Firefox ignores the header. A view that
# needs a feature sets its own header.
DENIED_FEATURES = """
    accelerometer autoplay browsing-topics camera captured-surface-control clipboard-read clipboard-write
    compute-pressure cross-origin-isolated deferred-fetch deferred-fetch-minimal digital-credentials-create
    digital-credentials-get display-capture encrypted-media fullscreen gamepad geolocation gyroscope hid
    identity-credentials-get idle-detection keyboard-map language-detector language-model local-fonts local-network
    local-network-access loopback-network magnetometer microphone midi on-device-speech-recognition otp-credentials
    payment picture-in-picture private-state-token-issuance private-state-token-redemption publickey-credentials-create
    publickey-credentials-get screen-wake-lock serial speaker-selection storage-access summarizer sync-xhr translator
    usb window-management xr-spatial-tracking
""".split()  # noqa: SIM905 - one name a line would bury the rest of this file

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in DENIED_FEATURES),
    # Stricter values would remove the Referer, which csrf.py checks when a browser sends no Origin.
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
    # Attackers could abuse the old XSS filter (OWASP); the CSP replaces it.
    "X-XSS-Protection": "0",
}
CSP_OF_LAST_RESORT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def init_app(app: Flask) -> None:
    """Redirect http to https, and complete the headers of every response."""
    app.before_request(_to_https)
    app.wsgi_app = _complete(app, app.wsgi_app)  # type: ignore[method-assign, assignment]


def check(app: Flask) -> Iterator[Finding]:
    """Report debug, which relaxes this mitigation and the session cookie; no other check repeats this fact."""
    if app.debug:
        evidence = "Debug: http is answered, the session cookie travels over http, and HSTS is not sent."
        yield Finding("HD03", "relaxed", evidence, "Outside development, start without FLASK_DEBUG.")


def _to_https() -> Response | None:
    """Redirect to the canonical host, never to the request's host, which an attacker may control.

    308 keeps the method. Health checks are answered: load balancers send them over http and follow no redirects.
    """
    if current_app.debug or request.is_secure or request.blueprint == "health":
        return None
    url = get_current_url("https", str(canonical_host()), request.root_path, request.path, request.query_string)
    return redirect(iri_to_uri(url), 308)  # type: ignore[return-value]


def _complete(app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
    """Add the missing headers outside of Flask, so that a failing hook or a plain 500 has them too."""

    def completing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def complete(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            present = {name.lower() for name, _ in headers}
            wanted = dict(HEADERS)
            if "content-security-policy-report-only" not in present:
                wanted["Content-Security-Policy"] = CSP_OF_LAST_RESORT
            # Over http, browsers must ignore HSTS (RFC 6797, 8.1); in debug it would pin localhost for two years.
            if environ["wsgi.url_scheme"] == "https" and not app.debug:
                preload = "; preload" if app.config["HSTS_PRELOAD"] else ""
                wanted["Strict-Transport-Security"] = f"max-age={HSTS_MAX_AGE}; includeSubDomains{preload}"
            missing = [(name, value) for name, value in wanted.items() if name.lower() not in present]
            return start_response(status, headers + missing, *exc_info)

        return wsgi_app(environ, complete)

    return completing
