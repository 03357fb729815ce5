"""The result of an audit: the state of each step and of each mitigation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.security.findings import Finding
from tools.audit.mitigations import Step

State = Literal["implemented", "relaxed", "missing", "not applicable"]


@dataclass(frozen=True)
class StepResult:
    """The findings of one step. ``reason`` says why the step is not applicable."""

    step: Step
    findings: tuple[Finding, ...] = ()
    reason: str = ""

    @property
    def state(self) -> State:
        """The worst severity of the findings. A note weakens nothing."""
        severities = {found.severity for found in self.findings}
        if "missing" in severities:
            return "missing"
        if "relaxed" in severities:
            return "relaxed"
        return "not applicable" if self.reason else "implemented"


@dataclass(frozen=True)
class Row:
    """One mitigation and its steps."""

    number: int
    title: str
    steps: tuple[StepResult, ...] = field(repr=False)

    @property
    def state(self) -> State:
        """The worst state of its steps; not applicable if no step is applicable."""
        states = {step.state for step in self.steps}
        order: tuple[State, ...] = ("missing", "relaxed", "implemented", "not applicable")
        return next(state for state in order if state in states)

    @property
    def findings(self) -> list[Finding]:
        """The findings of all steps."""
        return [found for step in self.steps for found in step.findings]


@dataclass(frozen=True)
class Report:
    """The result of an audit.

    ``deployment`` has the facts that belong to no mitigation. ``folder`` is the folder of the app's code in its
    project (``app``; empty for the project's root). File names in the evidence are relative to the project of a
    ``foreign`` app, but to the folder of this app.
    """

    rows: tuple[Row, ...]
    deployment: tuple[Finding, ...]
    folder: str
    foreign: bool = False

    @property
    def findings(self) -> list[Finding]:
        """All findings."""
        return [*(found for row in self.rows for found in row.findings), *self.deployment]

    def exit_code(self, *, strict: bool) -> int:
        """Return 1 when something is missing, or with ``strict`` also when something is relaxed; else 0."""
        states = {row.state for row in self.rows} | {fact.severity for fact in self.deployment}
        return int("missing" in states or (strict and "relaxed" in states))
