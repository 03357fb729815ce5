"""``make bench`` prints what an app costs. It judges nothing: machines differ.

Things that are compared take turns, so that whatever else the machine does slows both. A figure is the median of the
rounds, with the quartiles between brackets.
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
    """Measure each thing ``rounds`` times; a start and an audit less often, for they take longer."""
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
        parts = requests(apps, python, rounds), generation(work, rounds), audits(python, apps["accounts"], 5)
        for line in chain(*parts):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
