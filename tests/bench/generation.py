"""What generating an app, auditing it and an upload cost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.requests import SLOW_ROUNDS, printed_by, ratios, spread
from tests.clean_copy import APP
from tests.conftest import Cookiecutter, outside


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that ``run`` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def generation(work: Path, rounds: int) -> Iterator[str]:
    """Yield the line about generating from ``work / "template"``, compared with a template of a single file."""
    one_file = work / "one"
    (one_file / APP).mkdir(parents=True)
    (one_file / "cookiecutter.json").write_text('{"project_slug": "one"}')
    (one_file / APP / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
    taken: dict[str, list[float]] = {"one": [], "template": []}
    for turn in range(rounds):
        for name, seconds in taken.items():
            tool = Cookiecutter(work / name, work / f"{name}-{turn}", work / "home")
            seconds.append(timed(tool.app))
    ours, one = taken["template"], taken["one"]
    yield (
        f"Generating an app takes {spread(ours)} s, and {spread(one)} s from a template of one file: "
        f"{spread(ratios(ours, one))} times as long."
    )


def audits(python: Path, folder: Path) -> Iterator[str]:
    """Yield the line about the audit of the app in ``folder``."""
    command = [python, "-m", "tools.audit"]
    seconds = [
        timed(lambda: subprocess.run(command, cwd=folder, env=outside(), check=True, stdout=subprocess.DEVNULL))
        for _ in range(SLOW_ROUNDS)
    ]
    yield f"`make audit` takes {spread(seconds)} s."


def uploads(python: Path, folder: Path) -> Iterator[str]:
    """Yield the line about an upload to the app in ``folder``."""
    taken: dict[str, list[float]] = printed_by(python, "storing.py", folder, str(SLOW_ROUNDS))
    upload, alone, plain = taken["upload"], taken["alone"], taken["plain"]
    yield (
        f"An upload of 10 MB takes {spread(upload, '{:.0f}')} CPU ms, and writing the same bytes and reading them once "
        f"{spread(plain, '{:.0f}')} ms: {spread(ratios(upload, plain), '{:.1f}')} times as long. "
        f"A view of Flask alone, which stores the file and does nothing else, takes {spread(alone, '{:.0f}')} ms, "
        f"{spread(ratios(alone, plain), '{:.1f}')} times as long."
    )
