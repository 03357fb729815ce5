"""One contender of the benchmark: an app in its own process, which sends itself requests on demand.

``python contender.py KIND FOLDER [WITHOUT]``, in the environment of a generated app. KIND is ``bare`` (Flask alone,
with the same pages), ``libraries`` (Flask with Flask-Talisman, Flask-Limiter and Flask-WTF, and no code of ours),
``app`` (the app in FOLDER; WITHOUT names a module of ``app/security`` that is left out), or ``elsewhere`` (the app of
cookiecutter-flask in FOLDER).
A line ``PAGE COUNT`` on standard input asks for COUNT requests; the answer is the CPU seconds that they took,
including those of Flask's test client. COUNT 0 makes the first requests, which are not measured.
"""

from __future__ import annotations

import importlib
import logging
import os
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

# A form of three fields, as a team might write it.
FORM = """{% extends "base.html" %}
{% block title %}Form{% endblock title %}
{% block main %}
<form method="post">
{% if form.csrf_token is defined %}{{ form.csrf_token }}{% endif %}
{% for field in (form.name, form.email, form.message) %}
<p>{{ field.label }} {{ field }}</p>
{% endfor %}
<button type="submit">Send</button>
</form>
{% endblock main %}
"""
DATA = {"items": [{"id": number, "name": f"item {number}"} for number in range(10)]}

PAGES = {
    "home": "/",
    "json": "/bench/json",
    "form": "/bench/form",
    "member": "/bench/member",
    "static": "/static/app.css",
}
# What the templates need in place of what a mitigation provides.
IN_PLACE: dict[str, dict[str, Any]] = {
    "csp": {"csp_nonce": lambda: ""},
    "csrf": {"csrf_token": lambda: "", "stale_message": ""},
}


def bare(folder: Path, *, libraries: bool = False) -> Flask:
    """Return Flask alone, with the app's own templates and static files, and nothing of what the mitigations add."""
    from flask_wtf import FlaskForm
    from wtforms import Form

    app = Flask("bare", root_path=str(folder / "app"))
    accounts = folder / "app/accounts/templates"
    names = {"pages.home": "/", "uploads.index": "/uploads", "pages.security_txt": "/.well-known/security.txt"}
    if accounts.exists():
        app.jinja_loader.searchpath.append(str(accounts))  # type: ignore[union-attr]
        names |= {"security.login": "/login", "security.register": "/register"}
    for endpoint, path in names.items():
        app.add_url_rule(path, endpoint, lambda: render_template("home.html"))
    app.jinja_env.globals.update(
        **IN_PLACE["csp"],
        **IN_PLACE["csrf"],
        has_endpoint=lambda name: name in app.view_functions,
        project_name="Bare",
        current_user=type("Anonymous", (), {"is_authenticated": False}),
    )
    if libraries:
        add_libraries(app)
    add_views(app, FlaskForm if libraries else Form, lambda view: view)
    return app


def add_libraries(app: Flask) -> None:
    """Add what the libraries do by default, with a nonce and two limits as in the app."""
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address
    from flask_talisman import Talisman
    from flask_wtf import CSRFProtect

    app.config["SECRET_KEY"] = KEY
    del app.jinja_env.globals["csp_nonce"], app.jinja_env.globals["csrf_token"]
    policy = {"default-src": "'self'", "object-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"}
    Talisman(app, content_security_policy=policy, content_security_policy_nonce_in=["script-src"])
    Limiter(get_remote_address, app=app, default_limits=[NEVER, NEVER.replace("second", "hour")])
    CSRFProtect(app)


def elsewhere(folder: Path, place: Path) -> Flask:
    """Return the app of cookiecutter-flask in ``folder``, as in production. Its data is stored in ``place``."""
    sys.path.insert(0, str(folder))
    # Its own .env is that of development, with the debug toolbar.
    os.environ.update({"FLASK_ENV": "production", "SECRET_KEY": KEY, "SEND_FILE_MAX_AGE_DEFAULT": "31556926"})
    os.environ["DATABASE_URL"] = f"sqlite:///{place / 'app.db'}"
    app: Flask = importlib.import_module("elsewhere.app").create_app()
    return app


def whole(folder: Path, without: str, place: Path, **settings: object) -> Flask:
    """Return the app in ``folder`` without one mitigation. Its data is stored in ``place``."""
    sys.path.insert(0, str(folder))
    from app import create_app
    from app.visitors import public
    from flask_wtf import FlaskForm

    if without:
        importlib.import_module(f"app.security.{without}").init_app = lambda app: None  # type: ignore[attr-defined]
    config: dict[str, object] = {"SECRET_KEY": KEY, "UPLOAD_DIR": str(place / "uploads"), "RATELIMIT_DEFAULT": NEVER}
    config |= settings
    if (folder / "app/accounts").exists():
        config["DATABASE_URL"] = f"sqlite:///{place / 'app.db'}"
    app: Flask = create_app(config)
    app.jinja_env.globals.update(IN_PLACE.get(without, {}))
    if "accounts" in app.blueprints:
        with app.app_context():
            importlib.import_module("app.accounts.database").schema().upgrade()
    add_views(app, FlaskForm, public)
    return app


def add_views(app: Flask, form_class: Any, public: Any) -> None:
    from wtforms import EmailField, StringField, TextAreaField

    class Message(form_class):  # type: ignore[misc]
        name = StringField("Name")
        email = EmailField("E-mail")
        message = TextAreaField("Message")

    template = app.jinja_env.from_string(FORM)
    app.add_url_rule(PAGES["json"], "bench_json", public(lambda: jsonify(DATA)))
    app.add_url_rule(PAGES["member"], "bench_member", lambda: jsonify(DATA))
    app.add_url_rule(PAGES["form"], "bench_form", public(lambda: render_template(template, form=Message())))


class Browser:
    """A returning visitor, who has the cookie of an earlier page and is signed in for the page ``member``."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        self.has_accounts = "accounts" in app.blueprints

    def get(self, page: str) -> TestResponse:
        return self.client.get(PAGES[page], base_url=ORIGIN)

    def arrive(self, page: str) -> None:
        """Make the first requests: they set the cookie and compile the templates."""
        if page == "member" and self.has_accounts:
            self.sign_in()
        for _ in range(20):
            with self.get(page) as answer:
                if answer.status_code != 200:
                    raise SystemExit(f"{PAGES[page]} answers {answer.status}")

    def sign_in(self) -> None:
        form = {"email": "bench@example.com", "password": PASSWORD, "password_confirm": PASSWORD}
        for path in ("/register", "/login"):
            headers = {"Origin": ORIGIN}
            self.client.post(path, data=form | {"csrf_token": self.token(path)}, base_url=ORIGIN, headers=headers)

    def token(self, path: str) -> str:
        """Return the CSRF token of a page."""
        page = self.client.get(path, base_url=ORIGIN).text
        return page.partition('<meta name="csrf-token" content="')[2].partition('"')[0]


def app_of(kind: str, folder: Path, place: Path, without: str = "", **settings: object) -> Flask:
    match kind:
        case "bare" | "libraries":
            return bare(folder, libraries=kind == "libraries")
        case "elsewhere":
            return elsewhere(folder, place)
    return whole(folder, without, place, **settings)


def served(kind: str, folder: str, place: str) -> Flask:
    """Return an app for gunicorn, behind a proxy on the same machine."""
    logging.disable(logging.CRITICAL)
    return app_of(kind, Path(folder), Path(place), SERVER_NAME="localhost", TRUSTED_PROXY_HOPS=1)


def main(kind: str, folder: str, without: str = "") -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        app = app_of(kind, Path(folder), Path(place), without)
        logging.disable(logging.CRITICAL)
        browsers = {page: Browser(app) for page in PAGES}
        for line in sys.stdin:
            page, count = line.split()
            if count == "0":
                browsers[page].arrive(page)
            begun = time.process_time()
            for _ in range(int(count)):
                browsers[page].get(page).close()
            print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
