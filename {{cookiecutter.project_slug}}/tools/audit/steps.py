"""Examining a step with its probe, a function in ``tools/audit/probes/``.

A probe attacks the app or reads its code. It yields evidence for each fault that it finds, as ``Fault`` or ``Relaxed``
with a fix of its own where the step's fix does not fit. If it yields nothing, the step is implemented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

from app.security.findings import Finding, Severity
from tools.audit.mitigations import Step
from tools.audit.results import StepResult
from tools.audit.subject import NoAnswer, NotApplicable, Subject, Unproved

Probe = Callable[[Subject], Iterator[str | Finding]]

PROBES: dict[str, Probe] = {}


class Fault(str):
    """Evidence of a fault; ``fix`` says what to do, if the fix of the step does not fit."""

    fix: str

    def __new__(cls, evidence: str, fix: str = "") -> Self:
        """Return the evidence, with its fix."""
        self = super().__new__(cls, evidence)
        self.fix = fix
        return self


class Relaxed(Fault):
    """Evidence of a protection that was relaxed on purpose, usually with a reason in the code."""


def probe(step_id: str) -> Callable[[Probe], Probe]:
    """Register a probe for a step, such as ``2.S5``."""

    def register(function: Probe) -> Probe:
        PROBES[step_id] = function
        return function

    return register


def examine(step: Step, subject: Subject) -> StepResult:
    """Return the result of a step's probe. Never raises: a failing probe is a finding too."""
    findings: list[Finding] = []

    def found(severity: Severity, evidence: str) -> None:
        fix = getattr(evidence, "fix", "") or step.fix
        findings.append(Finding(step.finding_id, severity, str(evidence), fix))

    reason = ""
    try:
        for evidence in PROBES[step.id](subject):
            if isinstance(evidence, Finding):
                findings.append(evidence)
            else:
                found("relaxed" if isinstance(evidence, Relaxed) else "missing", evidence)
    except NotApplicable as nothing:
        reason = "" if findings else str(nothing)
    except NoAnswer as answer:
        said = str(answer)
        found("relaxed" if isinstance(answer, Unproved) else "missing", f"{said[:1].upper()}{said[1:]}.")
    except Exception as error:
        said = str(error).replace(str(subject.folder), "…")
        found("missing", f"The probe failed ({type(error).__name__}: {said})"[:300])
    return StepResult(step, tuple(findings), reason)
