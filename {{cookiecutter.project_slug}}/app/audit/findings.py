"""A finding: one step of one mitigation which is not as strict as it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["relaxed", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing to mend.

    ``id`` is stable (``SK01``, ``CF02`` …), so that a team can look it up and search for it.
    ``severity`` is ``relaxed`` for what somebody loosened on purpose and ``missing`` for what is not there.
    ``evidence`` is what was seen, without secrets; ``mend`` says what to do about it.
    """

    id: str
    severity: Severity
    evidence: str
    mend: str
