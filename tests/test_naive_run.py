"""The attacks on the naive app, run where Flask and Playwright are: in the environment of a generated app."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import App, check_all_passed, outside

ROOT = Path(__file__).resolve().parent.parent


def test_every_attack_on_the_naive_app_succeeds(default_app: App, record_property: pytest.RecordProperty) -> None:
    command = [default_app.folder / ".venv/bin/python", "-m", "pytest", "--noconftest"]
    command += ["-p", "no:cacheprovider", "tests/test_naive.py"]
    run = subprocess.run(command, cwd=ROOT, env=outside(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-20_000:]
    record_property("attacks on the naive app", check_all_passed(run.stdout))
