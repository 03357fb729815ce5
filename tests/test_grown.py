"""An app that its team has grown by the cookbook: its tests, linters and audit stay green, and say what is loosened."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import App, Cookiecutter, check_all_passed
from tests.grown import grow, recipes

# What the recipes need besides the app's own packages.
PACKAGES = ("authlib", "requests", "flask-admin")


@pytest.fixture(scope="module")
def grown(template: Path, default_app: App, tmp_path_factory: pytest.TempPathFactory) -> App:
    folder = tmp_path_factory.mktemp("grown")
    app = App(Cookiecutter(template, folder / "out", folder / "home").app())
    grow(app.folder)
    return app


def test_each_recipe_says_what_it_loosens(template: Path) -> None:
    text = (template / "{{cookiecutter.project_slug}}/docs/cookbook.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:-1]
    assert [section.partition("\n")[0] for section in sections if "\nLoosens " not in section] == []
