"""The matrix: each mutation turns a test red, and the audit's row of its mitigation, and no row that it does not name.

``python -m tests.test_mutations`` prints docs/mutations.md.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import APP, App, outside
from tests.mutations import ASVS, MUTATIONS, Mutation
from tests.test_mitigations import STEPS

ROOT = Path(__file__).resolve().parent.parent

# All of them take their time: ``make mutants``. Each run of the other tests takes a sample.
CHOSEN = MUTATIONS if os.environ.get("MUTANTS") == "all" else MUTATIONS[::20]

pytestmark = pytest.mark.xdist_group("default")


@pytest.fixture(scope="module")
def results(default_app: App, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the killer and the audit said of each chosen mutation, by its name."""
    work = tmp_path_factory.mktemp("mutants")
    command = [default_app.folder / ".venv/bin/python", ROOT / "tests/run_mutants.py", default_app.folder, work]
    told = json.dumps([vars(mutation) for mutation in CHOSEN])
    run = subprocess.run(command, env=outside(), input=told, capture_output=True, text=True, timeout=3600)
    assert run.returncode == 0, run.stderr[-5000:]
    return {result["name"]: result for result in map(json.loads, run.stdout.splitlines())}


def test_each_of_the_53_steps_is_taken_out_and_a_hundred_mutations_are_there() -> None:
    steps = {f"{number}.S{step}" for number, count in STEPS.items() for step in range(1, count + 1)}
    assert {mutation.step for mutation in MUTATIONS} == steps
    assert len(MUTATIONS) >= 100
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


def test_each_asvs_requirement_that_a_step_names_is_left_unmet_by_a_mutation_of_that_step() -> None:
    steps = {mutation.name: mutation.step for mutation in MUTATIONS}
    named = steps_by_requirement()
    assert ASVS.keys() == named.keys()
    assert {each: name for each, name in ASVS.items() if steps.get(name) not in named[each]} == {}


def test_the_table_in_the_docs_is_this_one() -> None:
    assert (ROOT / "docs/mutations.md").read_text(encoding="utf-8") == table()


def test_the_killers_are_green_before(default_app: App) -> None:
    killers = sorted({mutation.killer for mutation in CHOSEN})
    command = [default_app.folder / ".venv/bin/pytest", "-q", "-n", "auto", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *killers], cwd=default_app.folder, env=outside(), capture_output=True, text=True, timeout=1800
    )
    assert run.returncode == 0, run.stdout[-5000:]


@pytest.mark.parametrize("mutation", CHOSEN, ids=lambda mutation: f"{mutation.step} {mutation.name}")
def test_a_mutation_is_killed_and_seen(results: dict[str, dict[str, Any]], mutation: Mutation) -> None:
    result = results[mutation.name]
    assert result["killer"] == 1, f"{mutation.killer} is green: {result['said']}"
    assert result["audit"] in (0, 1), result["report"]
    changed = {
        row["number"]: [found["evidence"] for step in row["steps"] for found in step["findings"]]
        for row in json.loads(result["report"])["mitigations"]
        if row["state"] != "implemented"
    }
    assert changed.keys() == {int(mutation.step.partition(".")[0]), *mutation.also}, changed
    unmet = {
        requirement
        for row in json.loads(result["report"])["mitigations"]
        for step in row["steps"]
        if step["findings"]
        for requirement in step["asvs"]
    }
    assert {requirement for requirement, name in ASVS.items() if name == mutation.name} <= unmet


def steps_by_requirement() -> dict[str, list[str]]:
    """The steps that name each requirement of ASVS 5.0, as their probes are written."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / APP / "app/audit/probes").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "step":
                step, _, _, *requirements = node.args
                for requirement in requirements:
                    found.setdefault(ast.literal_eval(requirement), []).append(ast.literal_eval(step))
    return found


def table() -> str:
    """The document: a row a mutation."""
    lines = [
        "# The mutations",
        "",
        "Each takes one step out of a generated app the way a person would. The test beside it is green before and red",
        "after, and the audit's row of that mitigation turns from *implemented* to *missing* or *relaxed*. No other",
        "row changes, save those in the last column. `make mutants` runs all of them.",
        "This page is printed by `python -m tests.test_mutations`.",
        "",
        "| step | what a person does | where | killed by | rows |",
        "|---|---|---|---|---|",
    ]
    for each in MUTATIONS:
        rows = ", ".join(str(row) for row in (int(each.step.partition(".")[0]), *each.also))
        lines.append(f"| {each.step} | {each.name} | `{each.file}` | `{each.killer}` | {rows} |")
    lines += [
        "",
        f"{len(MUTATIONS)} mutations.",
        "",
        "## ASVS 5.0",
        "",
        "The requirements of OWASP's Application Security Verification Standard 5.0 that steps of the audit name. Each",
        "has a mutation that leaves it unmet, and then the audit has a finding in a step that names it.",
        "",
        "| requirement | steps | left unmet when |",
        "|---|---|---|",
    ]
    steps = steps_by_requirement()
    lines += [f"| {each} | {', '.join(steps[each])} | {name} |" for each, name in ASVS.items()]
    return "\n".join([*lines, "", f"{len(ASVS)} requirements.", ""])


if __name__ == "__main__":
    print(table(), end="")
