"""What the audit says: findings, and the state of each of the 53 steps and ten mitigations.

A finding's id is that of its step: ``CF05`` belongs to step 2.S5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["relaxed", "missing"]
State = Literal["implemented", "relaxed", "missing", "not applicable"]

# The first two letters of a finding's id, by the number of its mitigation.
LETTERS = ("SK", "CF", "CP", "CK", "ER", "HD", "TM", "RL", "UP", "UR")


@dataclass(frozen=True)
class Finding:
    """One thing to mend.

    ``id`` is stable (``SK01``, ``CF02`` …), so that a team can look it up and search for it.
    ``severity`` is ``relaxed`` for what somebody loosened on purpose and ``missing`` for what is not there. In another
    app ``relaxed`` also stands for what is there in part, and for what no probe can prove without running its views.
    ``evidence`` is what was seen, without secrets; ``mend`` says what to do about it. What an app contributes to it (a
    name, an exception's text) may hold control characters: none may drive the terminal of whoever reads it.
    """

    id: str
    severity: Severity
    evidence: str
    mend: str

    def __post_init__(self) -> None:
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.evidence)
        object.__setattr__(self, "evidence", "".join(shown))


@dataclass(frozen=True)
class StepResult:
    """How one step was found. ``reason`` says why a step is not applicable."""

    id: str
    title: str
    mend: str
    asvs: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    reason: str = ""

    @property
    def finding_id(self) -> str:
        """The id of the step's findings."""
        return finding_id(self.id)

    @property
    def state(self) -> State:
        """The worst that was found."""
        if self.reason:
            return "not applicable"
        severities = {found.severity for found in self.findings}
        return "missing" if "missing" in severities else "relaxed" if severities else "implemented"


@dataclass(frozen=True)
class Row:
    """One mitigation and its steps."""

    number: int
    title: str
    steps: tuple[StepResult, ...] = field(repr=False)

    @property
    def state(self) -> State:
        """The worst of its steps; not applicable when none of them is."""
        states = {step.state for step in self.steps}
        order: tuple[State, ...] = ("missing", "relaxed", "implemented", "not applicable")
        return next(state for state in order if state in states)

    @property
    def findings(self) -> list[Finding]:
        """The findings of all steps."""
        return [found for step in self.steps for found in step.findings]


@dataclass(frozen=True)
class Report:
    """What an audit found.

    ``folder`` is where the app's code is in its project (``app``; empty: at its top). The evidence names files of a
    ``foreign`` app from the top of its project, those of this app from its folder.
    """

    rows: tuple[Row, ...]
    folder: str
    foreign: bool = False

    def exit_code(self, *, strict: bool) -> int:
        """Give 1 when something is missing, or with ``strict`` also when something is relaxed; else 0."""
        states = {row.state for row in self.rows}
        return int("missing" in states or (strict and "relaxed" in states))


def finding_id(step: str) -> str:
    """Give the id of a step's findings: ``CF05`` for ``2.S5``."""
    number, _, position = step.partition(".S")
    return f"{LETTERS[int(number) - 1]}{int(position):02}"
