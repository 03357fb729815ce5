"""HUP, which tells a server to reload: gunicorn takes new code and settings, or keeps the old ones and says why."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.sessions import SecureCookieSessionInterface

from app import create_app
from tests.conftest import KEY, ROOT, Server

NEW_KEY = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The app's folder, with a .env."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("gunicorn.conf.py", "wsgi.py"):
        shutil.copy(ROOT / name, folder)
    (folder / ".env").write_text(f"SECRET_KEY={KEY}\nRATELIMIT_DEFAULT=50 per minute\n")
    return folder


def reload(server: Server, until: Callable[[], bool]) -> str:
    """Send HUP, wait until that has worked, and return the log since."""
    before = len(server.log.read_text())
    server.process.send_signal(signal.SIGHUP)
    patience = time.monotonic() + 30
    while not until() and time.monotonic() < patience:
        time.sleep(0.1)
    assert until(), server.log.read_text()
    return server.log.read_text()[before:]


def signs_with(server: Server, app_config: dict[str, object], key: str) -> bool:
    """Whether the server's session cookies are those of an app with this key."""
    cookie = re.search(r"__Host-session=([^;]+)", str(server.request("/")[1]["Set-Cookie"]))
    app = create_app(app_config | {"SECRET_KEY": key})
    assert cookie
    assert isinstance(app.session_interface, SecureCookieSessionInterface)
    serializer = app.session_interface.get_signing_serializer(app)
    return serializer is not None and serializer.loads_unsafe(cookie[1])[0]


def limit(server: Server) -> str:
    return server.request("/")[1]["RateLimit-Limit"]


def test_hup_takes_a_new_key_new_settings_and_new_code(
    serve: Callable[..., Server], checkout: Path, app_config: dict[str, object]
) -> None:
    server = serve(folder=checkout, SECRET_KEY="")  # that of .env
    assert limit(server) == "50"
    assert [signs_with(server, app_config, key) for key in (KEY, NEW_KEY)] == [True, False]
    (checkout / ".env").write_text(f"SECRET_KEY={NEW_KEY}\nRATELIMIT_DEFAULT=60 per minute\n")
    code = checkout / "app/views/health.py"
    code.write_text(code.read_text().replace('{"status": "ok"}', '{"status": "new"}'))
    told = reload(server, lambda: limit(server) == "60")
    assert server.request("/healthz")[2] == b'{"status":"new"}\n'
    assert [signs_with(server, app_config, key) for key in (KEY, NEW_KEY)] == [False, True]
    assert told.count("Handling signal: hup") == 1  # not once more by gunicorn's own log
    assert "HUP changed nothing" not in told


@pytest.mark.fault(
    "Code or `.env`",
    "has a fault, and HUP loads it",
    sees="nothing: the old ones stay, and the log says why",
    ends="after the fix and another HUP",
)
@pytest.mark.parametrize(
    ("file", "fault", "named"),
    [
        (".env", f"SECRET_KEY={KEY}\nRATELIMIT_DEFAULT=often\n", "RATELIMIT_DEFAULT"),
        (".env", "SECRET_KEY=changeme\n", "SECRET_KEY"),
        ("app/views/health.py", "def broken(:\n", "health.py"),
    ],
)
def test_hup_with_a_fault_changes_nothing_and_names_it(
    serve: Callable[..., Server], checkout: Path, file: str, fault: str, named: str
) -> None:
    server = serve(folder=checkout, SECRET_KEY="")
    before = (checkout / file).read_text()
    (checkout / file).write_text(fault)
    told = reload(server, lambda: "HUP changed nothing" in server.log.read_text())
    assert told.count("HUP changed nothing") == 1
    assert named in told
    time.sleep(1)  # the workers of before have gone
    assert limit(server) == "50"
    assert server.request("/healthz")[0] == 200
    (checkout / file).write_text(before)
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\nRATELIMIT_DEFAULT=60 per minute\n")
    reload(server, lambda: limit(server) == "60")


@pytest.mark.parametrize("token", ["", "c41f7a90d2be4e6f8b35a7d1906c2e84"])
def test_hup_upgrades_a_gunicorn_that_knew_no_metrics(serve: Callable[..., Server], checkout: Path, token: str) -> None:
    """Its workers and itself lack what the new hooks give them."""
    conf = checkout / "gunicorn.conf.py"
    new = conf.read_text()
    conf.write_text(new[: new.index("def pre_fork(")] + new[new.index("def on_reload(") :])
    server = serve(folder=checkout, SECRET_KEY="", METRICS_TOKEN=token)
    conf.write_text(new)
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\nRATELIMIT_DEFAULT=60 per minute\n")
    reload(server, lambda: limit(server) == "60")
    status, _, body = server.request("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert (status, b"http_requests_total" in body) == ((200, True) if token else (404, False))
    server.process.terminate()
    server.process.wait(30)
    assert not [*Path(tempfile.gettempdir()).glob(f"metrics-{server.process.pid}-*")]
