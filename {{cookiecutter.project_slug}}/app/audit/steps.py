"""The 53 steps: which probe looks at each, what mends it, and which requirements of ASVS 5.0 it checks.

A probe is a function in ``app/audit/probes/``. It attacks the app, or reads its code, and yields the
evidence of each fault that it has seen, or a finding whose mend is another than the step's. When it yields nothing,
the step is implemented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.audit.findings import Finding, Severity, StepResult, finding_id
from app.audit.subject import NoAnswer, NotApplicable, Subject, Unproved

Probe = Callable[[Subject], Iterator[str | Finding]]


class Relaxed(str):
    """Evidence of what somebody loosened on purpose, most often with a reason in the code."""


@dataclass(frozen=True)
class Step:
    """One step of one mitigation."""

    id: str
    title: str
    mend: str
    asvs: tuple[str, ...]
    probe: Probe

    def examine(self, subject: Subject) -> StepResult:
        """Let the probe look. Raises nothing: a probe that fails has found an app that it can't get through to."""
        findings, reason = [], ""
        severity: Severity
        try:
            for evidence in self.probe(subject):
                if isinstance(evidence, Finding):
                    findings.append(evidence)
                    continue
                severity = "relaxed" if isinstance(evidence, Relaxed) else "missing"
                findings.append(Finding(finding_id(self.id), severity, str(evidence), self.mend))
        except NotApplicable as nothing:
            reason = "" if findings else str(nothing)
        except NoAnswer as answer:
            said, severity = str(answer), "relaxed" if isinstance(answer, Unproved) else "missing"
            findings.append(Finding(finding_id(self.id), severity, f"{said[:1].upper()}{said[1:]}.", self.mend))
        except Exception as error:
            said = str(error).replace(str(subject.folder), "…")
            evidence = f"The probe got no sensible answer ({type(error).__name__}: {said})"
            findings.append(Finding(finding_id(self.id), "missing", evidence[:300], self.mend))
        return StepResult(self.id, self.title, self.mend, self.asvs, tuple(findings), reason)


STEPS: dict[str, Step] = {}


def step(step_id: str, title: str, mend: str, *asvs: str) -> Callable[[Probe], Probe]:
    """Register a probe for a step, e.g. ``2.S5``."""

    def register(probe: Probe) -> Probe:
        STEPS[step_id] = Step(step_id, title, mend, asvs, probe)
        return probe

    return register
