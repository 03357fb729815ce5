"""``python -m tests.faults`` writes the tables of docs/production.md from the tests.

Each mark ``@pytest.mark.fault(part, fault, sees=…, ends=…)`` is one row: what people see, and when that ends. It says
only what the test asserts.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

from app.paths import ROOT

PAGE = ROOT / "docs/production.md"
# Before each table, a comment names the files whose tests are its rows.
TABLE = re.compile(r"(<!-- (tests/\S+) -->\n)\n?(?:\|.*\n)*")
HEAD = "\n| Part | Fault | What people see | When it ends | Test |\n|---|---|---|---|---|\n"


def as_the_tests_say(page: str) -> str:
    """Return the page with new tables."""
    return TABLE.sub(lambda table: f"{table[1]}{HEAD}{''.join(sorted(rows(table[2]), key=part_of))}", page)


def part_of(row: str) -> str:
    return row.split(" | ")[0].casefold()


def rows(pattern: str) -> Iterator[str]:
    for path in sorted(ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        module = vars(importlib.import_module(name.removesuffix(".py").replace("/", ".")))
        for test in [each for each in module if each.startswith("test_")]:
            for mark in reversed(getattr(module[test], "pytestmark", [])):
                if mark.name == "fault":
                    cells = [*mark.args, mark.kwargs["sees"], mark.kwargs["ends"], f"`{name}::{test}`"]
                    yield f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(as_the_tests_say(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
