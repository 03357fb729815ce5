"""A generated app passes its own linters, types and tests in an environment made from its pinned requirements."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clean_copy import APP, clean_copy
from tests.conftest import App, Cookiecutter, check_all_passed
from tests.test_mitigations import THREATS


def test_tests_with_the_defaults(default_app: App, record_property: pytest.RecordProperty) -> None:
    printed = default_app.make("test", PYTEST_XDIST_AUTO_NUM_WORKERS=str(1 + (os.cpu_count() or 1)))
    record_property("the app's own tests, defaults", check_all_passed(printed))


def test_linters_with_the_defaults_and_in_place(
    default_app: App, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """A few marks and names are all that differs from the generated app, so most tests are left to that one."""
    default_app.make("lint")
    clean_copy(tmp_path / "template")  # of its own: Python leaves caches behind, which cookiecutter can't render
    app = tmp_path / "template" / APP
    # What mypy knows of the packages, and of files that are the same, it need not find out again.
    default_app.make("lint", cwd=app, MYPY_CACHE_DIR=f"{default_app.folder}/.mypy_cache")
    record_property("a part of the app's own tests, in place", default_app.quick_tests(app))


def test_linters_and_tests_without_options(cookiecutter: Cookiecutter, record_property: pytest.RecordProperty) -> None:
    """With a sample of each test's cases, and without servers and the browser, which see no accounts anyway.

    uv makes the environment, which takes a tenth of the time of pip, and checks each hash too. Pip makes that of the
    app with the defaults.
    """
    app = App(cookiecutter.app("accounts=no", "docker=no", "ci=none", "lessons=no"))
    uv = Path(sys.executable).with_name("uv")
    app.run(uv, "venv", "--quiet", "--python", sys.executable, ".venv")
    pinned = [option for name in ("requirements.txt", "requirements-dev.txt") for option in ("-r", name)]
    app.run(uv, "pip", "install", "--quiet", "--require-hashes", "--python", ".venv", *pinned)
    (app.folder / ".venv/installed").touch()
    app.make("lint")
    printed = app.run(".venv/bin/pytest", "--sample=10", "--in-process")
    record_property("the app's own tests, without options", check_all_passed(printed))


def test_each_of_the_34_threats_has_an_attack_that_pytest_collects(default_app: App) -> None:
    collect = [".venv/bin/python", "-m", "pytest", "--collect-only", "--quiet"]
    listed = subprocess.run(collect, cwd=default_app.folder, capture_output=True, encoding="utf-8", check=True).stdout
    attacked = {(int(number), int(threat)) for number, threat in re.findall(r"::test_(\d+)_T(\d+)_", listed)}
    expected = {(number, threat) for number, count in THREATS.items() for threat in range(1, count + 1)}
    assert len(expected) == 34
    assert attacked == expected
