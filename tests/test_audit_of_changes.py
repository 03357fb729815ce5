"""The audit of an app that its team has changed in ways the audit can't foresee: it says what it needs, and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import App, Cookiecutter, edit
from tests.grown import register
from tests.test_audit import audit


def test_a_required_setting_of_the_team_needs_a_value_for_the_audit(
    default_app: App, cookiecutter: Cookiecutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP", "real")
    app = cookiecutter.app()
    edit(app, {"app/settings.py": ("    # 1 Secret key\n", "    SHOP: str\n\n    # 1 Secret key\n")})
    ended = audit(default_app, folder=app)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("The audit could not run: SHOP: there is no default")
    assert ended.stderr.endswith("to settings in [tool.audit] of pyproject.toml.\n")
    assert len(ended.stderr.splitlines()) == 1
    edit(app, {"pyproject.toml": ("[tool.ruff]\n", '[tool.audit]\nsettings = { SHOP = "" }\n\n[tool.ruff]\n')})
    assert audit(default_app, "--only", "1", folder=app).returncode == 0


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
    edit(app, {"app/accounts/views.py": (form, f'{form}    terms = HiddenField(validators=[InputRequired("!")])\n')})
    ended = audit(default_app, "--only", "9", "--format", "json", folder=app)
    assert (ended.returncode, ended.stderr) == (1, "")
    (row,) = json.loads(ended.stdout)["mitigations"]
    evidence = {found["evidence"] for step in row["steps"] for found in step["findings"]}
    assert evidence == {
        f"The audit could not get past {path}, which answers 400 to {fields}: "
        "add the other fields of your form to fields in [tool.audit] of pyproject.toml."
    }
    table = f'[tool.audit]\nfields = {{ "{path}" = {{ terms = "y" }} }}\n\n'
    edit(app, {"pyproject.toml": ("[tool.ruff]\n", f"{table}[tool.ruff]\n")})
    assert audit(default_app, "--only", "9", folder=app).returncode == 0


def test_a_service_inside_that_may_be_fetched_is_relaxed_with_its_reason(
    default_app: App, cookiecutter: Cookiecutter
) -> None:
    app = cookiecutter.app()
    line = 'bp = Blueprint("redirects", __name__)\n'
    fetch = """
from app.security.outgoing import Internal, fetch_outgoing

REPORTS = Internal("http://reports:8080", reason="monthly reports")
reports = bp.get("/reports")(lambda: fetch_outgoing(f"{REPORTS.origin}/last", internal=[REPORTS]).body)
"""
    edit(app, {"app/views/redirects.py": (line, line + fetch)})
    ended = audit(default_app, "--only", "10", "--format", "json", folder=app)
    (row,) = json.loads(ended.stdout)["mitigations"]
    assert (row["state"], ended.returncode) == ("relaxed", 0)
    (found,) = (found for step in row["steps"] for found in step["findings"])
    assert "Internal('http://reports:8080', reason='monthly reports')" in found["evidence"]


# A team's views that use doors, and one that uses none. Code sets settings that the probes choose in their copies.
DOORS = """
from datetime import timedelta
from functools import partial

from flask import Blueprint, render_template, request
from flask.views import MethodView

from app.security.csrf import exempt
from app.security.errors import refuse
from app.security.headers import relax
from app.security.rate_limits import limited, unlimited
from app.security.urls import may_redirect_to
from app.visitors import public

bp = public(Blueprint("doors", __name__))
api = exempt("Programs send a token.")(public(Blueprint("api", __name__, url_prefix="/api")))


@bp.record_once
def _set(state):
    state.app.config.update(
        PERMANENT_SESSION_LIFETIME=timedelta(hours=2),
        MAX_CONTENT_LENGTH=50 * 2**20,
        RATELIMIT_DEFAULT="600 per minute",
        UPLOAD_EXTENSIONS=("png", "pdf"),
        TRUSTED_HOSTS=["shop.example"],
        SERVER_NAME="shop.example",
    )
    state.app.register_blueprint(api)


@api.before_request
def check_token():
    if request.headers.get("Authorization") != "Bearer 1f9c":
        refuse(401, "This needs a token.")


@api.route("/items/<int:number>", methods=["GET", "PUT"])
def item(number):
    return request.form["name"]


class Orders(MethodView):
    def post(self):
        return request.form["order"]


api.add_url_rule("/orders", view_func=Orders.as_view("orders"))


@bp.post("/hook")
@exempt("The sender signs it.")
def hook():
    return read()


def read():
    return request.form["event"]


@bp.post("/by-hand")
def by_hand():
    return request.form["name"]


@bp.get("/page")
@relax("Our pictures.", csp={"img-src": "'self' https://*.cdn.example"})
@limited("700 per minute")
def page():
    return render_template("doors.html")


@bp.get("/free")
@unlimited("A probe asks often.")
@may_redirect_to("pay.example", reason="The checkout.")
def free():
    return ""


bp.add_url_rule("/pages/<name>", "any", partial(page))
"""
DOORS_PAGE = """
{% extends "base.html" %}
{% block main %}
  <img src="https://eu.cdn.example/a.png" alt="">
  <img src="https://cdn.example/a.png" alt="">
  <iframe src="https://eu.cdn.example/a" title="A"></iframe>
  <form method="post" action="https://pay.example/"></form>
  <p onclick="go()"></p>
{% endblock main %}
"""


def test_each_finding_names_the_door_that_fits(default_app: App, cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    (app / "app/views/doors.py").write_text(DOORS)
    (app / "app/templates/doors.html").write_text(DOORS_PAGE)
    edit(app, {"app/views/__init__.py": ("security, uploads\n", "doors, security, uploads\n")})
    edit(app, {"app/views/__init__.py": ("health, security):", "health, security, doors):")})
    found = [
        (step["id"], each["severity"], each["evidence"], each["fix"])
        for row in json.loads(audit(default_app, "--format", "json", folder=app).stdout)["mitigations"]
        for step in row["steps"]
        for each in step["findings"]
        if each["severity"] != "note"
    ]
    picture = "Code that is inline or from another origin, which a strict policy blocks."
    wanted = [
        (
            "2.S3",
            "relaxed",
            "views/doors.py:40: Form fields are read directly, without a FlaskForm: Programs send",
            "@exempt",
        ),
        (
            "2.S3",
            "relaxed",
            "views/doors.py:45: Form fields are read directly, without a FlaskForm: Programs send",
            "@exempt",
        ),
        (
            "2.S3",
            "relaxed",
            "views/doors.py:58: Form fields are read directly, without a FlaskForm: The sender",
            "@exempt",
        ),
        (
            "2.S3",
            "missing",
            "views/doors.py:63: Form fields are read directly, without a FlaskForm.",
            "@exempt(reason)",
        ),
        (
            "2.S5",
            "relaxed",
            "No token is needed for PUT /api/items/<int:number>, POST /api/orders: Programs",
            "@exempt",
        ),
        ("2.S5", "relaxed", "No token is needed for POST /hook: The sender signs it.", "@exempt"),
        ("3.S4", "relaxed", "/page, /pages/<name>: img-src 'self' https://*.cdn.example (Our pictures.)", "@relax"),
        ("3.S4", "relaxed", f"doors.html:4: {picture} (Our pictures.)", "@relax"),
        ("3.S4", "missing", f"doors.html:5: {picture}", "@relax(reason, csp={…})"),
        ("3.S4", "missing", f"doors.html:6: {picture}", "@relax(reason, csp={…})"),
        ("3.S4", "relaxed", f"doors.html:7: {picture} (@may_redirect_to)", "@relax"),
        ("3.S4", "missing", f"doors.html:8: {picture}", "Move it to a file in app/static/"),
        ("8.S3", "relaxed", "Nothing limits /free: A probe asks often.", "@unlimited"),
        ("8.S3", "relaxed", "/page has a limit of its own, 700 per minute, above RATELIMIT_DEFAULT", "@limited"),
        ("8.S3", "relaxed", "/pages/<name> has a limit of its own, 700 per minute, above", "@limited"),
        ("10.S1", "missing", "/pages/<name> accepts any text as name.", "<string(maxlength=80):name>"),
        ("10.S2", "relaxed", "/free may redirect to pay.example, and any form may lead there: The", "@may_redirect_to"),
    ]
    for step, severity, evidence, fix in wanted:
        fits = [
            each for each in found if each[:2] == (step, severity) and each[2].startswith(evidence) and fix in each[3]
        ]
        assert len(fits) == 1, (evidence, fix)
        found.remove(fits[0])
    assert found == []


# Beside each view that opens something, harmless ones that look like it.
LOOK_ALIKES = """
import os
from pathlib import Path

import flask
from flask import Blueprint, current_app, jsonify, make_response, render_template, request, send_file
from flask.views import MethodView
from flask_wtf import FlaskForm

from app.security.csrf import form_view
from app.security.rate_limits import limiter
from app.visitors import public

bp = Blueprint("alike", __name__)


class NoteForm(FlaskForm):
    pass


class Note:
    def save(self, values):
        self.values = values


@bp.post("/presets")
def presets():
    Note().save(request.get_json())
    return ""


@bp.route("/notes", methods=["GET", "POST"])
def notes():
    return jsonify(title="")


class Notes(MethodView):
    def get(self):
        return jsonify(titles=[])

    def post(self):
        return jsonify(title="")


bp.add_url_rule("/more-notes", view_func=Notes.as_view("more_notes"))


@bp.route("/lost", methods=["GET", "POST"])
def lost():
    if NoteForm().validate_on_submit():
        return ""
    return render_template("alike.html")


class Hasty(MethodView):
    decorators = [form_view]

    def get(self):
        return render_template("alike.html", valid=NoteForm().validate_on_submit())

    def post(self):
        return "done"


class Careful(Hasty):
    def post(self):
        return self.keep()

    def keep(self):
        return "done" if NoteForm().validate_on_submit() else self.get()


bp.add_url_rule("/hasty", view_func=Hasty.as_view("hasty"))
bp.add_url_rule("/careful", view_func=Careful.as_view("careful"))


@bp.get("/notes/<int:number>/delete")
@bp.get("/help/delete-account")
@bp.get("/blog/remove-stains/<int:number>")
def ask_first(number=0):
    return render_template("alike.html")


@bp.post("/notes/<int:number>/delete")
def delete(number):
    return flask.redirect(flask.url_for("pages.home"))


@bp.get("/orders/<int:number>/cancel")
@bp.get("/remove/<int:number>")
def cancel(number):
    return ""


@bp.route("/orders/<int:number>/end", methods=["GET", "POST"])
def end(number):
    return ""


@bp.get("/partners")
@public
def partners():
    answer = make_response("", {"Cache-Control": "public, max-age=60"})
    answer.headers["Access-Control-Allow-Origin"] = request.headers.get("Origin", "*")
    return answer


@bp.get("/profile")
def profile():
    answer = partners()
    answer.headers["Access-Control-Allow-Credentials"] = "true"
    return answer


@bp.get("/fast")
@limiter.limit("100000 per second")
def fast():
    return ""


@bp.get("/slow")
@limiter.limit("1000 per day")
def slow():
    return ""


@bp.post("/avatar")
def avatar():
    file = request.files["avatar"]
    file.save(Path(current_app.static_folder) / "avatar.png")
    return ""


class SoldOut(Exception):
    pass


@bp.app_errorhandler(ValueError)
@bp.app_errorhandler(SoldOut)
def tell(error):
    return str(error), 400


@bp.get("/report")
def report():
    return send_file(os.path.join("/srv/reports", request.args["name"]))
"""
ALIKE_PAGE = """
{% extends "base.html" %}
{% block main %}
  <script type="application/ld+json">{{ {"name": "Shop"}|tojson }}</script>
  <script type="application/json">{}</script>
  <script type="importmap">{}</script>
{% endblock main %}
"""


def test_what_opens_something_is_told_from_what_looks_like_it(default_app: App, cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    (app / "app/views/alike.py").write_text(LOOK_ALIKES)
    (app / "app/templates/alike.html").write_text(ALIKE_PAGE)
    (app / "app/templates/mails").mkdir(exist_ok=True)
    (app / "app/templates/mails/welcome.html").write_text('<p style="color: #333">Welcome!</p>\n')
    register(app, "alike")
    ended = audit(default_app, "--format", "json", folder=app)
    found = [
        f"{step['id']} {each['evidence']}"
        for row in json.loads(ended.stdout)["mitigations"]
        for step in row["steps"]
        for each in step["findings"]
        if each["severity"] == "missing"
    ]
    assert sorted(found) == [
        "2.S5 GET /orders/<int:number>/cancel looks state-changing.",
        "2.S5 GET /orders/<int:number>/end looks state-changing.",
        "2.S5 GET /remove/<int:number> looks state-changing.",
        "2.S5 POST /hasty would act on a stale token.",
        "2.S5 The user's input at /lost is lost if its token is stale.",
        "3.S4 alike.html:6: Code that is inline or from another origin, which a strict policy blocks.",
        "5.S2 The text of a ValueError is shown.",
        "6.S4 /profile: Any site may read it with a visitor's cookies.",
        "6.S4 /profile: Caches may give a member's page to others (public).",
        "8.S3 views/alike.py:116: limiter.limit allows 100000 per second, above the default "
        "(120 per minute; 2000 per hour).",
        "9.S2 views/alike.py:130: file.save stores an upload, which nothing has checked.",
        "9.S2 views/alike.py:146: send_file reads a file under a name from a request.",
    ]


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
    ended = audit(default_app, "--path", str(tmp_path), "odd")
    assert r"Nothing limits /\x1b[2J\u202e." in ended.stdout
    assert [line for line in ended.stdout.split("\n") if not line.isprintable()] == []
    ended = audit(default_app, "--path", str(tmp_path), "odder")
    assert ended.stderr == "The audit could not run: RuntimeError: [2J\n"


KEPT_HERE = "    if storage() is folder:\n        {}\n    else:\n"
# What a team deletes that takes no files: the mitigation, and each place that leans on it.
WITHOUT_UPLOADS = {
    "app/__init__.py": [
        ("        uploads,\n        urls,\n", "        urls,\n"),
        ("        uploads,\n        accounts,", "        accounts,"),
    ],
    "app/settings.py": [
        ("from app.storage.content import TYPES\n", "TYPES = ('txt', 'pdf', 'png', 'jpg', 'webp', 'gif')\n")
    ],
    "app/views/__init__.py": [(", security, uploads", ", security"), ("(pages, uploads, ", "(pages, ")],
    "app/accounts/backup.py": [
        ("from app.storage import folder, total\n", ""),
        ("from app.storage.stored import ID, OWNER, storage\n", ""),
        (KEPT_HERE.format('_copy_uploads(folder.root(), part / "uploads")'), "    if True:\n"),
        ("        _refuse_if_there(*(path for path in folder.root().iterdir() if OWNER.fullmatch(path.name)))\n", ""),
        ('    if storage() is folder:\n        _refuse_damaged_uploads(place / "uploads")\n', ""),
        (
            KEPT_HERE.format('_copy_uploads(place / "uploads", folder.root())\n        total.measure()'),
            "    if True:\n",
        ),
    ],
    "app/accounts/identity.py": [
        ("from app.storage.stored import storage\n", ""),
        ("    storage().delete_all(user.owner_key)\n", ""),
    ],
    "app/accounts/views.py": [
        ("from app.storage.stored import storage\n", ""),
        ("    if user.owner_key != former_owner:\n        storage().delete_all(former_owner)\n", ""),
        ("    storage().delete_all(user.owner_key)\n", ""),
    ],
}


def test_a_mitigation_that_was_deleted_is_a_row_that_is_missing(default_app: App, cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    for name in ("app/storage", "app/security/uploads.py", "app/views/uploads.py", "app/templates/uploads.html"):
        shutil.rmtree(app / name) if (app / name).is_dir() else (app / name).unlink()
    for name, changes in WITHOUT_UPLOADS.items():
        for change in changes:
            edit(app, {name: change})
    for arguments in ("text", "--only=9"), ("sarif", "--only=9"), ("html", "--only=9"), ("json",):
        ended = audit(default_app, "--format", *arguments, folder=app)
        assert (ended.returncode, ended.stderr) == (1, ""), ended.stdout
        assert "Traceback" not in ended.stdout
    states = {row["number"]: row["state"] for row in json.loads(ended.stdout)["mitigations"]}
    assert states.pop(9) == "missing"
    assert set(states.values()) == {"implemented"}, states
