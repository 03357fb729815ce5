"""Mitigation 2, CSRF: another site must not be able to act with a visitor's cookies.

Every state-changing request needs the token of its own session, in the field ``csrf_token`` or the header
``X-CSRFToken``, and must come from a page of this host. Views are protected by default. ``@exempt(reason)`` exempts
a view.
Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet; ASVS 5.0 V3.5.1, V3.5.3, V15.2.4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, g, request, session
from flask_wtf.csrf import CSRFError, CSRFProtect

from app.security.declarations import Declared, declare, declared
from app.security.errors import Refusal, refuse, respond
from app.security.urls import normal_host

NUMBER = 2
TITLE = "CSRF protection"
SUMMARY = "Every state-changing request carries a token that only this app's own pages know."

# The names of declarations: the reason of an exemption, and that a view shows its form again.
EXEMPT = "csrf_exempt"
SHOWS_FORM_AGAIN = "shows_form_again"

UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STALE_REASONS = frozenset({"The CSRF token has expired.", "The CSRF session token is missing."})
STALE_MESSAGE = "This page was open for too long, so nothing was sent. Please check it and send it again."
MISSING_MESSAGE = "This form lacks its protection token. Please reload the page and try again."
FOREIGN_MESSAGE = "This request came from another site. Please open this site's own page and try again."

csrf = CSRFProtect()

View = TypeVar("View", bound=Callable[..., Any])


def init_app(app: Flask) -> None:
    """Check the origin and the token of every state-changing request."""
    app.config.update(
        # Flask-WTF ignores SECRET_KEY_FALLBACKS. Given a list, it signs with the last key and accepts all (1.S5).
        WTF_CSRF_SECRET_KEY=[*reversed(app.config["SECRET_KEY_FALLBACKS"]), app.config["SECRET_KEY"]],
        # _protect replaces these checks. Flask-WTF stores exemptions by view name, which two views may share.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_SSL_STRICT=False,
    )
    csrf.init_app(app)
    logging.getLogger("flask_wtf.csrf").setLevel(logging.WARNING)  # it repeats each refusal
    app.before_request(_protect)
    app.jinja_env.globals["stale_message"] = STALE_MESSAGE
    app.register_error_handler(CSRFError, _refuse_the_token)
    app.after_request(_report_the_stale_token)


def exempt(reason: str) -> Callable[[Declared], Declared]:
    """Exempt a view, or all views of a blueprint, from both checks for ``reason``, which the audit shows.

    Use it only for requests that are not authenticated by a cookie: a signed webhook, an API with its own tokens. It
    accepts functions, ``MethodView`` classes and their methods, partials, callable objects and blueprints.
    """
    if not reason.strip():
        raise ValueError("An exemption needs a reason.")
    return lambda target: declare(target, EXEMPT, reason)


def form_view(view: View) -> View:
    """Mark a view that acts only after ``form.validate_on_submit()``, so that a stale token loses no input.

    Such a view and its hooks run even with a stale token: its FlaskForm checks the token again, is invalid, and is
    shown filled in. A view that doesn't validate its form would act on the stale token, hence the explicit mark.
    """
    return declare(view, SHOWS_FORM_AGAIN, True)


def _protect() -> None:
    # A WebSocket is opened by a GET with the visitor's cookies, from any page.
    unsafe = request.method in UNSAFE_METHODS or "websocket" in request.headers.get("Upgrade", "").lower()
    if unsafe and declared(EXEMPT) is None:
        _refuse_other_origins()
        if request.endpoint:  # a URL without a route has nothing to protect, and its 404 is more helpful
            try:
                csrf.protect()
            except CSRFError as error:
                if not _is_stale(error) or not declared(SHOWS_FORM_AGAIN):
                    raise
                g.has_stale_token = True  # the hooks after this one still decide who may see the form


def _refuse_other_origins() -> None:
    """Refuse requests from other origins. This second check still protects when a token has leaked.

    Current browsers send ``Origin`` with every unsafe request, older ones send ``Referer``. Over http a network
    attacker could strip both; over https a request with neither is refused.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        refuse(400, FOREIGN_MESSAGE, event="malicious_cors")
    source = request.headers.get("Origin") or request.headers.get("Referer")
    if source is None:
        if request.is_secure:
            refuse(400, "The browser did not send the page this came from (no Origin or Referer header).")
        return
    try:
        scheme, host = urlsplit(source)[:2]
    except ValueError:
        scheme, host = "", ""
    if (scheme, normal_host(host)) != (request.scheme, request.host):
        # A proxy that drops the port from Host looks like an attack: the log names both.
        here = f"{request.scheme}://{request.host}"
        refuse(400, FOREIGN_MESSAGE, event="malicious_cors", origin=f"{scheme}://{host}", expected=here)


def _is_stale(error: CSRFError) -> bool:
    # The session of the token may be one that this server can't read: see cookies.py.
    return error.description in STALE_REASONS or getattr(session, "unread", False)


def _refuse_the_token(error: CSRFError) -> Response:
    message = STALE_MESSAGE if _is_stale(error) else MISSING_MESSAGE
    return respond(Refusal(400, message, reason=error.description))


def _report_the_stale_token(response: Response) -> Response:
    if g.pop("has_stale_token", False) and response.status_code == 200:
        response.status_code = 400
    return response
