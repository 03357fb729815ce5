"""Generating takes at most 1.6 times what cookiecutter takes for a template of one file."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

import pytest

from tests.conftest import APP, Cookiecutter, commit

RUNS = 25


def test_generating_is_nearly_as_fast_as_cookiecutter_alone(
    template: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    commit(whole)  # as it is when it comes from an address
    one_file = tmp_path / "one"
    (one_file / APP).mkdir(parents=True)
    (one_file / "cookiecutter.json").write_text('{"project_slug": "one"}')
    (one_file / APP / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")

    seconds: dict[Path, list[float]] = {one_file: [], whole: []}
    for run in range(RUNS):  # taken in turns, so that whatever else the machine does slows both
        for source, taken in seconds.items():
            tool = Cookiecutter(source, tmp_path / f"{source.name}-{run}", tmp_path / "home")
            start = time.perf_counter()
            tool.app()
            taken.append(time.perf_counter() - start)
    one, ours = (statistics.median(taken) for taken in seconds.values())
    record_property("generation", f"{ours:.2f} s, {ours / one:.2f} × a template of one file ({one:.2f} s)")
    assert ours <= 1.6 * one
