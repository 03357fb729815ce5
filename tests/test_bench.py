"""A short form of ``make bench``: it prints what it measures, and judges nothing."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.bench.counting import counting
from tests.bench.generation import uploads
from tests.bench.requests import packages, pages
from tests.conftest import App


def test_the_bench_measures_a_generated_app(default_app: App, record_property: pytest.RecordProperty) -> None:
    python, folder = default_app.folder / ".venv/bin/python", default_app.folder
    parts = (
        pages({"accounts": folder}, python, 2),
        packages(folder, python),
        uploads(python, folder),
        counting(python, folder, 2),
    )
    printed = list(chain(*parts))
    assert sum(line.startswith("|") for line in printed) > 5
    for line in filter(None, printed):
        record_property("bench", line)
