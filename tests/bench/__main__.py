"""``make bench`` writes what an app costs to ``docs/performance.md``. It judges nothing: machines differ.

Things that are compared take turns, so other load on the machine slows both. A figure is the median of the rounds, with
the quartiles in parentheses.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path

from tests.bench.beside import beside
from tests.bench.counting import counting
from tests.bench.generation import audits, generation, uploads
from tests.bench.growth import growth
from tests.bench.requests import mitigations, packages, pages, starts_and_memory
from tests.bench.served import served
from tests.clean_copy import ROOT, clean_copy
from tests.conftest import App, Cookiecutter, commit

HEADER = """\
# What the mitigations cost

`make bench` has written this. Each figure is the median of several rounds, with the quartiles in parentheses. What is
compared took turns in the same minutes, on one machine; the ratios tell more than the milliseconds.

"""


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
        for folder in apps.values():  # as in the image; PYTHONDONTWRITEBYTECODE would make each start compile it
            subprocess.run([python, "-m", "compileall", "-q", "app", "tools"], cwd=folder, check=True)
        parts = (
            HEADER.splitlines(),
            pages(apps, python, rounds),
            mitigations(apps["accounts"], python, rounds),
            packages(apps["accounts"], python),
            beside(apps, python, work, rounds),
            served(apps, python),
            starts_and_memory(apps, python),
            ("", "## Other parts", ""),
            generation(work, rounds),
            audits(python, apps["accounts"]),
            uploads(python, apps["accounts"]),
            counting(python, apps["accounts"], rounds),
            growth(python, apps["accounts"]),
        )
        lines = []
        for line in chain(*parts):
            print(line, flush=True)
            lines.append(f"{line}\n")
    (ROOT / "docs/performance.md").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(max(int(sys.argv[1]), 2) if len(sys.argv) > 1 else 15)  # quartiles need two values
