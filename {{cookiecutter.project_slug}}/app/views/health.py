"""Health checks for an orchestrator: whether the process is alive, and whether the parts that it needs work."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, current_app
from flask.sansio.app import App

from app.security.rate_limits import limiter, unlimited

bp = Blueprint("health", __name__)


def needs(app: App, part: str, ask: Callable[[], object]) -> None:
    """Add a part to ``/readyz``. ``ask`` raises an exception while the part does not work."""
    app.extensions.setdefault("readyz", {})[part] = ask


@bp.get("/healthz")
@unlimited("A 429 would make a load balancer stop a healthy process; the response is cheap.")
def healthz() -> dict[str, str]:
    """Return that this process answers, without checking anything else."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> tuple[dict[str, str], int]:
    """Return each part as ``ok``, ``degraded`` or ``down``; 503 if one is down. Only the log has the reason."""
    states = {part: _state(part, ask) for part, ask in current_app.extensions.get("readyz", {}).items()}
    # Not a reason to take the app out of service: while Redis is lost, each process goes on counting by itself.
    states["rate_limits"] = "ok" if limiter.storage.check() else "degraded"
    return states, 503 if "down" in states.values() else 200


def _state(part: str, ask: Callable[[], object]) -> str:
    try:
        ask()
    except Exception:  # a health check must report every failure and not fail itself
        current_app.logger.exception("not ready: %s", part)
        return "down"
    return "ok"
