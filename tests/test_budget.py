"""The generated app stays small enough to be read: 98 files, 6,480 lines of code, what examines it aside."""

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
    lessons = [name for name in own if name.startswith("tools/lessons/")]
    tools = [name for name in own if name.startswith("tools/") and name not in lessons]
    rest = sorted(set(own) - set(tools) - set(lessons))
    for what, names, most_files, most_lines in (
        ("generated app, its tools, tests and docs aside", rest, 98, 6480),
        ("its tools: audit and drift", tools, 45, 4170),
        ("its lessons", lessons, 34, 910),
    ):
        lines = sum(SourceAnalysis.from_file(str(app / name), "app").code_count for name in names)
        record_property(what, f"{len(names)} files, {lines} lines of code")
        assert len(names) <= most_files
        assert lines <= most_lines
