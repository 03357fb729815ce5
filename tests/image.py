"""Tests of the image, without a container runtime: see tests/dockerfile.py. tests/test_deploy.py runs them.

compose.yaml says to which folders the service may write, and how long it may take to stop.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.conftest import Cookiecutter
from tests.dockerfile import Stage, build

# A checkout contains these; an image must not.
SECRETS = {
    ".env": "SECRET_KEY=5d2f0c7a91be4c1e8f6b3a7d9e0c2b4f6a8d1e3c5b7f9a0d",
    "app/.env": "SECRET_KEY=c4e1d7b09a6f4f2d8b5e3c1a7f9d0b2e4c6a8f1d3b5e7c9a",
    "deploy/.env": "POSTGRES_PASSWORD=77c0a2e4b6d8f0a1c3e5d7b9f1a3c5e7",
    "deploy/tls/privkey.pem": "-----BEGIN PRIVATE KEY-----b3f1d9",
    "instance/uploads/0123456789abcdef/0123": "a letter of somebody 9e8d7c",
}

CHECKOUT = "/srv/checkout"
BACKUPS = ("install", "-d", "-o", "10001", "-m", "700")  # makes the folder of the backups, which is /backups inside
CONFINED = (True, ["ALL"], ["no-new-privileges:true"])


@dataclass
class Container:
    stage: Stage
    service: dict[str, Any]
    port: int
    settings: dict[str, str]
    process: subprocess.Popen[str]

    def is_healthy(self) -> bool:
        return self.stage.start(self.stage.check, env=self.settings, stderr=subprocess.DEVNULL).wait() == 0

    def tree(self) -> set[int]:
        """The processes that run in the image's root."""
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if os.path.samefile(path / "root", self.stage.root):
                    found.add(int(path.name))
            except OSError:
                continue
        return found


def in_production(service: dict[str, Any]) -> dict[str, str]:
    """The environment of the service in compose.yaml, with what a team sets in its .env."""
    environment = {name: str(value) for name, value in service["environment"].items()}
    environment["DATABASE_URL"] = re.sub(r"\$\{POSTGRES_PASSWORD\b.*?\}", "secret", environment["DATABASE_URL"])
    own = {"TRUSTED_HOSTS": "www.example.com", "SERVER_NAME": "www.example.com", "SECRET_KEY": os.urandom(24).hex()}
    return environment | own | {"MAIL_SERVER": "mail.example.com", "MAIL_DEFAULT_SENDER": "app@www.example.com"}


# Settings for the app without the other services.
HERE = {
    "TRUSTED_HOSTS": "localhost",
    "SERVER_NAME": "localhost",
    "RATELIMIT_STORAGE_URI": "memory://",
    "CLAMD_URL": "",
    "DATABASE_URL": "sqlite:///app.db",
    "MAIL_SERVER": "",
}


@pytest.fixture(scope="module")
def services(project: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((project / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated app, with the secrets that a checkout has."""
    place = tmp_path_factory.mktemp("project")
    app = Cookiecutter(template, place / "out", place / "home").app()
    for name, text in SECRETS.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(f"{text}\n")
    return app


@pytest.fixture(scope="module")
def image(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return build(project, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def container(
    image: Stage, services: dict[str, dict[str, Any]], project: Path, tmp_path_factory: Any
) -> Iterator[Container]:
    """The image, started as compose.yaml starts it, but with counters in memory, SQLite and no scanner."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = services["app"]
    settings = in_production(service) | HERE | {"PORT": str(port)}
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == CONFINED
    (volume,) = [line.partition(":")[2] for line in service["volumes"]]
    assert image.volumes == [volume]
    places = {volume: "", "/dev/shm": f"size={service['shm_size']}"}  # noqa: S108 - in the container
    places |= dict(line.split(":") for line in service["tmpfs"])
    image.show(project, CHECKOUT)
    image.run(*BACKUPS, "/backups", user="root", folder="/")
    image.confine(places | {"/backups": ""})
    image.run(*services["migrate"]["command"], env=settings)
    log = tmp_path_factory.mktemp("container") / "log"
    with log.open("w") as output:
        process = image.start(image.command, env=settings, stdout=output, stderr=output)
    started = Container(image, service, port, settings, process)
    patience = time.monotonic() + 60
    processes = 1 + int(settings["WEB_CONCURRENCY"])
    while not started.is_healthy() or len(started.tree()) < processes:  # one worker may answer before the other starts
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < patience, log.read_text()
        time.sleep(0.2)
    yield started
    process.kill()
    process.wait()


@dataclass
class Visitor:
    """A browser behind a proxy that terminates TLS. It keeps its session cookie."""

    port: int
    cookie: str = ""
    token: str = ""

    def request(self, path: str, fields: dict[str, str] | None = None) -> tuple[int, str]:
        connection = self.connect()
        body = urlencode({"csrf_token": self.token} | fields) if fields is not None else None
        connection.request("POST" if body else "GET", path, body, self.headers() | FORM)
        return self.answer(connection)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def headers(self) -> dict[str, str]:
        origin = {"Host": "localhost", "Origin": "https://localhost", "Referer": "https://localhost/"}
        return origin | {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7", "Cookie": self.cookie}

    def answer(self, connection: http.client.HTTPConnection) -> tuple[int, str]:
        response = connection.getresponse()
        for line in response.headers.get_all("Set-Cookie", []):
            self.cookie = line.partition(";")[0]
        text = response.read().decode()
        connection.close()
        if token := re.search(r'<meta name="csrf-token" content="([^"]+)"', text):
            self.token = token[1]
        return response.status, text


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
UPLOAD = (
    '--limit\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{}\r\n'
    '--limit\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    "Content-Type: text/plain\r\n\r\nmine\r\n--limit--\r\n"
)


def test_the_layers_hold_the_app_and_no_tool_no_test_and_no_secret(image: Stage, project: Path) -> None:
    written = image.written()
    ours = {path for path, file in written.items() if path.startswith("/srv/app/") and file.is_file()}
    code = {path.relative_to(project).as_posix() for path in (project / "app").rglob("*") if path.is_file()}
    assert image.copied == {*code, "wsgi.py", "gunicorn.conf.py"} - SECRETS.keys()
    compiled = {path for path in ours if path.endswith(".pyc")}
    assert len(compiled) == len([name for name in code if name.endswith(".py")])
    assert ours - compiled == {f"/srv/app/{name}" for name in image.copied}
    names = {Path(path).name for path in written if not path.startswith(("/usr/", "/var/"))}
    assert not {"tools", "pip", "requirements.txt", ".env", ".git", "tls"} & names
    for text in SECRETS.values():
        found = [path for path, file in written.items() if file.is_file() and text.encode() in file.read_bytes()]
        assert (text, found) == (text, [])
    assert not re.search("KEY|PASSWORD|TOKEN", "".join(image.environment))


def test_the_apps_user_can_change_no_code(image: Stage) -> None:
    places = image.run("find", "/srv", "/venv", "/usr/local", "-xdev", "-writable", "!", "-type", "l").split()
    assert places == ["/srv/app/instance"]


def test_it_serves_as_a_user_without_rights_on_a_system_that_nobody_can_write_to(container: Container) -> None:
    assert len(container.tree()) == 1 + int(container.settings["WEB_CONCURRENCY"])
    for process in container.tree():
        status = Path(f"/proc/{process}/status").read_text()
        assert re.search(r"(?m)^Uid:\t10001\t10001\t10001\t10001$", status)
        assert re.search(r"(?m)^CapBnd:\t0+$", status)
        assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
    for place in ("/srv/app", "/venv", "/etc", "/usr/bin", "/var/lib", "/"):
        wrote = container.stage.start(["touch", f"{place}/new"], user="root", stderr=subprocess.PIPE)
        assert "Read-only file system" in wrote.communicate()[1], place
    container.stage.run("touch", *(f"{place}/new" for place in ("/tmp", "/srv/app/instance")))  # noqa: S108


def test_the_audit_of_the_image_finds_nothing_missing(container: Container, project: Path) -> None:
    """With the command of docs/production.md. It writes only to /tmp, and leaves nothing there."""
    page = (project / "docs/production.md").read_text(encoding="utf-8")
    assert f'-e PYTHONPATH={CHECKOUT} -v "$PWD:{CHECKOUT}:ro" app python -m tools.audit\n' in page
    writable = [container.stage.root / place for place in ("tmp", "srv/app/instance")]
    before = [sorted(path.rglob("*")) for path in writable]
    environment = in_production(container.service) | {"PYTHONPATH": CHECKOUT}
    told = container.stage.run("python", "-m", "tools.audit", env=environment)
    assert told.rstrip().endswith("10 mitigations: 10 implemented"), told
    assert re.findall(r"\bDP\d+", told) == ["DP01"]  # nobody reads the address for reports
    assert [sorted(path.rglob("*")) for path in writable] == before


def test_the_image_writes_a_backup_into_the_folder_that_the_page_makes(container: Container, project: Path) -> None:
    page, command = (project / "README.md").read_text(encoding="utf-8"), "flask --app app backup /backups/2026-11-26"
    assert f"\n{' '.join(BACKUPS)} /srv/backups\n" in page
    assert f" run --rm --no-deps -v /srv/backups:/backups app {command}\n" in page
    container.stage.run(*command.split(), env=container.settings)
    assert (container.stage.root / "backups/2026-11-26/database.db").is_file()


def test_people_register_and_store_files_and_a_stop_waits_for_them(container: Container) -> None:
    visitor = Visitor(container.port)
    assert visitor.request("/readyz")[0] == 200  # it has all migrations
    assert visitor.request("/register")[0] == 200
    password = "tr0ub4dor-and-3-horses"
    account = {"email": "ann@example.com", "password": password, "password_confirm": password}
    assert visitor.request("/register", account)[0] == 303
    visitor.request("/login")
    assert visitor.request("/login", account)[0] == 303
    assert visitor.request("/uploads")[0] == 200

    body = UPLOAD.format(visitor.token).encode()
    upload = visitor.connect()
    upload.putrequest("POST", "/uploads", skip_host=True)
    for name, value in (visitor.headers() | {"Content-Type": "multipart/form-data; boundary=limit"}).items():
        upload.putheader(name, value)
    upload.putheader("Content-Length", str(len(body)))
    upload.endheaders(body[:50])
    time.sleep(0.5)  # a worker has it now
    container.process.send_signal(signal.SIGTERM)
    time.sleep(2)  # gunicorn must wait for the upload
    upload.send(body[50:])
    assert visitor.answer(upload)[0] == 303
    grace = int(container.service["stop_grace_period"].removesuffix("s"))
    assert container.process.wait(timeout=grace) == 0
    assert container.tree() == set()
    assert not container.is_healthy()
    assert len(list((container.stage.root / "srv/app/instance/uploads").glob("*/*.json"))) == 1
