"""docs/mitigations.md of the generated app names, for each step and threat, code and tests that exist."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.mutations import MUTATIONS

STEPS = {1: 5, 2: 6, 3: 5, 4: 5, 5: 5, 6: 5, 7: 5, 8: 5, 9: 7, 10: 5}
THREATS = {1: 3, 2: 2, 3: 3, 4: 4, 5: 3, 6: 4, 7: 3, 8: 4, 9: 4, 10: 4}
IDS = {f"{number}.S{step}" for number, count in STEPS.items() for step in range(1, count + 1)} | {
    f"{number}.T{threat}" for number, count in THREATS.items() for threat in range(1, count + 1)
}
PATH = re.compile(r"`([\w./-]+?)(?:::(\w+))?`")


def rows(app: Path) -> dict[str, str]:
    """The table's rows by their id. A row for several counts for each."""
    found: dict[str, str] = {}
    for line in (app / "docs/mitigations.md").read_text(encoding="utf-8").splitlines():
        match = re.match(r"\|\s*(\d+)\.([ST])(\d+)(?:–(\d+))?\s*\|", line)
        if match:
            number, kind, first, last = match.groups()
            for position in range(int(first), int(last or first) + 1):
                assert f"{number}.{kind}{position}" not in found
                found[f"{number}.{kind}{position}"] = line
    return found


def test_the_table_has_each_of_the_53_steps_and_34_threats_once(template: Path) -> None:
    assert len(IDS) == 53 + 34
    assert rows(template / APP).keys() == IDS


@pytest.mark.parametrize("row", sorted(IDS))
def test_a_row_names_code_and_tests_that_exist(template: Path, row: str) -> None:
    app = template / APP
    named = PATH.findall(rows(app)[row])
    paths = [(path, test) for path, test in named if "/" in path or (app / path).exists()]
    assert [path for path, _ in paths if not (app / path).exists()] == []
    tests = [(path, test) for path, test in paths if path.startswith("tests/")]
    assert tests, "names no test"
    assert ".T" in row or len(paths) > len(tests), "names no code"
    for path, test in tests:
        if test:
            tree = ast.parse((app / path).read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", sorted(row for row in IDS if ".S" in row))
def test_a_row_names_every_file_that_its_step_can_be_taken_out_of(template: Path, row: str) -> None:
    where = re.split(r"(?<!\\)\|", rows(template / APP)[row])[3]
    named = tuple(re.findall(r"`([^`]+)`", where))
    assert [path for path in named if not (template / APP / path).exists()] == []
    files = {mutation.file for mutation in MUTATIONS if mutation.step == row}
    assert [file for file in files if file not in named and not file.startswith(tuple(folders(named)))] == []


def folders(named: tuple[str, ...]) -> list[str]:
    return [path for path in named if path.endswith("/")]


def requirements(text: str) -> set[str]:
    """The requirements of ASVS that a text names. ``V3.3.1-V3.3.4`` are four."""
    found = set()
    for chapter, first, last in re.findall(r"\b(V\d+\.\d+)\.(\d+)(?:-\1\.(\d+))?", text):
        found.update(f"{chapter}.{number}" for number in range(int(first), int(last or first) + 1))
    return found


def test_the_judge_reads_ranges_of_requirements() -> None:
    assert requirements("V3.3.1-V3.3.3, V16.2.5. V1.10.2") == {"V3.3.1", "V3.3.2", "V3.3.3", "V16.2.5", "V1.10.2"}


@pytest.mark.parametrize("number", STEPS)
def test_the_modules_of_a_mitigation_name_the_requirements_that_the_audit_names(template: Path, number: int) -> None:
    app = template / APP
    (line,) = re.findall(rf"(?m)^\| {number} \|[^|]*\|([^|]*)\|", (app / "docs/mitigations.md").read_text("utf-8"))
    places = [app / "app" / name for name in re.findall(r"`([^`]+)`", line)]
    modules = [path for place in places for path in (sorted(place.glob("*.py")) if place.is_dir() else [place])]
    texts = [ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in modules]
    audited = runpy.run_path(str(app / "tools/audit/mitigations.py"))["MITIGATIONS"][number].steps
    assert requirements(" ".join(texts)) == {requirement for step in audited for requirement in step.asvs}
