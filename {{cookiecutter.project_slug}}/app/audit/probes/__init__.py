"""The probes, a module for each mitigation. Each probe looks at one step; see ``app/audit/steps.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.audit.subject import Subject


def is_pinned(subject: Subject, package: str) -> Iterator[str]:
    """Say so when the project's requirements don't name one version of a package, with a hash."""
    lines = subject.text_of("requirements*.txt", "*.lock", "pyproject.toml")
    if not re.search(rf"(?im)^{package}==\S+\s*(;[^\\\n]*)?\\?\s*\n\s*--hash=", lines):
        exact = re.search(rf"(?im)^\s*[\"']?{package}==", lines)
        yield f"{package} is {'pinned without a hash' if exact else 'not pinned'} in the requirements."
