"""The state of the mitigations, for developers. It would help attackers, so the page exists only in debug."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from flask import Blueprint, current_app, render_template

from app.security.findings import facts

# "security" is the blueprint of the endpoints that Flask-Security links to.
bp = Blueprint("security_state", __name__)


@bp.get("/security")
def state() -> str:
    """Show each mitigation with its findings in this deployment, and the findings about the deployment as a whole."""
    modules = [part for part in current_app.extensions["parts"] if hasattr(part, "NUMBER")]
    mitigations = [_state_of(module) for module in sorted(modules, key=lambda module: module.NUMBER)]
    told = [fact for each in mitigations for fact in each["findings"]]
    return render_template(
        "security.html",
        mitigations=mitigations,
        others=[fact for fact in facts(current_app) if fact not in told],
    )


def _state_of(module: ModuleType) -> dict[str, Any]:
    findings = list(module.check(current_app)) if hasattr(module, "check") else []
    severities = {finding.severity for finding in findings}
    return {
        "number": module.NUMBER,
        "title": module.TITLE,
        "summary": module.SUMMARY,
        "state": "missing" if "missing" in severities else "relaxed" if "relaxed" in severities else "nothing relaxed",
        "findings": findings,
    }
