"""Where an attack takes place: a copy of the app on loopback, its visitors, a browser, and the attacker's own site.

The app runs as in production, over https and without debug, with a key, a database and a folder of its own. Its name
is ``www.shop.test``. Nothing leaves this machine: the browser looks every name up at 127.0.0.1. The app has holes, so
it refuses requests without the lab's key, such as those of other users of the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trustme
import urllib3
from flask import Flask
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright
from werkzeug.exceptions import Forbidden
from werkzeug.serving import make_server

from app import create_app, paths
from app.security.secret_key import generate
from app.settings import Settings, SettingsError
from tests.attacker import Site
from tests.chromium import launch
from tests.programs import PROGRAMS, advice, missing
from tools.audit import yours
from tools.lessons.work import LessonError

HOST = "www.shop.test"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
Page = Callable[..., str]
PASSWORD = "mosaic tundra 7 lantern"  # noqa: S105 - of the lessons' own accounts
ADDRESS_BAR = """() => {
  const bar = document.createElement("div");
  bar.textContent = `The address is ${location.href}`;
  bar.style.cssText = "position: fixed; left: 0; top: auto; bottom: 0; width: 100%; font: 18px monospace";
  bar.style.color = "white";
  bar.style.background = "black";
  document.body.append(bar);
}"""
TOKEN = 'name="csrf-token" content="'  # noqa: S105 - where it is in a page


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def policy(self) -> dict[str, str]:
        """The directives of the Content Security Policy by their names; empty if there is no policy."""
        header = self.headers.get("Content-Security-Policy", "")
        parts = (part.strip().partition(" ") for part in header.split(";") if part.strip())
        return {name: value for name, _, value in parts}

    def json(self) -> Any:
        """Return the value of the body, which must be JSON."""
        return json.loads(self.body)


@dataclass
class Visitor:
    """An HTTP client that acts like a browser: it keeps cookies and sends Origin. It follows no redirect."""

    pool: urllib3.HTTPSConnectionPool
    url: str
    cookies: dict[str, str] = field(default_factory=dict)  # by name, each as the app has set it

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request. Underscores in header names become hyphens; an empty value removes the header."""
        sent = {
            "Host": self.url.removeprefix("https://"),
            "Cookie": "; ".join(cookie.partition(";")[0] for cookie in self.cookies.values()),
            "Origin": "" if method == "GET" else self.url,
            "Accept": "text/html",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {**self.pool.headers, **{name: value for name, value in sent.items() if value}}
        if isinstance(body, dict):
            multipart = any(isinstance(value, tuple) for value in body.values())
            body, kind = (urllib3.encode_multipart_formdata if multipart else _form)(body)
            kept["Content-Type"] = kind
        response = self.pool.urlopen(method, path, body, kept, redirect=False, retries=False)
        for cookie in response.headers.getlist("Set-Cookie"):
            self.cookies[cookie.partition("=")[0]] = cookie
        return Answer(response.status, response.headers, response.data)

    def get(self, path: str, **headers: str) -> Answer:
        """Open a page."""
        return self.ask("GET", path, **headers)

    def token(self) -> str:
        """Return the token of this visitor's forms, which every page of the app has."""
        return self.get("/").text.partition(TOKEN)[2].partition('"')[0]

    def send(self, path: str, fields: Mapping[str, object], **headers: str) -> Answer:
        """Send a form with its token, as a page of the app would. A tuple in ``fields`` is a file."""
        return self.ask("POST", path, {"csrf_token": self.token(), **yours.fields(path), **fields}, **headers)

    def upload(self, name: str, kind: str, content: bytes) -> Answer:
        """Send a file with the Content-Type ``kind``."""
        return self.send("/uploads", {"file": (name, content, kind)}, Accept="application/json")


def _form(fields: Mapping[str, str]) -> tuple[str, str]:
    return urlencode(fields), "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Shop:
    """The app while it is served. ``url`` is its address, without a slash at the end."""

    app: Flask
    url: str
    pool: urllib3.HTTPSConnectionPool

    def visitor(self) -> Visitor:
        """Return a visitor without cookies."""
        return Visitor(self.pool, self.url)

    def member(self, email: str = "alice@example.com") -> Visitor:
        """Return a visitor who may upload: signed in to a new account, if the app has accounts."""
        visitor = self.visitor()
        if "accounts" in self.app.blueprints:
            password = {"password": PASSWORD, "password_confirm": PASSWORD}
            visitor.send("/register", {"email": email, **password})
            answer = visitor.send("/login", {"email": email, "password": PASSWORD})
            if answer.status != 303:
                raise LessonError(f"No account could be made ({answer.status}): see fields in tools/audit/yours.py.")
        return visitor


class Lab:
    """Serves the app and the attacker's site. ``folder`` is for temporary files, ``picture`` for a screenshot."""

    def __init__(self, folder: Path, picture: Path | None = None) -> None:
        self.folder, self.picture = folder, picture
        if picture:
            picture.parent.mkdir(exist_ok=True)
        self.authority = trustme.CA()
        self.key = secrets.token_hex()
        paths.ENV_FILE = folder / ".env"  # nothing here uses the real settings
        for name in Settings.model_fields:
            os.environ.pop(name, None)
        logging.disable()

    def create(self, **settings: object) -> Flask:
        """Return the app with these settings. Raises SettingsError."""
        own = {
            **yours.settings(),
            "SECRET_KEY": generate(),
            "TRUSTED_HOSTS": HOST,
            "UPLOAD_DIR": str(self.folder / "uploads"),
            "DATABASE_URL": f"sqlite:///{self.folder / 'lesson.db'}",
            "RATELIMIT_DEFAULT": "9999 per minute",
            **settings,
        }
        app = create_app({name: value for name, value in own.items() if name in Settings.model_fields})
        app.instance_path = str(self.folder)
        return app

    def refuses(self, **settings: object) -> str:
        """Return the reason why the app does not start with these settings; "" if it starts."""
        try:
            self.create(**settings)
        except SettingsError as error:
            return error.message
        return ""

    @contextlib.contextmanager
    def serve(self, pages: Mapping[str, Page] | None = None, **settings: object) -> Iterator[Shop]:
        """Serve the app with additional ``pages``: a view for each path, for all methods."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(HOST).configure_cert(tls)
        server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True, ssl_context=tls)
        app = self.create(SERVER_NAME=f"{HOST}:{server.port}", **settings)
        server.app = lambda asked, start: (app if asked.get("HTTP_X_LAB") == self.key else Forbidden())(asked, start)
        if "accounts" in app.blueprints:
            with app.app_context():
                importlib.import_module("app.accounts.database").schema().upgrade()
        for path, view in (pages or {}).items():
            app.add_url_rule(path, view_func=view, methods=METHODS)
        trusting = ssl.create_default_context()
        self.authority.configure_trust(trusting)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1",
            server.port,
            headers={"X-Lab": self.key},
            ssl_context=trusting,
            server_hostname=HOST,
            assert_hostname=HOST,
        )
        try:
            yield Shop(app, f"https://{HOST}:{server.port}", pool)
        finally:
            pool.close()
            server.shutdown()
            server.server_close()

    def evil_site(self) -> contextlib.AbstractContextManager[Site]:
        """Serve the attacker's site: ``page(html)`` returns the URL of a page, ``requests`` lists requested paths."""
        return Site(self.authority)

    @contextlib.contextmanager
    def browser(self, visitor: Visitor | None = None) -> Iterator[Tab]:
        """Open a tab of Chromium with the cookies of ``visitor``; take a screenshot at the end. Raises LessonError."""
        if absent := missing([PROGRAMS["browser"]]):
            raise LessonError(advice(absent))
        cookies = "\n".join(visitor.cookies.values()) if visitor else ""
        with sync_playwright() as playwright:
            chromium = launch(playwright)
            context = chromium.new_context(
                ignore_https_errors=True, viewport={"width": 900, "height": 600}, extra_http_headers={"X-Lab": self.key}
            )
            page = context.new_page()
            if visitor:  # Chromium itself must parse the Set-Cookie headers of the app
                page.route(f"{visitor.url}/", lambda route: route.fulfill(headers={"Set-Cookie": cookies}), times=1)
                page.goto(visitor.url)
            yield page
            self.photograph(page)
            chromium.close()

    def photograph(self, page: Tab) -> None:
        """Take a screenshot of a page, with its URL at the bottom. The first screenshot of an attack is kept."""
        if self.picture and not self.picture.exists():
            page.evaluate(ADDRESS_BAR)
            page.screenshot(path=self.picture)
