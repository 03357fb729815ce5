"""Real servers on loopback: the app under gunicorn over TLS, and behind nginx as in production."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from app.paths import ROOT
from tests.forked import Gunicorn
from tests.programs import PROGRAMS

Running = subprocess.Popen[bytes] | Gunicorn


@dataclass
class Server:
    """The app under gunicorn, over TLS, on loopback. Where nginx stands before it, ``http_port`` is that of http."""

    port: int
    log: Path
    process: Running
    tls: ssl.SSLContext
    http_port: int = 0
    start: Callable[[], object] = lambda: None  # starts it again after a stop

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def request(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        source: str = "127.0.0.1",
        patience: int = 10,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own; nothing is followed, kept or rewritten."""
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.tls, timeout=patience, source_address=(source, 0)
        )
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
    """Start the app under gunicorn with the given settings: ``serve(RATELIMIT_DEFAULT="5 per minute")``.

    ``folder`` is that of another checkout.
    """
    running: list[Running] = []

    def start(wsgi: str = "wsgi:app", folder: Path = ROOT, **config: object) -> Server:
        port = free_port()
        certificate, log = tmp_path / "server.pem", tmp_path / f"server-{port}.log"
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        environment = os.environ | {"SERVER_NAME": f"localhost:{port}"}
        environment |= {name: str(value) for name, value in (app_config | config).items()}
        arguments = [wsgi, "--bind", f"127.0.0.1:{port}", "--certfile", str(certificate)]
        process = Gunicorn(arguments, log, environment, folder)
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
    running: list[Running] = []

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

        def start_gunicorn() -> Gunicorn:
            running.append(Gunicorn([wsgi], log, environment, ROOT))
            wait_for(behind, running[-1], log)
            return running[-1]

        gunicorn = start_gunicorn()
        # nginx gives up root's rights, and its other user could not enter pytest's folders.
        user = "user root;" if os.geteuid() == 0 else ""
        command = [nginx, "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        proxy = launch([*command, "-g", f"daemon off; pid {folder}/nginx.pid; {user}"], proxy_log)
        running.append(proxy)
        wait_for(https, proxy, proxy_log)
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        return Server(https, log, gunicorn, tls, http, start_gunicorn)

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
        "server app:8000 ": f"server 127.0.0.1:{behind} ",
    }.items():
        assert re.search(rf"(?m)^ *{re.escape(shipped)}", text), f"deploy/nginx.conf has no line {shipped!r}"
        text = re.sub(rf"(?m)^( *){re.escape(shipped)}", lambda line, here=here: line[1] + here, text)
    return text


def launch(
    command: list[str], log: Path, environment: dict[str, str] | None = None, folder: Path = ROOT
) -> subprocess.Popen[bytes]:
    """Start a server, in a process group of its own with its workers."""
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, process_group=0)


def stop(running: list[Running]) -> None:
    """Kill servers with their workers, which would wait a second or more for their clients."""
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: Running, log: Path) -> None:
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
