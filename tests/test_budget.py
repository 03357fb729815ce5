"""The generated app stays small enough to be read: at most 60 files and 4,000 lines of its own."""

from __future__ import annotations

import pytest

from tests.conftest import Cookiecutter, files

# Not counted: what attacks or teaches, and what tools or lawyers wrote.
ASIDE = ("tests/", "docs/", "requirements", "LICENSE", ".env")


def test_the_app_fits_its_budget(cookiecutter: Cookiecutter, record_property: pytest.RecordProperty) -> None:
    own = {name: content for name, content in files(cookiecutter.app()).items() if not name.startswith(ASIDE)}
    lines = sum(len(content.splitlines()) for content in own.values())
    record_property("generated app, tests and docs aside", f"{len(own)} files, {lines} lines")
    assert len(own) <= 60
    assert lines <= 4000
