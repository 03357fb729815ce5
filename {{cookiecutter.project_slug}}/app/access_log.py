"""The access log, with ``ACCESS_LOG``: one line for each request, without anything that the client wrote (5.S3).

Paths, queries, headers and forms may hold passwords and tokens that no pattern recognizes, also cut or encoded ones.
So the route stands for the path, ``-`` for no route, and ``other`` for a method that HTTP does not define. Static files
and health checks have a line only if they fail: they would be most of the log.

The metrics (``METRICS_TOKEN``) count these requests, and all static files and health checks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, request

from app.logs import EVENT_FIELDS, as_text
from app.redaction import method_of, route_of
from app.security.declarations import static_folder
from app.security.networks import network
from app.visitors import digest, visitors

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# In the environ: the rule of the request, and the digest of the signed-in account.
_RULE, _ACCOUNT = "app.rule", "app.account"

logger = logging.getLogger("access")


def init_app(app: Flask) -> None:
    """Log and count requests, as the settings say. This comes last, to stand in front of all that may refuse one."""
    if app.config["METRICS_TOKEN"]:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # metrics.share sets it; another folder may be gone
        from app import metrics  # only if it is needed: prometheus_client takes time and memory

        app.extensions["metrics"] = metrics
    if app.config["ACCESS_LOG"] or app.config["METRICS_TOKEN"]:
        app.teardown_request(_note)
        app.wsgi_app = _logging(app, app.wsgi_app)  # type: ignore[method-assign, assignment]


def _note(_error: BaseException | None) -> None:
    request.environ[_RULE] = request.url_rule
    if name := visitors().known_name():
        request.environ[_ACCOUNT] = digest(name)[:16]


def _logging(app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun, status = perf_counter(), 0

        def start(line: str, *rest: Any) -> Any:
            nonlocal status
            status = int(line[:3])
            return start_response(line, *rest)

        try:
            return wsgi_app(environ, start)
        finally:
            _log(app, environ, status, perf_counter() - begun)

    return logged


def _log(app: Flask, environ: WSGIEnvironment, status: int, seconds: float) -> None:
    """Count the request, and write its line. A ``status`` of 0 is that of a WebSocket, which has no response."""
    early: Request | None = environ.get("werkzeug.request")  # of a refusal in front of Flask, which removes its own
    rule = early.url_rule if early else environ.get(_RULE)
    fields = {
        "method": method_of(environ["REQUEST_METHOD"]),
        "route": route_of(rule) if rule else "-",
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "network": network(environ.get("REMOTE_ADDR", "")),
    }
    if "metrics" in app.extensions:
        app.extensions["metrics"].count(**fields)
    of_little_use = rule and (rule.endpoint.startswith("health.") or static_folder(app, rule.endpoint))
    if not app.config["ACCESS_LOG"] or (of_little_use and status < 400):
        return
    if _ACCOUNT in environ:
        fields["account"] = environ[_ACCOUNT]
    logger.info("%s", as_text(fields), extra={EVENT_FIELDS: fields})
