"""An app that its team has grown by the cookbook: its tests, linters and audit stay green, and say what is loosened."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import App, Cookiecutter, check_all_passed
from tests.grown import grow
from tests.test_audit import audit

ROOT = Path(__file__).resolve().parent.parent
COOKBOOK = (ROOT / APP / "docs/cookbook.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def grown(template: Path, default_app: App, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The grown app. Its environment sees the default app's packages, and has those that the recipes add."""
    folder = tmp_path_factory.mktemp("grown")
    app = App(Cookiecutter(template, folder / "out", folder / "home").app())
    grow(app.folder)
    subprocess.run([sys.executable, "-m", "venv", app.folder / ".venv"], check=True)
    packages = next((app.folder / ".venv").glob("lib/python*/site-packages"))
    shared = next((default_app.folder / ".venv").glob("lib/python*/site-packages"))
    (packages / "shared.pth").write_text(f"{shared}\n")
    added = re.findall(r'(?m)^\+    "(\S+)",', COOKBOOK)
    app.run(".venv/bin/python", "-m", "pip", "install", "--quiet", *added)
    for fix in (["check", "--fix", "--quiet"], ["format", "--quiet"]):  # as "make format" does
        app.run(default_app.folder / ".venv/bin/ruff", *fix, ".")
    return app


def test_each_recipe_says_what_it_loosens() -> None:
    recipes = COOKBOOK.split("\n## ")[1:-1]
    assert [recipe.partition("\n")[0] for recipe in recipes if "\nLoosens " not in recipe] == []


def test_the_audit_of_a_grown_app_shows_what_it_loosens_and_why(
    grown: App, record_property: pytest.RecordProperty
) -> None:
    ended = audit(grown, "--format", "json")
    found = [
        (row["number"], step["id"], each["severity"], each["evidence"])
        for row in json.loads(ended.stdout)["mitigations"]
        for step in row["steps"]
        for each in step["findings"]
    ]
    assert [each for each in found if each[2] == "missing"] == []
    assert ended.returncode == 0
    # Each step that a recipe says it loosens, and no other.
    said = {step for line in re.findall(r"(?ms)^Loosens (.*?)\n\n", COOKBOOK) for step in re.findall(r"\d+\.S\d", line)}
    assert {step for _, step, severity, _ in found if severity == "relaxed"} == said
    record_property("relaxed in the grown app", len([each for each in found if each[2] == "relaxed"]))


def test_the_linters_of_a_grown_app_are_green(grown: App, default_app: App) -> None:
    bin_ = default_app.folder / ".venv/bin"
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["djlint", "app", "--lint", "--check"]):
        grown.run(bin_ / command[0], *command[1:])
    grown.run(".venv/bin/python", "-m", "mypy")


def test_the_tests_of_a_grown_app_are_green(grown: App, record_property: pytest.RecordProperty) -> None:
    """All that the template has brought, with a sample of the payloads."""
    command = [".venv/bin/python", "-m", "pytest", "--numprocesses=auto"]
    record_property("the app's own tests, grown", check_all_passed(grown.run(*command, PAYLOAD_SAMPLE="10")))
