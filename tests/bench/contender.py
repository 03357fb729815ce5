"""One contender of the benchmark: an app in a process of its own, which answers requests when it is told to.

``python contender.py KIND FOLDER [WITHOUT]``, in the environment of a generated app. KIND is ``bare`` (Flask alone,
with the same pages) or ``app`` (the app in FOLDER; WITHOUT names a module of ``app/security`` that is left out).
A line ``PAGE COUNT`` on standard input is answered with the CPU seconds that COUNT requests for the page took, those of
Flask's test client included; COUNT 0 makes the first requests, which no figure counts.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, render_template
from werkzeug.test import TestResponse

ORIGIN = "https://localhost"
KEY = "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU"
PASSWORD = "correct horse battery staple 42"
NEVER = "1000000 per second"  # a limit that is counted and not reached

# A form of four fields, as a view of a team's own.
FORM = """{% extends "base.html" %}
{% block title %}Form{% endblock title %}
{% block main %}
<form method="post">
{% if form.csrf_token is defined %}{{ form.csrf_token }}{% endif %}
{% for field in (form.name, form.email, form.subject, form.message) %}
<p>{{ field.label }} {{ field }}</p>
{% endfor %}
<button type="submit">Send</button>
</form>
{% endblock main %}
"""
DATA = {"items": [{"id": number, "name": f"item {number}"} for number in range(10)]}


def bare(folder: Path) -> Flask:
    """Flask alone, with the app's own templates and static files; what the mitigations put into a page is left out."""
    app = Flask("bare", root_path=str(folder / "app"))
    accounts = folder / "app/accounts/templates"
    if accounts.exists():
        app.jinja_loader.searchpath.append(str(accounts))  # type: ignore[union-attr]
    names = {"pages.home": "/", "uploads.index": "/uploads", "pages.security_txt": "/.well-known/security.txt"}
    if accounts.exists():
        names |= {"security.login": "/login", "security.register": "/register"}
    for endpoint, path in names.items():
        app.add_url_rule(path, endpoint, lambda: render_template("home.html"))
    anonymous = type("Anonymous", (), {"is_authenticated": False})()
    app.jinja_env.globals.update(
        csrf_token=lambda: "",
        csp_nonce=lambda: "",
        has_endpoint=lambda name: name in app.view_functions,
        project_name="Bare",
        current_user=anonymous,
    )
    from wtforms import Form

    add_views(app, fields(Form), lambda view: view)
    return app


def whole(folder: Path, without: str) -> Flask:
    """The app of ``folder`` as it is generated, but for one mitigation."""
    sys.path.insert(0, str(folder))
    if without:
        importlib.import_module(f"app.security.{without}").init_app = lambda app: None  # type: ignore[attr-defined]
        if without == "csp":
            NONCE.update(csp_nonce=lambda: "")
        if without == "csrf":
            NONCE.update(csrf_token=lambda: "", stale_message="")
    from app import create_app
    from app.visitors import sign_in_required
    from flask_wtf import FlaskForm

    place = Path(tempfile.mkdtemp(prefix="bench-"))
    config: dict[str, object] = {
        "SECRET_KEY": KEY,
        "UPLOAD_DIR": str(place / "uploads"),
        "RATELIMIT_DEFAULT": NEVER,
        "LOG_FORMAT": "json",
    }
    if (folder / "app/accounts").exists():
        config["DATABASE_URL"] = f"sqlite:///{place / 'app.db'}"
    app: Flask = create_app(config)
    app.jinja_env.globals.update(NONCE)
    if "alembic" in app.extensions:
        with app.app_context():
            app.extensions["alembic"].upgrade()
    add_views(app, fields(FlaskForm), sign_in_required)
    return app


NONCE: dict[str, Any] = {}


def fields(base: type) -> type:
    from wtforms import EmailField, StringField, TextAreaField

    return type(
        "Message",
        (base,),
        {
            "name": StringField("Name"),
            "email": EmailField("E-mail"),
            "subject": StringField("Subject"),
            "message": TextAreaField("Message"),
        },
    )


def add_views(app: Flask, form: type, for_members: Any) -> None:
    app.add_url_rule("/bench/json", "bench_json", lambda: jsonify(DATA))
    template = app.jinja_env.from_string(FORM)
    app.add_url_rule("/bench/form", "bench_form", lambda: render_template(template, form=form()))

    def member() -> Any:
        return jsonify(DATA)

    app.add_url_rule("/bench/member", "bench_member", for_members(member))


PAGES = {
    "home": "/",
    "json": "/bench/json",
    "form": "/bench/form",
    "member": "/bench/member",
    "static": "/static/app.css",
}


class Browser:
    """A visitor who comes back: with the cookie of an earlier page, signed in for the page ``member``."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.signs_in = "accounts" in app.blueprints

    def get(self, page: str) -> TestResponse:
        return self.client.get(PAGES[page], base_url=ORIGIN)

    def arrive(self, page: str) -> None:
        """Make the first requests, which no figure counts: they set the cookie and compile the templates."""
        if page == "member" and self.signs_in:
            self.sign_in()
        for _ in range(20):
            with self.get(page) as answer:
                if answer.status_code != 200:
                    raise SystemExit(f"{PAGES[page]} answers {answer.status}")

    def sign_in(self) -> None:
        self.signs_in = False
        form = {"email": "bench@example.com", "password": PASSWORD, "password_confirm": PASSWORD}
        for path in ("/register", "/login"):
            page = self.client.get(path, base_url=ORIGIN).text
            token = page.partition('<meta name="csrf-token" content="')[2].partition('"')[0]
            headers = {"Origin": ORIGIN}
            self.client.post(path, data=form | {"csrf_token": token}, base_url=ORIGIN, headers=headers)


def main() -> None:
    kind, folder, *without = sys.argv[1:]
    app = bare(Path(folder)) if kind == "bare" else whole(Path(folder), *(without or [""]))
    logging.disable(logging.CRITICAL)
    browsers = {page: Browser(app) for page in PAGES}
    for line in sys.stdin:
        page, count = line.split()
        if count == "0":
            browsers[page].arrive(page)
        start = time.process_time()
        for _ in range(int(count)):
            browsers[page].get(page).close()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
