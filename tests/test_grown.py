"""An app that its team has grown by the cookbook: its tests, linters and audit stay green, and say what is loosened."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.clean_copy import ROOT
from tests.conftest import App, Cookiecutter, check_all_passed
from tests.grown import COOKBOOK, recipes
from tests.test_audit import audit

# The team's own tests; and what growth can turn red: the tests of routes, pages, forms, headers, policies, limits,
# redirects and errors, and of what members may open. The others attack the key, the log, images, mails, servers and the
# tools, or a page of their own, which no recipe touches: they are green as well, and GROWN=all runs them too.
OWN = ["views", *(f"browser/test_{name}.py" for name in ("grown_in_chromium", "accessibility", "pages"))]
OTHERS = """
    test_02_csrf.py test_03_csp.py test_04_cookies.py test_05_errors.py test_06_headers.py test_07_templates.py
    test_08_rate_limits.py test_09_accepts.py test_10_urls.py test_pages.py test_websockets.py
    accounts/test_accounts.py accounts/test_database.py accounts/test_error_pages.py accounts/test_forms.py
    accounts/test_members.py
    lint/test_files.py lint/test_templates.py
""".split()  # noqa: SIM905
LEFT_OUT = ("7_T", "8_T", "8_S4")


@pytest.fixture(scope="session")
def grown(template: Path, default_app: App) -> App:
    """The grown app, made once, beside the default one."""
    folder = default_app.folder.parent.parent.parent / "grown"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            grow(template, default_app, folder.with_suffix(".new"))
            folder.with_suffix(".new").rename(folder)
    return App(folder / "out/secure-flask-app")


def grow(template: Path, default_app: App, folder: Path) -> None:
    """Lay all recipes over a fresh app. It has their packages, and sees those of the default app."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    app = App(Cookiecutter(template, folder / "out", folder / "home").app())
    for recipe in recipes():
        recipe.lay_over(app.folder)
    shutil.copy(ROOT / "tests/grown/test_grown_in_chromium.py", app.folder / "tests/browser")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", app.folder / ".venv"], check=True)
    packages, shared = (next((each.folder / ".venv").glob("lib/python*/site-packages")) for each in (app, default_app))
    (packages / "shared.pth").write_text(f"{shared}\n")
    added = re.findall(r'(?m)^\+    "(\S+)",', COOKBOOK.read_text(encoding="utf-8"))
    app.run(default_app.folder / ".venv/bin/uv", "pip", "install", "--quiet", "--python", ".venv", *added)
    for fix in (["check", "--fix", "--exit-zero", "--quiet"], ["format", "--quiet"]):  # as "make format" does
        app.run(default_app.folder / ".venv/bin/ruff", *fix, ".")


def test_each_recipe_says_what_it_loosens() -> None:
    chapters = re.findall(r"(?m)^## (.*)", COOKBOOK.read_text(encoding="utf-8"))
    assert [recipe.title for recipe in recipes()] == chapters[:-1]  # the last one is a list of small things


def test_no_file_is_edited_that_is_not_the_teams(grown: App, template: Path) -> None:
    edited = {name for recipe in recipes() for language, name, _ in recipe.blocks if language == "diff"}
    assert edited <= {
        *("app/relaxations.py", "app/settings.py", "app/storage/content.py", "app/templates/home.html"),
        *("deploy/nginx.conf", "pyproject.toml"),
    }
    made = {name for recipe in recipes() for language, name, _ in recipe.blocks if language != "diff"}
    there = {name for name in made if (template / "{{cookiecutter.project_slug}}" / name).exists()}
    assert there == {"app/templates/home.html"}


def test_the_audit_of_a_grown_app_shows_what_it_loosens_and_why(
    grown: App, record_property: pytest.RecordProperty
) -> None:
    ended = audit(grown, "--format", "json")
    found = [
        (step["id"], each["severity"], each["evidence"])
        for row in json.loads(ended.stdout)["mitigations"]
        for step in row["steps"]
        for each in step["findings"]
    ]
    assert [each for each in found if each[1] == "missing"] == []
    assert ended.returncode == 0
    # Each step that a recipe says it loosens, and no other.
    said = set().union(*(recipe.steps for recipe in recipes()))
    relaxed = [(step, evidence) for step, severity, evidence in found if severity == "relaxed"]
    assert {step for step, _ in relaxed} == said
    for step, evidence in relaxed:
        record_property(f"relaxed in the grown app, {step}", evidence)


def test_the_linters_of_a_grown_app_are_green(grown: App, default_app: App) -> None:
    bin_ = default_app.folder / ".venv/bin"
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["djlint", "app", "--lint", "--check"]):
        grown.run(bin_ / command[0], *command[1:])
    grown.run(bin_ / "bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", "app", "wsgi.py")
    grown.run(".venv/bin/python", "-m", "mypy")


def test_the_tests_of_a_grown_app_are_green(grown: App, record_property: pytest.RecordProperty) -> None:
    """The team's own and the browser's look at all pages; of the others, every tenth case of each test."""
    sample = ["--sample=10", "--in-process", "-k", f"not ({' or '.join(LEFT_OUT)})", *OTHERS]
    for chosen in [["."]] if os.environ.get("GROWN") == "all" else [sample, OWN]:
        command = ["../.venv/bin/python", "-m", "pytest", "--numprocesses=2", *chosen]
        printed = re.sub(r"(, \d+ deselected)(?= in )", "", grown.run(*command, cwd=grown.folder / "tests"))
        record_property("the app's own tests, grown", check_all_passed(printed))
