"""Runs git and cookiecutter: without a shell, without questions, and without what a git hook says to its children."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HOUR = 3600  # seconds: a large history on a slow line
# By these git finds another repository, index or store than that of the folder (git rev-parse --local-env-vars).
LED_ASTRAY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


class UnknownDriftError(Exception):
    """What there is to say can't be known. The message is one line, with what would mend it."""


def run(command: list[str], cwd: Path | None = None) -> bytes:
    """Give what a program prints. Raises ``UnknownDriftError`` with its last line when its exit code is not 0."""
    environment = {name: value for name, value in os.environ.items() if name not in LED_ASTRAY}
    # A question would wait for an answer that nobody can give; git status would write to the index.
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    try:
        ended = subprocess.run(  # noqa: S603 - git and this Python, with arguments that no shell sees
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=HOUR
        )
    except FileNotFoundError:
        raise UnknownDriftError(f"{command[0]} is not installed") from None
    if ended.returncode:
        lines = [line for line in (ended.stdout + ended.stderr).decode(errors="replace").splitlines() if line.strip()]
        raise UnknownDriftError(lines[-1].strip() if lines else f"exit code {ended.returncode}")
    return ended.stdout


def git(*arguments: str, cwd: Path | None = None) -> bytes:
    """Ask git."""
    return run(["git", *arguments], cwd)
