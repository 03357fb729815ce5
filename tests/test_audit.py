"""The audit of generated apps: ten rows implemented for every option, in formats that programs read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from sarif_pydantic import Sarif

from tests.conftest import App, Cookiecutter, check_all_passed, edit, outside
from tests.grown import register
from tests.test_mitigations import STEPS

ROOT = Path(__file__).resolve().parent.parent
NAIVE = ROOT / "tests/naive"


def audit(app: App, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [app.folder / ".venv/bin/python", "-m", "tools.audit", *arguments]
    return subprocess.run(command, cwd=folder or app.folder, env=outside(), capture_output=True, text=True, timeout=240)


def test_the_tests_of_the_tools_pass_in_a_generated_app(
    default_app: App, cookiecutter: Cookiecutter, record_property: pytest.RecordProperty
) -> None:
    app = cookiecutter.app()
    shutil.copytree(ROOT / "tests/of_the_tools", app / "tests/of_the_tools")
    command = [default_app.folder / ".venv/bin/python", "-m", "pytest", "tests/of_the_tools"]
    ended = subprocess.run(command, cwd=app, env=outside(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout[-20_000:]
    record_property("the tests of the audit", check_all_passed(ended.stdout))


# accounts=no has a virtual environment of its own in test_generated_app.py; here it needs no other packages. The app
# with the defaults is in the next test.
@pytest.mark.parametrize("options", [("docker=no", "ci=none", "lessons=no"), ("accounts=no",)])
def test_ten_rows_are_implemented_for_every_option(
    default_app: App, cookiecutter: Cookiecutter, options: tuple[str, ...]
) -> None:
    ended = audit(default_app, folder=cookiecutter.app(*options))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.rstrip().endswith("10 mitigations: 10 implemented")


def test_json_is_what_the_schema_says_and_sarif_what_its_model_says(default_app: App) -> None:
    """Of the app with the defaults, whose ten rows are implemented, and of the naive app, where ten are missing."""
    schema = json.loads((default_app.folder / "tools/audit/report.schema.json").read_text())
    foreign = ("--path", str(NAIVE), "app:create_app")
    for target, code, state in (((), 0, "implemented"), (foreign, 1, "missing")):
        ended = audit(default_app, "--format", "json", *target)
        report = json.loads(ended.stdout)
        jsonschema.Draft202012Validator(schema).validate(report)
        assert (ended.returncode, ended.stderr) == (code, "")
        assert [row["state"] for row in report["mitigations"]] == [state] * 10
    sarif = Sarif.model_validate_json(audit(default_app, "--format", "sarif", *foreign).stdout)
    assert sum(bool(rule.name) for rule in sarif.runs[0].tool.driver.rules or ()) == sum(STEPS.values())


SHOP = """
import time
from flask import Blueprint, Response, jsonify, make_response, render_template

bp = Blueprint("shop", __name__, url_prefix="/shop", template_folder="goods")

@bp.get("/")
def index():
    page = make_response(render_template("shop.html", names=["a"]))
    page.set_cookie("__Host-theme", "dark", secure=True, httponly=True, samesite="Lax")
    return page, {"Referrer-Policy": "no-referrer"}

@bp.get("/events")
def events():
    def stream():
        while True:
            yield "data: x\\n\\n"
            time.sleep(1)

    return Response(stream(), mimetype="text/event-stream")

@bp.get("/api/items/<int:number>")
def item(number):
    return jsonify(number=number)
"""
ITEM = """

class Item(Model):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
ACCOUNT = """
    PAYMENT_ACCOUNT: str = Field(description="The account.", examples=["acct"])
    READYZ_TOKEN: str"""
SHOP_PAGE = """
{% extends "base.html" %}
{% block main %}
  {% for name in names %}<p title="{{ name }}">{{ name }}</p>{% endfor %}
  <a href="{{ url_for('shop.index') }}">Shop</a>
{% endblock main %}
"""


def test_what_a_team_adds_or_renames_is_no_finding(default_app: App, cookiecutter: Cookiecutter) -> None:
    """A blueprint with templates, an API, a stream and a cookie, a stricter header, a required setting; other names."""
    app = cookiecutter.app()
    (app / "app/views/shop.py").write_text(SHOP)
    (app / "app/views/goods").mkdir()
    (app / "app/views/goods/shop.html").write_text(SHOP_PAGE)
    register(app, "shop")
    edit(app, {"app/views/pages.py": ('@bp.get("/")', '@bp.get("/start")\n@bp.get("/")')})
    edit(app, {"app/views/pages.py": ("home.html", "front.html")})
    (app / "app/templates/home.html").rename(app / "app/templates/front.html")
    (app / "app/views/pages.py").rename(app / "app/views/front.py")
    views, models = app / "app/views/__init__.py", app / "app/accounts/models.py"
    views.write_text(re.sub(r"\bpages\b", "front", views.read_text()))
    models.write_text(models.read_text() + ITEM)
    edit(app, {"app/settings.py": ("\n    READYZ_TOKEN: str", ACCOUNT)})
    with (app / "pyproject.toml").open("a") as file:
        file.write('\n[tool.audit]\nsettings = { PAYMENT_ACCOUNT = "test" }\n')
    ended = audit(default_app, folder=app)
    assert ended.returncode == 0, ended.stdout
    all_routes = ("tests/test_02_csrf.py", "tests/test_04_cookies.py")
    check_all_passed(
        default_app.run(default_app.folder / ".venv/bin/pytest", "--sample=10", "--in-process", *all_routes, cwd=app)
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("app/views/pages.py", "def broken(:\n"),
        ("app/views/pages.py", "raise RuntimeError('no')\n"),
        ("app/__init__.py", "create_app = None\n"),
    ],
    ids=["does not parse", "raises", "makes no app"],
)
def test_an_app_that_does_not_come_up_is_one_line_and_exit_2(
    default_app: App, cookiecutter: Cookiecutter, file: str, text: str
) -> None:
    app = cookiecutter.app()
    (app / file).write_text(text)
    ended = audit(default_app, folder=app)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("The audit could not run: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_broken_template_is_a_finding(default_app: App, cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    (app / "app/templates/leaving.html").write_text("{% if %}")
    ended = audit(default_app, folder=app)
    assert ended.returncode == 1
    assert "TemplateSyntaxError" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
