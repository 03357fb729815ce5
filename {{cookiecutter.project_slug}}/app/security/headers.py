"""Mitigation 6, security headers: many of a browser's protections are off until a response enables them.

Every response has them: pages, files, redirects, errors, even the plain 500 of last resort. csp.py sends the Content
Security Policy; this module adds the rest outside of Flask. A value that a view has set itself is kept.
``relax`` is the one place that loosens a header or a directive of the policy, with a reason.
Source: OWASP HTTP Headers Cheat Sheet and Secure Headers Project; RFC 6797; ASVS 5.0 V3.4.1, V3.4.2,
V3.4.4, V3.4.5, V3.4.8, V3.5.8, V4.1.3, V13.4.6, V14.3.2, V15.2.4.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g, redirect, request
from werkzeug.sansio.utils import get_current_url
from werkzeug.urls import iri_to_uri

from app.security.declarations import Declared, add, all_declared_by
from app.security.errors import refuse
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
# needs a feature grants it with ``relax``.
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

# The endpoint in Reporting-Endpoints, to which browsers report what the policy and these headers block. With this name,
# it also gets the reports of Permissions-Policy, in which each feature would have to name another one.
REPORT_GROUP = "default"

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Embedder-Policy": f'require-corp; report-to="{REPORT_GROUP}"',
    "Cross-Origin-Opener-Policy": f'same-origin; report-to="{REPORT_GROUP}"',
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
POLICY_HEADERS = {"content-security-policy", "content-security-policy-report-only"}
CSP_OF_LAST_RESORT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

# The directives that can be relaxed: those of CSP Level 3, Trusted Types and Upgrade Insecure Requests. Reports stay.
DIRECTIVES = """
    base-uri child-src connect-src default-src font-src form-action frame-ancestors frame-src img-src manifest-src
    media-src object-src require-trusted-types-for sandbox script-src script-src-attr script-src-elem style-src
    style-src-attr style-src-elem trusted-types upgrade-insecure-requests worker-src
""".split()  # noqa: SIM905
RELAXABLE = sorted({*HEADERS} - {"X-Content-Type-Options", "X-Frame-Options", "X-XSS-Protection"})

RELAXED = "relaxed"  # the name of a declaration: the instances of ``relax``, in the order of their decorators
SENT = "app.headers"  # the key in the WSGI environment of the headers of the response
BARE_KEYWORD = re.compile(r"(?:^|\s)(none|self|script|strict-dynamic|report-sample|unsafe-[a-z]+|wasm-[a-z-]+)(?:\s|$)")
PERMISSION = re.compile(r"[a-z-]+=(\*|self|\([^(),]*\))")


@dataclass(frozen=True, eq=False)
class relax:  # noqa: N801 - a decorator
    """Relax the browser's policy for ``reason``, which the audit shows: that of a view, a blueprint or the whole app.

    ``csp`` maps directives of the Content Security Policy to values, ``headers`` does so for the other headers. A value
    replaces the strict one; None or "" removes it. Two of them differ: Permissions-Policy names only the features that
    it grants, and X-Frame-Options can't be given, since it follows ``frame-ancestors``. Example::

        @relax(
            "map tiles",
            csp={"img-src": "'self' https://tiles.example"},
            headers={"Cross-Origin-Embedder-Policy": "credentialless"},
        )

    It accepts functions, ``MethodView`` classes and their methods, partials, callable objects and blueprints; for the
    whole app, app/relaxations.py lists it. A view adds to what its blueprint and the app relax, and wins over them.
    Error pages of a relaxed view keep the strict policy. Raises ValueError for a name or a value that no browser knows.
    """

    reason: str
    csp: Mapping[str, str | None] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise ValueError('A relaxed policy needs a reason: @relax("map tiles", csp={…}).')
        if not self.csp and not self.headers:
            raise ValueError(f"relax({self.reason!r}) relaxes nothing: give it csp={{…}} or headers={{…}}.")
        for names, known in ((self.csp, DIRECTIVES), (self.headers, RELAXABLE)):
            for name, value in names.items():
                _check_name(name, known)
                if value and not re.fullmatch("[ -~]+", value):
                    raise ValueError(f"{name}: {value!r} has characters that no header may have.")
        for name, value in self.csp.items():
            if found := re.search("[;,]", value or ""):
                raise ValueError(f"{name}: a value can't contain {found[0]!r}. Each directive is an entry of its own.")
            if found := BARE_KEYWORD.search(value or ""):
                raise ValueError(f"{name}: without quotes, {found[1]} is the name of a host. Write \"'{found[1]}'\".")
        for feature in filter(None, (self.headers.get("Permissions-Policy") or "").split(",")):
            if not PERMISSION.fullmatch(feature.strip()):
                raise ValueError(f"Permissions-Policy: {feature.strip()!r} is not like 'camera=(self)'.")

    def __call__(self, target: Declared) -> Declared:
        return add(target, RELAXED, self)


def _check_name(name: str, known: list[str]) -> None:
    if name in known:
        return
    if name.lower() == "x-frame-options":
        raise ValueError('X-Frame-Options follows frame-ancestors: write csp={"frame-ancestors": "\'self\'"}.')
    if name.lower().startswith("content-security-policy"):
        raise ValueError(f'{name}: give its directives, as in csp={{"img-src": "\'self\' https://tiles.example"}}.')
    meant = difflib.get_close_matches(name.lower().replace("_", "-"), [each.lower() for each in known], 1)
    similar = next((each for each in known if each.lower() in meant), "")
    raise ValueError(f"{name!r} can't be relaxed: " + (f"do you mean {similar!r}?" if similar else ", ".join(known)))


def relaxations_of(app: Flask, endpoint: str | None = None, method: str = "GET") -> tuple[relax, ...]:
    """Return what the app, the blueprints of ``endpoint`` and its view relax, in this order: a later one wins."""
    places = [*all_declared_by(app, endpoint, method, RELAXED), app.extensions.get("relaxations", ())]
    return tuple(reversed(dict.fromkeys(each for place in places for each in reversed(place))))


def relaxations() -> tuple[relax, ...]:
    """Return what holds for the response to this request; see ``relaxations_of``."""
    if g.get("is_error_page"):
        return relaxations_of(current_app)
    return relaxations_of(current_app, request.endpoint, request.method)


@cache
def headers_with(relaxed: tuple[relax, ...]) -> tuple[tuple[str, str], ...]:
    """Return the headers that all of ``relaxed`` leave. Computed once for each combination."""
    sent: dict[str, str | None] = {**HEADERS}
    for each in relaxed:
        for name, value in each.headers.items():
            if name == "Permissions-Policy" and value:
                # The later one of two values for a feature holds; the others stay denied.
                parts = (part.strip().partition("=") for part in f"{sent[name] or HEADERS[name]},{value}".split(","))
                value = ", ".join(f"{feature}={who}" for feature, who in {part[0]: part[2] for part in parts}.items())
            elif value and "report-to" in HEADERS[name]:
                value = f'{value}; report-to="{REPORT_GROUP}"'
            sent[name] = value
        if "frame-ancestors" in each.csp:  # browsers that know both ignore X-Frame-Options
            same = {"'none'": "DENY", "'self'": "SAMEORIGIN"}
            sent["X-Frame-Options"] = same.get(each.csp["frame-ancestors"] or "")
    return tuple((name, value) for name, value in sent.items() if value)


# How a proxy says that the visitor used https. The app trusts only X-Forwarded-Proto.
SAYS_HTTPS = {
    "X-Forwarded-Proto": "https",
    "Forwarded": "proto=https",
    "X-Forwarded-Ssl": "on",
    "Front-End-Https": "on",
    "X-Url-Scheme": "https",
}
PROXY_FIX = "Set TRUSTED_PROXY_HOPS to the number of your proxies, and let the first one send X-Forwarded-Proto."


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
    _refuse_to_loop()
    url = get_current_url("https", str(canonical_host()), request.root_path, request.path, request.query_string)
    return redirect(iri_to_uri(url), 308)  # type: ignore[return-value]


def _refuse_to_loop() -> None:
    """Refuse (503) to redirect in a circle: the visitor used https, but the proxy that says so is not trusted."""
    for name, value in SAYS_HTTPS.items():
        if value in request.headers.get(name, "").lower().replace('"', ""):
            hops = f"TRUSTED_PROXY_HOPS={current_app.config['TRUSTED_PROXY_HOPS']}"
            current_app.logger.warning(
                "%s: a proxy says %s in %s, which is not trusted. %s", hops, value, name, PROXY_FIX
            )
            refuse(503, "This site is not set up for the proxy in front of it. Its log says what to change.")


def _complete(app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
    """Add the missing headers outside of Flask, so that a failing hook or a plain 500 has them too."""

    def completing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def complete(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            present = {name.lower() for name, _ in headers}
            if present.isdisjoint(POLICY_HEADERS):  # it failed outside of Flask's hooks
                wanted = dict(headers_with(relaxations_of(app))) | {"Content-Security-Policy": CSP_OF_LAST_RESORT}
            else:
                wanted = dict(environ.get(SENT, ()))
            # Over http, browsers must ignore HSTS (RFC 6797, 8.1); in debug it would pin localhost for two years.
            if environ["wsgi.url_scheme"] == "https" and not app.debug:
                preload = "; preload" if app.config["HSTS_PRELOAD"] else ""
                wanted["Strict-Transport-Security"] = f"max-age={HSTS_MAX_AGE}; includeSubDomains{preload}"
            missing = [(name, value) for name, value in wanted.items() if name.lower() not in present]
            return start_response(status, headers + missing, *exc_info)

        return wsgi_app(environ, complete)

    return completing
