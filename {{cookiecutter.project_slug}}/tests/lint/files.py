"""What the files of a project that are no code must not hold: a key that looks real (1.S2). All who see them have it.

Read are the examples of settings, the documents, and what builds and starts the app. ``.env`` itself is not in git.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from app.security.findings import Finding
from app.security.secret_key import PLACEHOLDERS, weakness
from tests.lint.code import FOREIGN

LARGE = 2**20  # bytes
FIX = "Leave the value empty, and replace the key wherever it is in use: git keeps what it has seen."

READ = re.compile(
    r"(?i)\.?env[._-](example|sample|template|dist|defaults?)|.+\.env|\.flaskenv|readme.*|makefile|procfile"
    r"|.*dockerfile.*|.*\.(md|rst|ya?ml|toml|ini|cfg|conf|service|sh)"
)
# NAME=value, NAME: value, "name": "value", and in a Dockerfile also ENV NAME value.
ASSIGNED = re.compile(
    r"(?i)(?P<env>\bENV\s+)?\b(?P<name>[\w-]*(?:secret|passw(?:or)?d|token|credential|(?:api|access|private|signing)[_-]?key)"
    r"[\w-]*)[\"'`]?(?:\s*[:=]\s*|(?(env)\s+|(?!)))[\"'`]?(?P<value>[^\s\"'`,;<>]+)"
)
IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<value>[^\s/@]+)@")
KNOWN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[oprsu]_\w{36}|\bgithub_pat_\w{22}|\bglpat-[\w-]{20}"
    r"|\b[rs]k_live_\w{16}|\bxox[abprs]-[\w-]{10}|\bAIza[\w-]{35}\b|\bsk-[\w-]{32}"
)


def check_files(project: Path) -> Iterator[Finding]:
    """Read the files of a project's folder."""
    for folder, folders, names in os.walk(project):
        folders[:] = sorted({*folders} - FOREIGN - {each for each in folders if each[0] == "." and each != ".github"})
        for path in sorted(Path(folder, name) for name in names if READ.fullmatch(name)):
            if path.is_file() and path.stat().st_size < LARGE:
                text = path.read_text(encoding="utf-8", errors="replace")
                for line, name in keys_in(text):
                    where = path.relative_to(project).as_posix()
                    yield Finding("SK02", "missing", f"{where}:{line}: {name} has a value that looks real.", FIX)


def keys_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a text that holds what looks like a real key, and the key's name."""
    for number, line in enumerate(text.splitlines(), 1):
        named = [(found["name"], found["value"]) for found in ASSIGNED.finditer(line)]
        named += [("The password in an address", found["value"]) for found in IN_URL.finditer(line)]
        if KNOWN.search(line):
            yield number, "A key of a known kind"
        elif real := [name for name, value in named if _looks_real(value)]:
            yield number, real[0]


def _looks_real(value: str) -> bool:
    """Return whether a value looks like a random key, or a password of several kinds of characters."""
    if value[0] in "$%<{[(" or re.search(r"://|\$[{(]|\{\{|\.\.\.|…", value):
        return False
    if any(word in value.lower() for word in (*PLACEHOLDERS, "placeholder", "xxxx")):
        return False
    if weakness(value) is None:  # long enough; a name or a path has no such run of letters and digits
        return bool(re.search(r"(?=[a-zA-Z]*\d)(?=\d*[a-zA-Z])[a-zA-Z0-9]{8}", value))
    kinds = [kind for kind in ("[a-z]", "[A-Z]", r"\d", r"[^\w./:-]") if re.search(kind, value)]
    return len(value) >= 8 and len(kinds) > 2
