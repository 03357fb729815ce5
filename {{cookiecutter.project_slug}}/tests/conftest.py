"""What the attacks are made with: the app, a browser-like client, real servers (tests/servers.py), and Chromium."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import tomllib
import unicodedata
import uuid
from collections.abc import Generator, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, Rule
from werkzeug.test import TestResponse

from app import create_app, paths, settings
from tests.answers import read_start
from tests.attacker import Site
from tests.chromium import launch
from tests.programs import PROGRAMS, advice, missing
from tests.progress import Progress
from tests.s3_server import S3, s3_server
from tests.servers import Server, authority, free_port, on_loopback, serve, serve_proxied, stop, wait_for

# Fixtures are found here; the tests import the rest from here.
__all__ = (
    "Server",
    "authority",
    "free_port",
    "on_loopback",
    "s3_server",
    "serve",
    "serve_proxied",
    "stop",
    "wait_for",
)

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = "https://localhost"
KEY = "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU"
TOKEN = re.compile(r'<meta name="csrf-token" content="([^"]+)"')
LOG_LINES = 8
# Values for a team's settings without a default, which tools/audit/yours.py reads too: no test needs the tools.
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
YOURS: dict[str, object] = PROJECT.get("tool", {}).get("audit", {}).get("settings", {})
HAS_ACCOUNTS = "DATABASE_URL" in settings.Settings.model_fields


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", type=int, default=1, metavar="N", help="run every Nth case of each test")
    parser.addoption("--in-process", action="store_true", help="leave out the tests that start a server or a browser")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Progress())


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start two workers for each core: many tests wait for servers, a browser or the clock."""
    cores = yield
    return cores if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * cores


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the cases, and stop before the first test if a program is missing that one of them starts."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {item for of_one_test in cases.values() for item in of_one_test[:: config.option.sample]}
    left_out = {"serve", "s3_server", "own_s3", "bucket", *PROGRAMS} if config.option.in_process else set()
    items[:] = [item for item in items if item in chosen and not _asked_for(item) & left_out]
    used = set().union(*map(_asked_for, items))
    absent = missing(PROGRAMS[name] for name in PROGRAMS if name in used and not config.option.collectonly)
    if absent and hasattr(config, "workeroutput"):  # a worker of pytest-xdist, which tells the one who started it
        config.workeroutput["missing"] = advice(absent)
        items.clear()
    elif absent:
        pytest.exit(advice(absent), returncode=3)


def _asked_for(item: pytest.Item) -> set[object]:
    """The fixtures of a test, and the constants in its code, which it may pass to request.getfixturevalue."""
    if not isinstance(item, pytest.Function):
        return set()
    storage = item.callspec.params.get("app_config") if hasattr(item, "callspec") else None
    return {*item.fixturenames, *item.function.__code__.co_consts, storage}


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what all tests share: a full collection would take longer than most tests."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if told := getattr(node, "workeroutput", {}).get("missing"):
        pytest.exit(told, returncode=3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the last lines of what a failing test has logged; with -vv, all of them.

    What the attacks put into the log is escaped: pytest-xdist can't hand on a lone surrogate.
    """
    report = yield
    shown = slice(None) if item.config.get_verbosity() > 1 else slice(-LOG_LINES, None)
    report.sections = [
        (name, "\n".join(text.encode("ascii", "backslashreplace").decode().splitlines()[shown]) + "\n")
        for name, text in report.sections
    ]
    return report


def forget_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The tests judge the app, not the .env and the environment of whoever runs them."""
    for name, field in settings.Settings.model_fields.items():
        monkeypatch.delenv(name, raising=False)
        if field.is_required() and name in YOURS:
            value = YOURS[name]
            monkeypatch.setenv(name, ",".join(map(str, value)) if isinstance(value, list) else str(value))
    monkeypatch.setattr(paths, "ENV_FILE", folder / ".env")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    if HAS_ACCOUNTS:
        monkeypatch.setattr("app.accounts.mail.PAUSE", (0, 0))
        cheap = {"argon2__memory_cost": 8, "argon2__time_cost": 1, "argon2__parallelism": 1}
        monkeypatch.setattr("app.accounts.identity.ARGON2", cheap)
    with pytest.MonkeyPatch.context() as patch:  # of its own: a test may undo the other
        forget_settings(patch, tmp_path)
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the apps of all tests share their compiled templates: compiling takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        cache = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
        patch.setitem(Flask.jinja_options, "bytecode_cache", cache)
        yield


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no rows; without accounts there is no such file."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    if HAS_ACCOUNTS:
        with pytest.MonkeyPatch.context() as patch:
            forget_settings(patch, file.parent)
            app = create_app({"SECRET_KEY": KEY, "DATABASE_URL": f"sqlite:///{file}"})
        from app.accounts.database import schema

        with app.app_context():
            schema().upgrade()
    return file


# Runs a test twice: with uploads in a folder, and in a bucket.
on_both_storages = pytest.mark.parametrize("app_config", ["folder", "bucket"], indirect=True)


@pytest.fixture
def app_config(tmp_path: Path, database: Path, request: pytest.FixtureRequest) -> dict[str, object]:
    """The least that an app needs. A test adds what it is about."""
    config: dict[str, object] = {"SECRET_KEY": KEY, "UPLOAD_DIR": str(tmp_path / "uploads")}
    if HAS_ACCOUNTS:
        shutil.copy(database, tmp_path / "app.db")  # with its mode
        config["DATABASE_URL"] = f"sqlite:///{tmp_path / 'app.db'}"
    if getattr(request, "param", "folder") == "bucket":
        server: S3 = request.getfixturevalue("s3_server")
        config |= server.settings()
    return config


@pytest.fixture
def app(app_config: dict[str, object]) -> Flask:
    return create_app(app_config)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return browser_like(app)


class BrowserLike(FlaskClient):
    """A client that keeps cookies and says where its requests come from, as browsers do."""

    origin = ORIGIN

    def open(self, *args: Any, buffered: bool = False, **kwargs: Any) -> TestResponse:
        """Send a request. Of an answer without a length, only the start is read: a team's stream may never end."""
        if args and isinstance(args[0], str):
            kwargs.setdefault("base_url", self.origin)
        answer = super().open(*args, **kwargs)
        return read_start(answer) if buffered or answer.content_length is None else answer


def browser_like(app: Flask, origin: str = ORIGIN) -> FlaskClient:
    """A new browser, on a page of ``origin``."""
    client = BrowserLike(app)
    client.origin = origin
    client.environ_base["HTTP_REFERER"] = f"{origin}/"
    return client


@pytest.fixture
def normalized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts that are normalized. Of many accents in a row, each is compared with all others."""
    lengths: list[int] = []
    normalize = unicodedata.normalize
    monkeypatch.setattr("unicodedata.normalize", lambda form, text: lengths.append(len(text)) or normalize(form, text))
    return lengths


def session_cookie(client: FlaskClient) -> str:
    """The value of a browser's session cookie, as a thief copies it."""
    cookie = client.get_cookie(client.application.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    return cookie.value


def pages(visitor: FlaskClient) -> list[str]:
    """The addresses of all pages that a visitor can open without an argument."""
    rules = visitor.application.url_map.iter_rules()
    paths = [rule.rule for rule in rules if "GET" in (rule.methods or ()) and not rule.arguments]
    answers = {path: visitor.get(path) for path in paths}
    found = (path for path, answer in answers.items() if (answer.status_code, answer.mimetype) == (200, "text/html"))
    # A view may also answer with a part of a page, for a script.
    return [path for path in found if answers[path].text.lstrip().lower().startswith("<!doctype html")]


# What stands for an argument in the path of a route, by its converter: there is no such file, order or page.
SAMPLES = ("0123456789abcdef" * 2, 1, uuid.UUID(int=1), 1.5, "a", "aa", "a/b")


def address_of(app: Flask, rule: Rule) -> str:
    """A path that leads to a route."""
    adapter = app.url_map.bind("localhost", url_scheme="https")
    method = min((rule.methods or set()) - {"HEAD", "OPTIONS"}, default="GET")
    names = sorted(rule.arguments)
    for values in product(SAMPLES, repeat=len(names)):
        with contextlib.suppress(BuildError, HTTPException, ValueError, TypeError):
            url = adapter.build(rule.endpoint, dict(zip(names, values, strict=True)), method=method)
            path = urlsplit(url).path  # that of a WebSocket is whole: wss://localhost/…
            if adapter.match(path, method=method, websocket=rule.websocket)[0] == rule.endpoint:
                return path
    raise LookupError(f"SAMPLES has nothing for {rule}")


def csrf_token(client: FlaskClient, path: str = "/") -> str:
    """The token as the page's own script reads it. A team's home page may do without: then that of another page."""
    found = TOKEN.search(client.get(path).text)
    if not found and path == "/":
        found = next(filter(None, (TOKEN.search(client.get(page).text) for page in pages(client))), None)
    assert found, f"{path} has no token"
    return found[1]


def post(client: FlaskClient, path: str, data: dict[str, Any] | None = None, **kwargs: Any) -> TestResponse:
    """Send a form with its token."""
    return client.post(path, data={"csrf_token": csrf_token(client), **(data or {})}, **kwargs)


def new_member(app: Flask, email: str = "alice@example.com") -> FlaskClient:
    """A new browser that may upload: signed in, where the app has accounts, to one that was made without the form."""
    client = browser_like(app)
    if "accounts" in app.blueprints:
        from tests.accounts.people import create, sign_in

        create(app, email)
        sign_in(client, email)
    return client


@pytest.fixture
def member(app: Flask) -> FlaskClient:
    return new_member(app)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: see tests/chromium.py."""
    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile."""
    opened = browser.new_context(ignore_https_errors=True)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def attacker(authority: trustme.CA) -> Iterator[Site]:
    """Another site: ``attacker.page("<form …>")`` publishes a page and gives its address."""
    with Site(authority) as site:
        yield site
