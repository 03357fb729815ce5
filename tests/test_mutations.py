"""The matrix: each mutation turns a test red, and the audit's row of its mitigation, and no row that it does not name.

``make mutations`` prints it, as ``python -m tests.test_mutations`` does.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clean_copy import APP
from tests.conftest import App, outside
from tests.mutations import MUTATIONS, Mutation, places
from tests.test_mitigations import STEPS

ROOT = Path(__file__).resolve().parent.parent
KILLERS = {name: found[0] for name, found in places(ROOT / APP).items()}

# ``make mutants`` runs all of them, which takes long. ``make test`` runs a sample, and the whole suite of a generated
# app (tests/test_generated_app.py), which shows that the killers are green before.
ALL = os.environ.get("MUTANTS") == "all"
CHOSEN = MUTATIONS if ALL else MUTATIONS[::75]
# For these, the whole audit runs, which shows that no other row changes. For the others, only their row.
WHOLE = MUTATIONS[::225]


@pytest.fixture(scope="module")
def examine(
    default_app: App, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Mutation], dict[str, Any]]]:
    """A function that returns what the killer and the audit say of a mutation."""
    work = tmp_path_factory.mktemp("mutants")
    command = [default_app.folder / ".venv/bin/python", ROOT / "tests/run_mutants.py", default_app.folder, work]

    def ask(mutation: Mutation) -> dict[str, Any]:
        more = {"killer": KILLERS[mutation.killer], "only": mutation not in WHOLE}
        print(json.dumps(vars(mutation) | more), file=process.stdin, flush=True)
        return dict(json.loads(process.stdout.readline()))

    with subprocess.Popen(command, env=outside(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield ask


def test_each_mutation_fits_its_file() -> None:
    texts = {name: (ROOT / APP / name).read_text(encoding="utf-8") for name in {each.file for each in MUTATIONS}}
    found = {f"{each.step} {each.name}": texts[each.file].count(each.before) for each in MUTATIONS}
    assert {name: count for name, count in found.items() if count != 1} == {}
    assert [each.name for each in MUTATIONS if each.before == each.after] == []


def test_each_killer_is_one_test_of_the_app() -> None:
    found = places(ROOT / APP)
    counts = {each.killer: len(found.get(each.killer, [])) for each in MUTATIONS}
    assert {killer: count for killer, count in counts.items() if count != 1} == {}


def test_each_of_the_53_steps_is_taken_out_and_no_two_mutations_have_one_name() -> None:
    steps = {f"{number}.S{step}" for number, count in STEPS.items() for step in range(1, count + 1)}
    assert {mutation.step for mutation in MUTATIONS} == steps
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


def test_each_asvs_requirement_that_a_step_names_is_left_unmet_by_one_mutation_of_that_step() -> None:
    named = steps_by_requirement()
    assert sorted(requirement for mutation in MUTATIONS for requirement in mutation.asvs) == sorted(named)
    assert [each.name for each in MUTATIONS for requirement in each.asvs if each.step not in named[requirement]] == []


if ALL:

    def test_the_killers_are_green_before(default_app: App) -> None:
        killers = sorted({KILLERS[mutation.killer] for mutation in CHOSEN})
        command = [default_app.folder / ".venv/bin/pytest", "-q", "-n", "auto", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*command, *killers], cwd=default_app.folder, env=outside(), capture_output=True, text=True, timeout=1800
        )
        assert run.returncode == 0, run.stdout[-5000:]


@pytest.mark.parametrize("mutation", CHOSEN, ids=lambda mutation: f"{mutation.step} {mutation.name}")
def test_a_mutation_is_killed_and_seen(examine: Callable[[Mutation], dict[str, Any]], mutation: Mutation) -> None:
    result = examine(mutation)
    assert result["killer"] == 1, f"{mutation.killer} is green: {result['said']}"
    assert result["audit"] in (0, 1), result["report"]
    changed = {
        row["number"]: [found["evidence"] for step in row["steps"] for found in step["findings"]]
        for row in json.loads(result["report"])["mitigations"]
        if row["state"] != "implemented"
    }
    audited = {row["number"] for row in json.loads(result["report"])["mitigations"]}
    assert changed.keys() == audited & {*mutation.rows}, changed
    unmet = {
        requirement
        for row in json.loads(result["report"])["mitigations"]
        for step in row["steps"]
        if step["findings"]
        for requirement in step["asvs"]
    }
    assert set(mutation.asvs) <= unmet


def steps_by_requirement() -> dict[str, list[str]]:
    """The steps that name each requirement of ASVS 5.0, in the audit's own table."""
    found: dict[str, list[str]] = {}
    for mitigation in runpy.run_path(str(ROOT / APP / "tools/audit/mitigations.py"))["MITIGATIONS"].values():
        for step in mitigation.steps:
            for requirement in step.asvs:
                found.setdefault(requirement, []).append(step.id)
    return found


def table() -> str:
    """All of them for people to read: a row a mutation, and a row a requirement of ASVS 5.0."""
    lines = [
        "# The mutations",
        "",
        "Each takes one step out of a generated app the way a person would. The test beside it is green before and red",
        "after, and the audit's rows of the mitigations in the last column turn from *implemented* to *missing* or",
        "*relaxed*. `make mutants` runs all of them. For a few, a whole audit shows that no other row changes.",
        "",
        "| step | what a person does | where | killed by | rows |",
        "|---|---|---|---|---|",
    ]
    for each in sorted(MUTATIONS, key=lambda each: [int(part) for part in each.step.split(".S")]):
        rows = ", ".join(map(str, each.rows)) or "none"
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
    unmet = {requirement: mutation.name for mutation in MUTATIONS for requirement in mutation.asvs}
    steps = steps_by_requirement()
    for each in sorted(steps, key=lambda each: [int(part) for part in each[1:].split(".")]):
        lines.append(f"| {each} | {', '.join(steps[each])} | {unmet[each]} |")
    return "\n".join([*lines, "", f"{len(steps)} requirements.", ""])


if __name__ == "__main__":
    print(table(), end="")
