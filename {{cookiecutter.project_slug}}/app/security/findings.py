"""Facts of this deployment: what its settings, files and surroundings relax. The start logs them, the audit shows them.

A part of the app states them in ``check(app)``: what the code itself does is for the tests and the audit to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flask import Flask

Severity = Literal["note", "relaxed", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing to fix.

    ``id`` is stable (``SK02``, ``CP04`` …), so that a team can look it up and search for it. Its letters name the
    mitigation and its number the step; ``DP`` stands for the deployment as a whole.
    ``severity`` is ``missing`` for what is not there, ``relaxed`` for what somebody loosened on purpose, and ``note``
    for what weakens no step. In another app than this one, ``relaxed`` also stands for what is there in part, and for
    what no probe can prove without running its views.
    ``evidence`` is what was seen, without secrets; ``fix`` says what to do about it. What an app contributes to it (a
    name, the text of an exception) may hold control characters: none may drive the terminal of whoever reads it.
    """

    id: str
    severity: Severity
    evidence: str
    fix: str

    def __post_init__(self) -> None:
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.evidence)
        object.__setattr__(self, "evidence", "".join(shown))


def facts(app: Flask) -> list[Finding]:
    """Return what all parts of the app state about this deployment."""
    return [fact for part in app.extensions["parts"] if hasattr(part, "check") for fact in part.check(app)]


def log_facts(app: Flask) -> None:
    """Log them, a line each. In debug they are on ``/security`` instead: there most of them are as they should be."""
    if not app.debug:
        for fact in facts(app):
            app.logger.warning("%s %s: %s %s", fact.id, fact.severity, fact.evidence, fact.fix)
