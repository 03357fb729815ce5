"""What the attacks are made with: the app, a browser-like client, a real server over TLS, and Chromium."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.test import TestResponse

from app import create_app, paths, settings
from tests.attacker import Site
from tests.programs import PROGRAMS, advice, missing
from tests.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = "https://localhost"
KEY = "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU"
TOKEN = re.compile(r'<meta name="csrf-token" content="([^"]+)"')
HAS_ACCOUNTS = "DATABASE_URL" in settings.Settings.model_fields


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Progress())


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start two workers for each core: many tests wait for servers, a browser or the clock."""
    cores = yield
    return cores if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2 * cores


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stop before the first test if a program is missing that one of the chosen tests starts."""
    tests = [item for item in items if isinstance(item, pytest.Function)]
    # The constants in its code are what a test may ask for by request.getfixturevalue.
    used = {name for test in tests for name in (*test.fixturenames, *test.function.__code__.co_consts)}
    absent = missing(PROGRAMS[name] for name in PROGRAMS if name in used and not config.option.collectonly)
    if absent and hasattr(config, "workeroutput"):  # a worker of pytest-xdist, which tells the one who started it
        config.workeroutput["missing"] = advice(absent)
        items.clear()
    elif absent:
        pytest.exit(advice(absent), returncode=3)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if told := getattr(node, "workeroutput", {}).get("missing"):
        pytest.exit(told, returncode=3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what the attacks put into the log: pytest-xdist can't hand on a lone surrogate."""
    report = yield
    report.sections = [(name, text.encode("ascii", "backslashreplace").decode()) for name, text in report.sections]
    return report


def forget_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The tests judge the app, not the .env and the environment of whoever runs them."""
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "ENV_FILE", folder / ".env")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)
    if HAS_ACCOUNTS:
        monkeypatch.setattr("app.accounts.mail.PAUSE", (0, 0))


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no rows; without accounts there is no such file."""
    file = tmp_path_factory.mktemp("database") / "empty.db"
    if HAS_ACCOUNTS:
        with pytest.MonkeyPatch.context() as patch:
            forget_settings(patch, file.parent)
            app = create_app({"SECRET_KEY": KEY, "DATABASE_URL": f"sqlite:///{file}"})
        with app.app_context():
            app.extensions["alembic"].upgrade()
    return file


@pytest.fixture
def app_config(tmp_path: Path, database: Path) -> dict[str, object]:
    """The least that an app needs. A test adds what it is about."""
    config: dict[str, object] = {"SECRET_KEY": KEY, "UPLOAD_DIR": str(tmp_path / "uploads")}
    if HAS_ACCOUNTS:
        shutil.copy(database, tmp_path / "app.db")  # with its mode
        config["DATABASE_URL"] = f"sqlite:///{tmp_path / 'app.db'}"
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

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        if args and isinstance(args[0], str):
            kwargs.setdefault("base_url", self.origin)
        return super().open(*args, **kwargs)


def browser_like(app: Flask, origin: str = ORIGIN) -> FlaskClient:
    """A new browser, on a page of ``origin``."""
    client = BrowserLike(app)
    client.origin = origin
    client.environ_base["HTTP_REFERER"] = f"{origin}/"
    return client


def pages(visitor: FlaskClient) -> list[str]:
    """The addresses of all pages that a visitor can open without an argument."""
    rules = visitor.application.url_map.iter_rules()
    paths = [rule.rule for rule in rules if "GET" in (rule.methods or ()) and not rule.arguments]
    answers = {path: visitor.get(path) for path in paths}
    return [path for path, answer in answers.items() if (answer.status_code, answer.mimetype) == (200, "text/html")]


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
    """A new browser that may upload: signed in, where the app has accounts."""
    client = browser_like(app)
    if "accounts" in app.blueprints:
        from tests.accounts.people import register, sign_in

        register(client, email)
        sign_in(client, email)
    return client


@pytest.fixture
def member(app: Flask) -> FlaskClient:
    return new_member(app)


@dataclass
class Server:
    """The app under gunicorn, over TLS, on loopback. Where nginx stands before it, ``http_port`` is that of http."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]
    tls: ssl.SSLContext
    http_port: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own; nothing is followed, kept or rewritten."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def raw(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection for bytes that no client library would send, from one of the addresses of loopback."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))
        return self.tls.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA, app_config: dict[str, object], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start the app under gunicorn with the given settings: ``serve(RATELIMIT_DEFAULT="5 per minute")``."""
    running: list[subprocess.Popen[bytes]] = []

    def start(**config: object) -> Server:
        port = free_port()
        certificate, log = tmp_path / "server.pem", tmp_path / f"server-{port}.log"
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        environment = os.environ | {"SERVER_NAME": f"localhost:{port}"}
        environment |= {name: str(value) for name, value in (app_config | config).items()}
        command = [sys.executable, "-m", "gunicorn", "wsgi:app", "--bind", f"127.0.0.1:{port}"]
        command += ["--certfile", str(certificate)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        running.append(process)
        wait_for(port, process, log)
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        return Server(port, log, process, tls)

    yield start
    stop(running)


@pytest.fixture
def serve_proxied(
    authority: trustme.CA, app_config: dict[str, object], tmp_path: Path
) -> Iterator[Callable[..., Server]]:
    """Start the app as in production: gunicorn over plain http, behind nginx with deploy/nginx.conf.

    ``serve_proxied(THREADS=2)`` takes settings of the app and the variables of gunicorn.conf.py. ``wsgi`` is what
    gunicorn serves.
    """
    nginx = str(PROGRAMS["serve_proxied"].path())
    running: list[subprocess.Popen[bytes]] = []

    def start(wsgi: str = "wsgi:app", **config: object) -> Server:
        https, http, behind = free_port(), free_port(), free_port()
        folder = tmp_path / f"nginx-{https}"
        log, proxy_log = folder / "gunicorn.log", folder / "nginx.log"
        (folder / "tls").mkdir(parents=True)
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(str(folder / "tls/privkey.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / "tls/fullchain.pem"))
        (folder / "nginx.conf").write_text(on_loopback(folder, https, http, behind))

        environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(behind), "SERVER_NAME": f"localhost:{https}"}
        environment |= {name: str(value) for name, value in (app_config | {"TRUSTED_PROXY_HOPS": 1} | config).items()}
        with log.open("wb") as output:
            command = [sys.executable, "-m", "gunicorn", wsgi]
            gunicorn = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        running.insert(0, gunicorn)  # nginx stops last, so that it keeps no connection to gunicorn busy
        # nginx gives up root's rights, and its other user could not enter pytest's folders.
        user = "user root;" if os.geteuid() == 0 else ""
        with proxy_log.open("wb") as output:
            command = [nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr"]
            command += ["-g", f"daemon off; pid {folder}/nginx.pid; {user}"]
            proxy = subprocess.Popen(command, stdout=output, stderr=output)
        running.append(proxy)
        wait_for(behind, gunicorn, log)
        wait_for(https, proxy, proxy_log)
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        return Server(https, log, gunicorn, tls, http)

    yield start
    stop(running)


def on_loopback(folder: Path, https: int, http: int, behind: int) -> str:
    """deploy/nginx.conf with other ports, and its temporary files in ``folder``; all else is what ships."""
    text = (ROOT / "deploy/nginx.conf").read_text()
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for shipped, here in {
        "http {\n": f"http {{\n{temporary}",
        "listen 80;": f"listen 127.0.0.1:{http};",
        "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
        "server app:8000;": f"server 127.0.0.1:{behind};",
    }.items():
        assert re.search(rf"(?m)^ *{re.escape(shipped)}", text), f"deploy/nginx.conf has no line {shipped!r}"
        text = re.sub(rf"(?m)^( *){re.escape(shipped)}", lambda line, here=here: line[1] + here, text)
    return text


def stop(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: the one in CHROMIUM, else the system's, else Playwright's own.

    Every host name leads to loopback, so that a test can serve ``https://attacker.test``.
    """
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=PROGRAMS["browser"].path(),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--host-resolver-rules=MAP * 127.0.0.1",
            ],
        )
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
