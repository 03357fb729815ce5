"""Lay the recipes one after the other over a fresh app, and print what each costs: ``python -m tests.grown PYTHON``.

PYTHON is the interpreter of an environment with the app's packages and those of the recipes. For each recipe: its files,
new and changed, its lines, and the rows of the audit before and after it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clean_copy import APP, clean_copy
from tests.grown import Recipe, recipes


def audited(app: Path, python: str) -> dict[str, tuple[str, set[str]]]:
    """Each row of the audit: its status, and the steps that are not implemented."""
    ended = subprocess.run([python, "-m", "tools.audit", "--format", "json"], cwd=app, capture_output=True, text=True)
    if ended.returncode > 1:
        raise SystemExit(ended.stderr)
    return {
        row["title"]: (row["status"], {step["id"] for step in row["steps"] if step["status"] != "implemented"})
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
                f"{title}: {before[title][0]} → {status} ({', '.join(sorted(steps - before[title][1]))})"
                for title, (status, steps) in after.items()
                if steps - before[title][1] or status != before[title][0]
            ]
            columns = [recipe.title, len(new), len(changed), lines(recipe, False), lines(recipe, True)]
            print(*["", *columns, "; ".join(rows) or "unchanged", ""], sep=" | ", flush=True)
            before = after


if __name__ == "__main__":
    main(sys.argv[1])
