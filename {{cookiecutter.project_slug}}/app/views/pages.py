"""The home page, and where to report a weakness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import ModuleType

from flask import Blueprint, Response, current_app, render_template, url_for

from app.project import SECURITY_CONTACT
from app.security import MITIGATIONS

bp = Blueprint("pages", __name__)

SECURITY_TXT_LIFETIME = timedelta(days=180)


@bp.get("/")
def home() -> str:
    """What this app is, and the state of its ten mitigations at this moment."""
    mitigations = [_state_of(number, module) for number, module in enumerate(MITIGATIONS, start=1)]
    return render_template("home.html", mitigations=mitigations)


def _state_of(number: int, module: ModuleType) -> dict[str, object]:
    findings = list(module.check(current_app))
    severities = {finding.severity for finding in findings}
    return {
        "number": number,
        "title": module.TITLE,
        "summary": module.SUMMARY,
        "state": "missing" if "missing" in severities else "relaxed" if findings else "implemented",
        # The evidence names settings and paths: it helps an attacker, so visitors get the state alone.
        "findings": findings if current_app.debug else [],
    }


@bp.get("/.well-known/security.txt")
def security_txt() -> Response:
    """Give RFC 9116's file. It expires in less than a year, so that a forgotten copy goes stale by itself."""
    expires = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + SECURITY_TXT_LIFETIME
    lines = [
        f"Contact: {SECURITY_CONTACT}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        "Preferred-Languages: en",
        # RFC 9116, 2.5.2: https, also where debug serves this over http.
        f"Canonical: {url_for('pages.security_txt', _external=True, _scheme='https')}",
    ]
    return Response("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")
