"""Mitigation 2, CSRF: another site must not be able to act with a visitor's cookies.

Every state-changing request needs the token of its own session, in the field ``csrf_token`` or the header
``X-CSRFToken``, and must come from a page of this host. Views do nothing for it; those that must do without are
listed in ``EXEMPT``, with the reason.
Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet; ASVS 5.0 V3.5.1, V3.5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException

from app.audit.findings import Finding
from app.security.errors import Refusal, refuse, respond

TITLE = "CSRF protection"
SUMMARY = "Every request that changes something carries a token that only this app's own pages know."

UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STALE_REASONS = frozenset({"The CSRF token has expired.", "The CSRF session token is missing."})
STALE_MESSAGE = "This page was open for too long, so nothing was sent. Please check it and send it again."
MISSING_MESSAGE = "This form lacks its protection token. Please reload the page and try again."
FOREIGN_MESSAGE = "This request came from another site. Please open this site's own page and try again."

csrf = CSRFProtect()

# View name → why it takes requests without a token. The home page shows those that the team adds.
EXEMPT: dict[str, str] = {}

View = TypeVar("View", bound=Callable[..., Any])


def init_app(app: Flask) -> None:
    """Ask every state-changing request for its token and its origin."""
    app.config.update(
        # Flask-WTF knows no fallbacks; given a list, it signs with the last and accepts them all (1.S5).
        WTF_CSRF_SECRET_KEY=[*reversed(app.config["SECRET_KEY_FALLBACKS"]), app.config["SECRET_KEY"]],
        # _refuse_other_origins does what this flag does, and knows the Origin header as well.
        WTF_CSRF_SSL_STRICT=False,
    )
    app.before_request(_refuse_other_origins)
    csrf.init_app(app)
    app.jinja_env.globals["stale_message"] = STALE_MESSAGE
    app.register_error_handler(CSRFError, _show_the_form_again)


def check(app: Flask) -> Iterator[Finding]:
    """Look at the switches in force and at the exemptions."""
    for name in ("WTF_CSRF_ENABLED", "WTF_CSRF_CHECK_DEFAULT"):
        if not app.config.get(name):
            yield Finding("CF05", "missing", f"{name} is off: no request needs a token.", f"Remove {name}.")
    for blueprint in csrf._exempt_blueprints & set(app.blueprints.values()):
        evidence = f"Blueprint {blueprint.name} takes requests without a token."
        yield Finding("CF05", "missing", evidence, "Remove the exemption, or exempt single views and say why.")
    for view in sorted({f"{view.__module__}.{view.__name__}" for view in app.view_functions.values()}):
        if view in EXEMPT and view != "app.views.csp_reports.receive":
            yield Finding("CF05", "relaxed", f"{view} needs no token: {EXEMPT[view]}", "Exempt it no longer.")
        elif view in csrf._exempt_views - set(EXEMPT):
            evidence = f"{view} takes requests without a token."
            yield Finding("CF05", "missing", evidence, "Remove the exemption, or say why with exempt(reason).")


def exempt(reason: str) -> Callable[[View], View]:
    """Let a view do without the token, for ``reason``: only for requests that carry no one's authority."""

    def mark(view: View) -> View:
        csrf.exempt(view)
        EXEMPT[f"{view.__module__}.{view.__name__}"] = reason
        return view

    return mark


def form_view(view: View) -> View:
    """Mark a view that acts only behind ``form.validate_on_submit()``, so that a stale token loses no typing.

    FlaskForm checks the token once more: after a stale one the view finds its form invalid and shows it again,
    filled in. On a view that acts without asking its form this would open the gate, hence the explicit mark. The
    second call runs no ``before_request`` hook of a blueprint: what the view asks for, it asks by decorators.
    """
    view.shows_form_again = True  # type: ignore[attr-defined]
    return view


def _is_exempt() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return view is not None and f"{view.__module__}.{view.__name__}" in EXEMPT


def _refuse_other_origins() -> None:
    """The second lock, for the day when a token leaks: browsers say where a request comes from.

    ``Origin`` is sent with every unsafe request by today's browsers, ``Referer`` by the older ones;
    over http a network attacker could strip both, over https a request with neither is refused.
    """
    if request.method not in UNSAFE_METHODS or _is_exempt():
        return
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        refuse(400, FOREIGN_MESSAGE)
    source = request.headers.get("Origin") or request.headers.get("Referer")
    if source is None:
        if request.is_secure:
            refuse(400, "The browser did not say which page this came from (no Origin or Referer header).")
        return
    try:
        scheme, host = urlsplit(source)[:2]
    except ValueError:
        scheme, host = "", ""
    if (scheme, host) != (request.scheme, request.host):
        refuse(400, FOREIGN_MESSAGE)


def _show_the_form_again(error: CSRFError) -> ResponseReturnValue:
    """A token that is merely stale gives the form back; anything else is a plain refusal."""
    view = current_app.view_functions.get(request.endpoint or "")
    if error.description in STALE_REASONS and getattr(view, "shows_form_again", False) and view is not None:
        try:
            response: Response = current_app.make_response(current_app.ensure_sync(view)(**(request.view_args or {})))
        except HTTPException as refusal:  # the view asks for a sign-in, say
            return respond(refusal)
        if response.status_code == 200:
            response.status_code = 400
        return response
    return respond(Refusal(400, STALE_MESSAGE if error.description in STALE_REASONS else MISSING_MESSAGE))
