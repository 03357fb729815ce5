"""The probes, a module for each mitigation. Each probe looks at one step; see ``tools/audit/steps.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.audit.steps import Relaxed
from tools.audit.subject import Subject

# One version and its hash: in requirements.txt, in poetry.lock and uv.lock, in Pipfile.lock.
LOCKS = (
    r"(?im)^NAME==\S+\s*(;[^\\\n]*)?\\?\s*\n\s*--hash=",
    r"(?im)^name = \"NAME\"\nversion = [^\[]*(\[(?!\[package\]\])[^\[]*)*?sha256:",
    r'(?i)"NAME": \{\s*"hashes": \[\s*"sha256:',
)

# The same for each line of our own requirements.txt, its continuation lines joined.
LOCKED = re.compile(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}")


def is_pinned(subject: Subject, package: str) -> Iterator[str]:
    """Say so when the project's requirements don't name one version of a package, with a hash.

    What is installed beside it runs with the same rights, so in this app all of requirements.txt must be like that.
    """
    if not subject.own and not re.search(rf"\b(from|import) {package.replace('-', '_')}\b", subject.code):
        yield f"No code imports {package.replace('-', '_')}."
        return
    lines = subject.text_of("requirements*.txt", "requirements/*.txt", "*.lock", "Pipfile*", "pyproject.toml")
    name = package.replace("-", "[-_.]")
    if not any(re.search(lock.replace("NAME", name), lines) for lock in LOCKS):
        exact = re.search(rf"(?im)^\s*[\"']?{name}[\"']?\s*(==|=\s*\"==)", lines)
        fault = f"{package} is {'pinned without a hash' if exact else 'not pinned'} in the requirements."
        yield fault if subject.own else Relaxed(fault)  # it is there, and does its work
    if subject.own:
        for line in re.sub(r"\\\n", " ", subject.text_of("requirements.txt")).splitlines():
            if re.match(r"[\w.]", line) and not LOCKED.match(line):
                yield f"requirements.txt does not lock {line.split()[0]} to one version and its hash."
