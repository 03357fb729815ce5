"""Runs git and cookiecutter: without a shell, without questions, and without the environment of a git hook."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOUR = 3600  # seconds: for a long history on a slow line
# With these, git uses another repository, index or store than the folder's (git rev-parse --local-env-vars).
LED_ASTRAY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)

# git names the error and then a remedy. The last two lines of cookiecutter only say that a hook failed.
FATAL = re.compile(r"(?ms)^(?:fatal|ERROR|error): .+")
EMPTY = re.compile(r"(?m)^.*[Hh]ook script.*$")


class UnknownDriftError(Exception):
    """The drift can't be known. The message is one line and says what to do about it."""


def run(command: list[str], cwd: Path | None = None, more: Mapping[str, str] | None = None, allowed: int = 0) -> bytes:
    """Return what a program prints; ``more`` is added to its environment.

    Raises ``UnknownDriftError``, with the most helpful line of its output, when its exit code is above ``allowed``.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LED_ASTRAY}
    # Nobody could answer a question; and git status would write to the index.
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    environment |= more or {}
    ended = subprocess.run(  # noqa: S603 - git and this Python, without a shell
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=HOUR
    )
    if not 0 <= ended.returncode <= allowed:
        output = EMPTY.sub("", (ended.stdout + ended.stderr).decode(errors="replace")).strip()
        line = found[0] if (found := FATAL.search(output)) else output.rpartition("\n")[2]
        raise UnknownDriftError(
            " ".join(line.split()) or f"{command[0]} ended with {ended.returncode} and printed nothing"
        )
    return ended.stdout


def git(*arguments: str, cwd: Path | None = None, allowed: int = 0) -> bytes:
    """Run git and return what it prints."""
    return run(["git", *arguments], cwd, allowed=allowed)
