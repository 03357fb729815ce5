"""The probes, one module per mitigation. Each probe examines one step; see ``tools/audit/steps.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.audit.steps import Relaxed
from tools.audit.subject import Subject

# The fix of what @relax and app/relaxations.py declare.
DECLARED = "It is declared with @relax, or in app/relaxations.py"

# One version and its hash: in requirements.txt, in poetry.lock and uv.lock, in Pipfile.lock.
LOCKS = (
    r"(?im)^NAME==\S+\s*(;[^\\\n]*)?\\?\s*\n\s*--hash=",
    r"(?im)^name = \"NAME\"\nversion = [^\[]*(\[(?!\[package\]\])[^\[]*)*?sha256:",
    r'(?i)"NAME": \{\s*"hashes": \[\s*"sha256:',
)

# The same for each line of this app's own requirements.txt, with continuation lines joined.
LOCKED = re.compile(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}")

# A token as it stands in a reset link: payload, time and signature.
SIGNED = "IjRhYmMi.aVx8Qw.q1Z0m3vXbE7cT5yR9uK2wLsDfGh"


def is_pinned(subject: Subject, package: str) -> Iterator[str]:
    """Check that the project's requirements pin a package to one version with a hash.

    All installed packages run with the same privileges, so this app must pin every line of requirements.txt.
    """
    if not subject.own and not re.search(rf"\b(from|import) {package.replace('-', '_')}\b", subject.code):
        yield f"No code imports {package.replace('-', '_')}."
        return
    lines = subject.text_of("requirements*.txt", "requirements/*.txt", "*.lock", "Pipfile*", "pyproject.toml")
    name = package.replace("-", "[-_.]")
    if not any(re.search(lock.replace("NAME", name), lines) for lock in LOCKS):
        exact = re.search(rf"(?im)^\s*[\"']?{name}[\"']?\s*(==|=\s*\"==)", lines)
        fault = f"{package} is {'pinned without a hash' if exact else 'not pinned'} in the requirements."
        yield fault if subject.own else Relaxed(fault)  # the package is installed and works
    if subject.own:
        for line in re.sub(r"\\\n", " ", subject.text_of("requirements.txt")).splitlines():
            if re.match(r"[\w.]", line) and not LOCKED.match(line):
                yield f"requirements.txt does not pin {line.split()[0]} to one version with a hash."
