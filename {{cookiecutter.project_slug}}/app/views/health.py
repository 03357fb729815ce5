"""Probes for an orchestrator: is the process alive, and are the parts there that it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from flask import Blueprint, current_app

from app.files import clamd
from app.security.rate_limits import limiter

# % if cookiecutter.accounts
from sqlalchemy import text  # isort: skip
from app.models import db  # isort: skip

# % endif
bp = Blueprint("health", __name__)

CLAMD_SECONDS = 2


@bp.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that this process answers; it asks nothing of anybody else."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> tuple[dict[str, str], int]:
    """Give each part as ``ok``, ``degraded`` or ``down``; 503 when one is down. Why is for the log alone."""
    parts: dict[str, Callable[[], None]] = {"uploads": _write_to_upload_dir}
    if current_app.config["CLAMD_URL"]:
        parts["virus_scanner"] = _ping_clamd
    # % if cookiecutter.accounts
    parts["database"] = _ask_database
    # % endif
    states = {name: _state(name, ask) for name, ask in parts.items()}
    # Not a reason to take the app out of service: while Redis is lost, each process goes on counting by itself.
    states["rate_limits"] = "ok" if limiter.storage.check() else "degraded"
    return states, 503 if "down" in states.values() else 200


def _state(name: str, ask: Callable[[], None]) -> str:
    try:
        ask()
    except Exception:  # a probe has to tell of every fault, not to be one
        current_app.logger.exception("not ready: %s", name)
        return "down"
    return "ok"


def _write_to_upload_dir() -> None:
    with tempfile.TemporaryFile(dir=current_app.config["UPLOAD_DIR"]) as probe:
        probe.write(b"ready")


# % if cookiecutter.accounts
def _ask_database() -> None:
    db.session.execute(text("SELECT 1"))


# % endif
def _ping_clamd() -> None:
    clamd.ping(current_app.config["CLAMD_URL"], seconds=CLAMD_SECONDS)
