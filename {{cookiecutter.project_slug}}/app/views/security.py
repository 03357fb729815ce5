"""The state of the mitigations, for developers. It would help attackers, so the page exists only in debug."""

from __future__ import annotations

from types import ModuleType

from flask import Blueprint, abort, current_app, render_template

from app.security.findings import Finding, facts_of
from app.visitors import public

# "security" is the blueprint of the endpoints that Flask-Security links to.
bp = Blueprint("security_state", __name__)


@bp.get("/security")
@public
def state() -> str:
    """Show each mitigation with its findings in this deployment, and the findings about the deployment as a whole."""
    if not current_app.debug:
        abort(404)
    parts = current_app.extensions["parts"]
    stated = {part: facts_of(part, current_app) for part in parts}
    modules = sorted((part for part in parts if hasattr(part, "NUMBER")), key=lambda module: module.NUMBER)
    return render_template(
        "security.html",
        mitigations=[_state_of(module, stated[module]) for module in modules],
        others=[fact for part in parts if part not in modules for fact in stated[part]],
    )


def _state_of(module: ModuleType, findings: list[Finding]) -> dict[str, object]:
    severities = {finding.severity for finding in findings}
    return {
        "number": module.NUMBER,
        "title": module.TITLE,
        "summary": module.SUMMARY,
        "state": "missing" if "missing" in severities else "relaxed" if "relaxed" in severities else "nothing relaxed",
        "findings": findings,
    }
