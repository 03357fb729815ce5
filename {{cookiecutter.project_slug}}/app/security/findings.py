"""Facts of this deployment: what its settings and files relax.

A part of the app reports them in ``check(app)``. A server logs them at its start (wsgi.py), and the audit shows them.
The tests and the audit examine what the code itself does.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from flask import Flask

Severity = Literal["note", "relaxed", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing to fix.

    ``id`` is stable (``SK02``, ``CP04`` …), so that a team can search for it. Its letters name the mitigation and its
    number the step; ``DP`` stands for the deployment as a whole.
    ``severity`` is ``missing`` for a missing protection, ``relaxed`` for one that was relaxed on purpose, and ``note``
    for a fact that weakens no step. In a foreign app, ``relaxed`` also means partly implemented, or impossible to
    prove without running the views.
    ``evidence`` says what was observed, without secrets; ``fix`` says what to do about it. Control characters in the
    evidence, which may come from an exception's text, are escaped: they must not reach the reader's terminal.
    """

    id: str
    severity: Severity
    evidence: str
    fix: str

    def __post_init__(self) -> None:
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.evidence)
        object.__setattr__(self, "evidence", "".join(shown))


def facts_of(part: ModuleType, app: Flask) -> list[Finding]:
    """Return the facts that one part of the app reports about this deployment."""
    return list(part.check(app)) if hasattr(part, "check") else []


def facts(app: Flask) -> list[Finding]:
    """Return the facts that all parts of the app report about this deployment."""
    return [fact for part in app.extensions["parts"] for fact in facts_of(part, app)]


def log_facts(app: Flask) -> None:
    """Log each fact on its own line. For a server alone: in the output of each command, nobody would read them."""
    for fact in facts(app):
        app.logger.warning("%s %s: %s %s", fact.id, fact.severity, fact.evidence, fact.fix)
