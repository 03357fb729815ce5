"""The generated app stays small enough to be read: at most 60 files and 4,000 lines of its own code."""

from __future__ import annotations

import pytest
from pygount import SourceAnalysis

from tests.conftest import Cookiecutter, files

CODE = (".py", ".html", ".css", ".js", ".svg", ".txt")
# Not counted: what attacks or teaches, and what a tool wrote.
ASIDE = ("tests/", "docs/", "requirements")


def test_the_app_fits_its_budget(cookiecutter: Cookiecutter, record_property: pytest.RecordProperty) -> None:
    """pygount counts lines with code in them: blank lines, comments and docstrings are for the reader."""
    app = cookiecutter.app()
    own = [name for name in files(app) if name.endswith(CODE) and not name.startswith(ASIDE)]
    lines = sum(SourceAnalysis.from_file(str(app / name), "app").code_count for name in own)
    record_property("generated app, tests and docs aside", f"{len(own)} files, {lines} lines of code")
    assert len(own) <= 60
    assert lines <= 4000
