"""What generating an app and auditing it cost: the second part of ``make bench``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.requests import ratios, spread
from tests.clean_copy import APP
from tests.conftest import Cookiecutter, outside


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def generation(work: Path, rounds: int) -> Iterator[str]:
    """Yield the lines about generating: the template in ``work / "template"``, beside one of a single file."""
    one_file = work / "one"
    (one_file / APP).mkdir(parents=True)
    (one_file / "cookiecutter.json").write_text('{"project_slug": "one"}')
    (one_file / APP / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
    taken: dict[str, list[float]] = {"one": [], "template": []}
    for turn in range(rounds):
        for name, seconds in taken.items():
            tool = Cookiecutter(work / name, work / f"{name}-{turn}", work / "home")
            seconds.append(timed(tool.app))
    times = spread(ratios(taken["template"], taken["one"]))
    yield f"Generating an app takes {spread(taken['template'])} s, a template of one file {spread(taken['one'])} s:"
    yield f"{times} times."


def audits(python: Path, folder: Path, rounds: int) -> Iterator[str]:
    """Yield the line about the audit."""
    command = [python, "-m", "tools.audit"]
    environment = outside() | {"SECRET_KEY": "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU"}
    seconds = [
        timed(lambda: subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL))
        for _ in range(rounds)
    ]
    yield f"`make audit` takes {spread(seconds)} s."
