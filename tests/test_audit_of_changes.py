"""The audit of an app that its team has changed in ways the audit can't foresee: it says what it needs, and where."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import App, Cookiecutter

pytestmark = pytest.mark.xdist_group("default")


def audit(app: App, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FLASK"))}
    command = [app.folder / ".venv/bin/python", "app/audit", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment | {"SHOP": "real"}, capture_output=True, text=True, timeout=60
    )


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_a_required_setting_of_the_team_needs_a_value_for_the_audit(
    default_app: App, cookiecutter: Cookiecutter
) -> None:
    app = cookiecutter.app()
    change(app / "app/settings.py", "    # 1 Secret key\n", "    SHOP: str\n\n    # 1 Secret key\n")
    ended = audit(default_app, app)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("The audit could not run: SHOP: there is no default")
    assert ended.stderr.endswith("in _settings of app/audit/run.py.\n")
    assert len(ended.stderr.splitlines()) == 1
    change(
        app / "app/audit/run.py",
        '        "FLASK_DEBUG": False,\n',
        '        "FLASK_DEBUG": False,\n        "SHOP": "",\n',
    )
    assert audit(default_app, app).returncode == 0


@pytest.mark.parametrize(
    ("form", "path", "fields"),
    [
        ("class RegisterForm(EmailForm):\n", "/register", "email, password, password_confirm"),
        ("class SignInForm(FlaskForm):  # type: ignore[misc]\n", "/login", "email, password"),
    ],
)
def test_a_required_field_of_the_team_is_asked_for(
    default_app: App, cookiecutter: Cookiecutter, form: str, path: str, fields: str
) -> None:
    app = cookiecutter.app()
    change(app / "app/views/accounts.py", form, f'{form}    terms = HiddenField(validators=[InputRequired("!")])\n')
    ended = audit(default_app, app, "--format", "json")
    assert (ended.returncode, ended.stderr) == (1, "")
    evidence = {
        found["evidence"]
        for row in json.loads(ended.stdout)["mitigations"]
        for step in row["steps"]
        for found in step["findings"]
        if row["number"] == 9
    }
    assert evidence == {
        f"The audit could not get past {path}, which answers 400 to {fields}: "
        "what else your form asks for belongs into OWN_FIELDS of app/audit/subject.py."
    }
    change(app / "app/audit/subject.py", "str]] = {}\n", f'str]] = {{"{path}": {{"terms": "y"}}}}\n')
    assert audit(default_app, app).returncode == 0


NAMES = """
from flask import Flask

app = Flask(__name__)

@app.get("/\\x1b[2J\\u202e")
def odd():
    return ""
"""


def test_nothing_that_another_app_says_drives_the_terminal(default_app: App, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(NAMES)
    (tmp_path / "odder.py").write_text("raise RuntimeError('\\x1b[2J\\u202e')\n")
    ended = audit(default_app, default_app.folder, "--path", str(tmp_path), "odd")
    assert r"Nothing limits /\x1b[2J\u202e." in ended.stdout
    assert [line for line in ended.stdout.split("\n") if not line.isprintable()] == []
    ended = audit(default_app, default_app.folder, "--path", str(tmp_path), "odder")
    assert ended.stderr == "The audit could not run: RuntimeError: [2J\n"
