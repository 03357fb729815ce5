"""The recipes of the app's cookbook, laid over an app: what a team adds in its first months."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.clean_copy import APP, ROOT
from tests.conftest import edit

COOKBOOK = ROOT / APP / "docs/cookbook.md"
# A block of code whose first line, a comment, names its file; and one with commands.
BLOCK = re.compile(r"(?ms)^```(\w+)\n(?:#|//|\{#|/\*) (\S+)(?: #\}| \*/)?\n(.*?)^```$")
COMMANDS = re.compile(r"(?ms)^```sh\n# run in the app's folder\n(.*?)^```$")


@dataclass
class Recipe:
    """A chapter of the cookbook. ``blocks`` are its language, file and text."""

    title: str
    text: str

    @property
    def blocks(self) -> list[tuple[str, str, str]]:
        return BLOCK.findall(self.text)

    @property
    def loosens(self) -> str:
        """What it says that it loosens, and why."""
        return re.findall(r"(?ms)^Loosens (.*?)\n(?:\n|\Z)", self.text)[0]

    @property
    def steps(self) -> set[str]:
        """The steps that the audit then shows as relaxed."""
        return set(re.findall(r"\d+\.S\d", self.loosens))

    def lay_over(self, app: Path, *, fetch: bool = True) -> None:
        """Put every block into its file, run the commands that fetch something, and register the blueprints."""
        for block in self.blocks:
            put(app, *block)
        for commands in COMMANDS.findall(self.text) if fetch else ():
            subprocess.run(["sh", "-e", "-c", commands], cwd=app, stdout=subprocess.DEVNULL, check=True)
        views = [Path(name).stem for _, name, text in self.blocks if "app/views/" in name and "\nbp = " in text]
        if views:
            register(app, *views)


def put(app: Path, language: str, name: str, text: str) -> None:
    """Write a block into its file, or make the change that it shows."""
    if language == "diff":
        lines = text.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        edit(app, {name: (before, after)})
    else:
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(text, encoding="utf-8")


def register(app: Path, *views: str) -> None:
    """Add modules with a blueprint to those of app/views/__init__.py, as the cookbook says."""
    edit(app, {"app/views/__init__.py": ("from app.views import ", f"from app.views import {', '.join(views)}, ")})
    edit(app, {"app/views/__init__.py": ("for module in (", f"for module in ({', '.join(views)}, ")})


def recipes() -> list[Recipe]:
    """All recipes in their order; later ones use what earlier ones have made."""
    chapters = COOKBOOK.read_text(encoding="utf-8").split("\n## ")[1:]
    return [Recipe(*chapter.partition("\n")[::2]) for chapter in chapters if "\nLoosens " in chapter]
