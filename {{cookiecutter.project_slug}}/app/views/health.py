"""What monitoring asks for: whether the process is alive, whether the parts that it needs work, and metrics."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable
from typing import Literal

from flask import Blueprint, Response, current_app, request
from flask.sansio.app import App

from app.security.errors import WORDS, refuse
from app.security.rate_limits import limiter, unlimited
from app.visitors import public

bp = Blueprint("health", __name__)
_one_at_a_time = threading.Lock()


def needs(app: App, part: str, ask: Callable[[], object], *, without: Literal["down", "degraded"] = "down") -> None:
    """Add a part to ``/readyz``. ``ask`` raises an exception while the part does not work.

    ``without`` is the state of the app then: ``degraded`` if most of it still works.
    """
    app.extensions.setdefault("readyz", {})[part] = ask, without


@bp.get("/healthz")
@public
@unlimited("A 429 would make a load balancer stop a healthy process; the response is cheap.")
def healthz() -> dict[str, str]:
    """Return that this process answers, without checking anything else."""
    return {"status": "ok"}


@bp.get("/readyz")
@public
def readyz() -> tuple[dict[str, object], int]:
    """Return whether the parts work that the app needs: 200, or 503 if one is down.

    Only a request with ``READYZ_TOKEN`` (``Authorization: Bearer …``) learns each part as ``ok``, ``degraded`` or
    ``down``: an attacker could see which part an attack has hit (ASVS V13.4.5). Only the log has the reason.
    """
    states = ask_all()
    ready = "down" not in states.values()
    answer: dict[str, object] = {"status": "ready" if ready else "not ready"}
    if _knows("READYZ_TOKEN"):
        answer["parts"] = states
    return answer, 200 if ready else 503


def ask_all() -> dict[str, str]:
    """Return the state of each part, and log those that have changed."""
    states = {part: _state(part, *asked) for part, asked in current_app.extensions.get("readyz", {}).items()}
    # Not a reason to take the app out of service: while Redis is lost, each process goes on counting by itself.
    # The storage knows, because each request is counted, and logs each change itself.
    states["rate_limits"] = "ok" if limiter.storage.check() else "degraded"
    return states


@bp.get("/metrics")
@public
def metrics() -> Response:
    """Return the metrics, only for a request with ``METRICS_TOKEN``. All others get the page of an unknown address."""
    if not _knows("METRICS_TOKEN"):
        refuse(404, WORDS[404][1], event="authz_fail")
    return current_app.extensions["metrics"].response()  # type: ignore[no-any-return]


def _knows(setting: str) -> bool:
    token, given = current_app.config[setting], request.authorization
    return bool(token and given and given.token and hmac.compare_digest(given.token.encode(), token.encode()))


def _state(part: str, ask: Callable[[], object], without: str) -> str:
    try:
        ask()
    except Exception as error:  # a health check must report every failure and not fail itself
        _log_change(part, without, error)
        return without
    _log_change(part, "ok")
    return "ok"


def _log_change(part: str, state: str, error: Exception | None = None) -> None:
    """Log a part's new state, once for each process: a probe every few seconds must not flood the log."""
    with _one_at_a_time:
        last = current_app.extensions.setdefault("readyz_last", {})
        changed = last.get(part, "ok") != state
        last[part] = state
    if changed:
        current_app.logger.log(logging.INFO if state == "ok" else logging.ERROR, "%s: %s", part, state, exc_info=error)
