"""Runs git and cookiecutter: without a shell, without questions, and without what a git hook says to its children."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOUR = 3600  # seconds: a large history on a slow line
# By these git finds another repository, index or store than that of the folder (git rev-parse --local-env-vars).
LED_ASTRAY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)

# git says what is wrong, and then what would mend it; cookiecutter's last two lines only say that a hook failed.
FATAL = re.compile(r"(?ms)^(?:fatal|ERROR|error): .+")
EMPTY = re.compile(r"(?m)^.*[Hh]ook script.*$")


class UnknownDriftError(Exception):
    """What there is to say can't be known. The message is one line, with what would mend it."""


def run(command: list[str], cwd: Path | None = None, more: Mapping[str, str] | None = None) -> bytes:
    """Give what a program prints; ``more`` goes into its environment.

    Raises ``UnknownDriftError`` with what tells most when its exit code is not 0.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LED_ASTRAY}
    # A question would wait for an answer that nobody can give; git status would write to the index.
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    environment |= more or {}
    ended = subprocess.run(  # noqa: S603 - git and this Python, with arguments that no shell sees
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=HOUR
    )
    if ended.returncode:
        said = EMPTY.sub("", (ended.stdout + ended.stderr).decode(errors="replace")).strip()
        line = found[0] if (found := FATAL.search(said)) else said.rpartition("\n")[2]
        raise UnknownDriftError(
            " ".join(line.split()) or f"{command[0]} ended with {ended.returncode} and said nothing"
        )
    return ended.stdout


def git(*arguments: str, cwd: Path | None = None) -> bytes:
    """Ask git."""
    return run(["git", *arguments], cwd)
