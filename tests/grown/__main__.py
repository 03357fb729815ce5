"""Lay the recipes one after the other over a fresh app, and print what each costs: ``python -m tests.grown PYTHON``.

PYTHON is the interpreter of an environment with the app's packages and those of the recipes. What it prints for each
recipe: its files, new and changed, its lines, and the rows of the audit before and after it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.clean_copy import APP, clean_copy
from tests.grown import Recipe, recipes


def audited(app: Path, python: str) -> dict[str, tuple[str, Counter[str]]]:
    """Each row of the audit: its state, and the number of findings of each step."""
    command, key = [python, "-m", "tools.audit", "--format", "json"], {"SECRET_KEY": secrets.token_urlsafe(48)}
    ended = subprocess.run(command, cwd=app, env=os.environ | key, capture_output=True, text=True)
    if ended.returncode > 1:
        raise SystemExit(ended.stderr)
    return {
        row["title"]: (row["state"], Counter({step["id"]: len(step["findings"]) for step in row["steps"]}))
        for row in json.loads(ended.stdout)["mitigations"]
    }


def lines(recipe: Recipe, tests: bool) -> int:
    """The lines that it adds, to the app or to its tests."""
    count = 0
    for language, name, text in recipe.blocks:
        if name.startswith("tests/") is tests:
            count += sum(language != "diff" or line.startswith("+") for line in text.splitlines())
    return count


def main(python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clean_copy(Path(folder) / "template")
        app = Path(shutil.copytree(Path(folder) / "template" / APP, Path(folder) / "app"))
        before = audited(app, python)
        print("| recipe | new files | changed files | lines | of tests | audit: before → after |")
        print("|---|---|---|---|---|---|")
        for recipe in recipes():
            recipe.lay_over(app)
            after = audited(app, python)
            changed = {name for language, name, _ in recipe.blocks if language == "diff"}
            new = {name for language, name, _ in recipe.blocks if language != "diff"} - changed
            rows = [
                f"{title}: {before[title][0]} → {state} ({', '.join(f'{step}: {n}' for step, n in more.items())})"
                for title, (state, findings) in after.items()
                if (more := findings - before[title][1])
            ]
            columns = [recipe.title, len(new), len(changed), lines(recipe, False), lines(recipe, True)]
            print(*["", *columns, "; ".join(rows) or "unchanged", ""], sep=" | ", flush=True)
            before = after


if __name__ == "__main__":
    main(sys.argv[1])
