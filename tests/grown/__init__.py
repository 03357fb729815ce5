"""The recipes of the app's cookbook, laid over an app: what a team adds in its first months."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.conftest import edit

# A block of code whose first line, a comment, names its file; and one with commands.
BLOCK = re.compile(r"(?ms)^```(\w+)\n(?:#|//|\{#|/\*) (\S+)(?: #\}| \*/)?\n(.*?)^```$")
COMMANDS = re.compile(r"(?ms)^```sh\n# run in the app's folder\n(.*?)^```$")


def recipes(app: Path) -> list[tuple[str, str, str]]:
    """The blocks of the cookbook in their order: language, file and text."""
    return BLOCK.findall((app / "docs/cookbook.md").read_text(encoding="utf-8"))


def grow(app: Path) -> list[str]:
    """Put every block into its file and run the commands, as the cookbook says, and return the names of the files."""
    for language, name, text in recipes(app):
        path = app / name
        if language == "diff":
            lines = text.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            edit(app, {name: (before, after)})
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for commands in COMMANDS.findall((app / "docs/cookbook.md").read_text(encoding="utf-8")):
        subprocess.run(["sh", "-e", "-c", commands], cwd=app, check=True)
    register(app)
    return sorted({name for _, name, _ in recipes(app)})


def register(app: Path) -> None:
    """Add the new modules with a blueprint to the list in app/views/__init__.py."""
    views = app / "app/views/__init__.py"
    text = views.read_text(encoding="utf-8")
    names = [Path(name).stem for _, name, text in recipes(app) if name.startswith("app/views/") and "\nbp = " in text]
    lines = "".join(f"    {name},\n" for name in names)
    text = re.sub(r"from app\.views import (.*)", rf"from app.views import (\n{lines}    \1\n)", text, count=1)
    text = re.sub(r"for module in \((.*?)\):", rf"for module in (\n{lines}    \1,\n):", text, count=1)
    views.write_text(text, encoding="utf-8")
