"""Our home page beside that of another template: cookiecutter-flask has no nonce, no limits and few headers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.requests import contenders, in_turn, ratios, spread
from tests.conftest import outside

ADDRESS = os.environ.get("COOKIECUTTER_FLASK", "https://github.com/cookiecutter-flask/cookiecutter-flask")
COMMIT = "e5666c23a633b5b6fcb0dc2cfda2441d7f885727"  # of 2025-08-13
ANSWERS = {
    "app_name": "elsewhere",
    "project_name": "Elsewhere",
    "python_version": "3.11",
    "node_version": "22",
    "use_pipenv": "no",
    "use_heroku": "no",
}


def generated(work: Path) -> tuple[Path, Path]:
    """Generate the other app in ``work``, and return its Python and its folder. Raises CalledProcessError."""
    template, home = work / "elsewhere-template", work / "elsewhere-home"
    answers = [f"{name}={value}" for name, value in ANSWERS.items()]
    folder, python = work / "elsewhere", work / "elsewhere-venv/bin/python"
    for command in (
        ["git", "clone", "--quiet", ADDRESS, template],
        ["git", "-C", template, "checkout", "--quiet", COMMIT],
        [sys.executable, "-m", "cookiecutter", template, "--no-input", "-o", work, *answers],
        [sys.executable, "-m", "venv", python.parent.parent],
        [python, "-m", "pip", "install", "--quiet", "--requirement", folder / "requirements/prod.txt"],
    ):
        subprocess.run(command, env=outside() | {"HOME": str(home)}, check=True, capture_output=True)
    return python, folder


def beside(apps: dict[str, Path], python: Path, work: Path, rounds: int) -> Iterator[str]:
    """Yield the lines about the home pages. If the other app can't be installed here, they say so."""
    yield ""
    try:
        other_python, other = generated(work)
    except subprocess.CalledProcessError as error:
        command = " ".join(Path(part).name for part in map(str, error.cmd[:4]))
        yield f"cookiecutter-flask was not compared: `{command} …` has failed here."
        return
    wanted: dict[str, tuple[str | Path, ...]] = {name: (python, "app", folder) for name, folder in apps.items()}
    wanted["elsewhere"] = (other_python, "elsewhere", other)
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):  # each in new processes: the other app's cost differs between them
        with contenders(wanted, ["home"]) as running:
            for key, milliseconds in in_turn(running, 1, ["home"]).items():
                taken.setdefault(key, []).extend(milliseconds)
    theirs = taken["elsewhere", "home"]
    for name in apps:
        ours = taken[name, "home"]
        yield (
            f"The home page ({name}) takes {spread(ours)} ms, and that of cookiecutter-flask {spread(theirs)} ms: "
            f"{spread(ratios(ours, theirs))} times as long."
        )
