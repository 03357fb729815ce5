"""``make bench`` prints what an app costs. It judges nothing: machines differ.

Things that are compared take turns, so other load on the machine slows both. A figure is the median of the rounds, with
the quartiles in parentheses.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import chain
from pathlib import Path

from tests.bench.generation import audits, generation
from tests.bench.requests import requests
from tests.clean_copy import clean_copy
from tests.conftest import App, Cookiecutter, commit


def main(rounds: int) -> None:
    """Print the report. A start and an audit, which take seconds, have fewer rounds."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clean_copy(work / "template")
        commit(work / "template")  # as it is when it comes from an address
        tool = Cookiecutter(work / "template", work / "out", work / "home")
        apps = {
            "accounts": tool.app("project_slug=with"),
            "no accounts": tool.app("project_slug=without", "accounts=no"),
        }
        App(apps["accounts"]).make(f"{apps['accounts']}/.venv/installed")
        python = apps["accounts"] / ".venv/bin/python"
        parts = requests(apps, python, rounds), generation(work, rounds), audits(python, apps["accounts"])
        for line in chain(*parts):
            print(line, flush=True)


if __name__ == "__main__":
    main(max(int(sys.argv[1]), 2) if len(sys.argv) > 1 else 15)  # quartiles need two values
