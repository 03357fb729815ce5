"""The metrics for Prometheus: closed to strangers, of all workers together, and without what a client wrote."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from flask import Flask, Response

from app import create_app
from app.settings import SettingsError
from app.visitors import public
from tests.conftest import KEY, ROOT, Server, browser_like, new_member
from tests.hostile_images import children
from tests.test_05_access_log import CANARY, FORMS, INPUTS, PIECES
from tests.test_05_errors import capture_log
from tests.test_08_rate_limits import until

TOKEN = "c41f7a90d2be4e6f8b35a7d1906c2e84"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
COUNTED = 'http_requests_total{method="%s",route="%s",status="%s"}'


class EndedSocket(Response):
    """How flask-sock tells gunicorn that a WebSocket has ended, perhaps after hours."""

    def __call__(self, *_: object) -> Iterable[bytes]:
        raise StopIteration


@pytest.fixture
def app(app_config: dict[str, object]) -> Flask:
    return create_app(app_config | {"METRICS_TOKEN": TOKEN})


@pytest.fixture
def serve_counting(serve: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    """Servers with metrics. They are killed at the end, so what they share is removed here."""
    started: list[Server] = []

    def start(**config: object) -> Server:
        started.append(serve(METRICS_TOKEN=TOKEN, RATELIMIT_DEFAULT="100000 per minute", **config))
        return started[-1]

    yield start
    for server in started:
        for folder in shared_by(server):
            shutil.rmtree(folder)


def shared_by(server: Server) -> list[Path]:
    return [*Path(tempfile.gettempdir()).glob(f"metrics-{server.process.pid}-*")]


def numbers(text: str) -> dict[str, float]:
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(number) for name, _, number in pairs}


def numbers_of(server: Server) -> dict[str, float]:
    status, headers, body = server.request("/metrics", headers=RIGHT)
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    return numbers(body.decode())


def workers(server: Server) -> set[int]:
    return set(children(server.process.pid))


def without_ids(text: str) -> str:
    return re.sub(r"[0-9a-f]{32}|nonce=\"[^\"]+\"|content=\"[^\"]+\"", "", text)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": "Bearer \xe4"},
        {"Authorization": "Basic \xe4"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"METRICS_TOKEN={TOKEN}"},
        {"Accept": "application/json"},
    ],
)
def test_strangers_get_the_page_of_an_unknown_address(app: Flask, sent: dict[str, str]) -> None:
    log = capture_log()
    refused, unknown = (browser_like(app).get(path, headers=sent) for path in ("/metrics", "/metric"))
    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert without_ids(refused.text) == without_ids(unknown.text)
    assert set(refused.headers.keys()) == set(unknown.headers.keys())
    events = [line for line in log.getvalue().splitlines() if "event=authz_fail" in line]
    assert len(events) == 1
    assert "route=/metrics" in events[0]
    assert TOKEN[:-1] not in log.getvalue()


def test_a_query_with_the_token_opens_nothing_and_the_log_does_not_have_it(app: Flask) -> None:
    log, client = capture_log(), browser_like(app)
    assert client.get(f"/metrics?token={TOKEN}&x={TOKEN}").status_code == 404
    client.get(f"/{TOKEN}/{TOKEN}")
    app.logger.warning("a library said %s", TOKEN)
    assert "a library said" in log.getvalue()
    assert TOKEN not in log.getvalue()


def test_the_right_answer_has_no_cookie_and_is_kept_nowhere(app: Flask) -> None:
    stranger, member = (visitor.get("/metrics", headers=RIGHT) for visitor in (browser_like(app), new_member(app)))
    for answer in (stranger, member):
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "Set-Cookie" not in stranger.headers
    assert browser_like(app).get("/metrics", headers=RIGHT, base_url="http://192.0.2.7:8000").status_code == 200


@pytest.mark.parametrize("sent", [RIGHT["Authorization"], "Bearer ", "Bearer None"])
def test_without_the_setting_there_are_no_metrics(app_config: dict[str, object], sent: str) -> None:
    assert browser_like(create_app(app_config)).get("/metrics", headers={"Authorization": sent}).status_code == 404


def test_without_the_setting_nothing_is_imported_for_them() -> None:
    code = "import sys, app; app.create_app(); print('prometheus_client' in sys.modules)"
    for token, imported in (("", b"False\n"), (TOKEN, b"True\n")):
        environment = os.environ | {"SECRET_KEY": KEY, "METRICS_TOKEN": token}
        assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment) == imported


def test_a_folder_that_the_environment_names_is_not_used() -> None:
    """The recipe of earlier versions needed one."""
    code = "import app; print(app.create_app().test_client().get('/healthz').status_code)"
    environment = os.environ | {"SECRET_KEY": KEY, "METRICS_TOKEN": TOKEN, "PROMETHEUS_MULTIPROC_DIR": "/nowhere"}
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment) == b"200\n"


@pytest.mark.parametrize("token", ["secret", "0" * 64, "changeme-changeme-changeme-42"])
def test_a_token_for_metrics_that_can_be_guessed_stops_the_start(app_config: dict[str, object], token: str) -> None:
    with pytest.raises(SettingsError, match="METRICS_TOKEN") as refused:
        create_app(app_config | {"METRICS_TOKEN": token})
    assert token not in str(refused.value)


@pytest.mark.parametrize("access_log", [False, True])
def test_each_request_and_each_event_counts_once(app_config: dict[str, object], access_log: bool) -> None:
    limits = {"RATELIMIT_DEFAULT": "9 per minute", "ACCESS_LOG": access_log}
    app = create_app(app_config | {"METRICS_TOKEN": TOKEN} | limits)
    app.add_url_rule("/tested-socket", view_func=public(EndedSocket), endpoint="socket")
    log, client, operator = capture_log(), browser_like(app), browser_like(app)
    operator.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    before = numbers(operator.get("/metrics", headers=RIGHT).text)
    asked = ["/", "/?a=b", "/nothing", "/static/app.css", "/healthz", *["/robots.txt"] * 12]
    for path in asked:
        client.get(path).close()
    with pytest.raises(StopIteration):
        client.get("/tested-socket", headers={"Upgrade": "websocket", "Origin": "https://localhost"})
    after = numbers(operator.get("/metrics", headers=RIGHT).text)
    grown = {name: int(number - before.get(name, 0)) for name, number in after.items()}
    wanted = {
        ("/", "200"): 2,
        ("-", "404"): 1,
        ("/static/<filename>", "200"): 1,
        ("/healthz", "200"): 1,
        ("/robots.txt", "200"): 9,
        ("/robots.txt", "429"): 3,  # also those that are refused in front of Flask
        ("/tested-socket", "0"): 1,
        ("/metrics", "200"): 1,
    }
    assert {name: count for name, count in grown.items() if name.startswith("http_requests_total") and count} == {
        COUNTED % ("GET", *which): count for which, count in wanted.items()
    }
    assert grown['http_request_duration_seconds_count{method="GET",route="/robots.txt"}'] == 12
    assert 'http_request_duration_seconds_count{method="GET",route="/tested-socket"}' not in grown
    assert grown['security_events_total{event="excess_rate_limit_exceeded"}'] == 1
    assert (" access " in log.getvalue()) == access_log


def test_5_S3_clients_add_nothing_to_the_metrics(serve_counting: Callable[..., Server]) -> None:
    """Whatever is sent in whatever form, and then in another: no piece of it, and no label more."""
    server = serve_counting()

    def names_after(word: str) -> set[str]:
        for method, path, headers, body in [*INPUTS, ("{0}", "/", {}, ""), ("{0}", "/{0}", {}, "")]:
            given = {name.format(word): value.format(word) for name, value in headers.items()}
            content = body.format(word).encode() or None
            server.request(path.format(word), method.format(word[:20].upper()), content, {"Origin": server.url} | given)
        return numbers_of(server).keys()

    numbers_of(server)  # so that the labels of /metrics itself are among the first
    first = names_after(CANARY)
    assert {name for name in first if "route" in name}
    assert names_after(CANARY[::-1]) == first
    assert names_after(FORMS["doubled"]) == first
    text = server.request("/metrics", headers=RIGHT)[2].decode().lower()
    assert {piece for piece in PIECES if piece in text} == set()
    assert COUNTED % ("other", "-", "405") in first


@pytest.mark.fault(
    "Worker",
    "is killed or replaced, with metrics",
    sees="nothing: no number of `/metrics` decreases",
    ends="at once: gunicorn starts another",
)
def test_several_workers_count_together_and_forget_nothing(serve_counting: Callable[..., Server]) -> None:
    """By the token alone. What a killed or replaced worker has counted stays, and no file more for each of them."""
    server = serve_counting(WEB_CONCURRENCY=2)
    [folder] = shared_by(server)
    assert folder.stat().st_mode & 0o777 == 0o700
    counted = COUNTED % ("GET", "/robots.txt", "200")
    until(lambda: len([*folder.glob("counter_*.db")]) == 2)  # one of them may still be starting
    asked = 0

    def ask_until_both_have_served() -> None:
        nonlocal asked
        known = numbers_of(server).get(counted, 0)
        assert known == asked
        contents = {path: path.read_bytes() for path in folder.glob("counter_*.db")}
        while sum(path.read_bytes() != content for path, content in contents.items()) < 2 and asked < known + 1000:
            assert server.request("/robots.txt")[0] == 200
            asked += 1
        assert asked < known + 1000

    ask_until_both_have_served()
    assert numbers_of(server)[counted] == asked
    files = {path.name for path in folder.iterdir()}
    for _ in range(3):
        before = workers(server)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        until(lambda before=before: len(workers(server) - before) == 2)
        ask_until_both_have_served()
    assert numbers_of(server)[counted] == asked
    assert {path.name for path in folder.iterdir()} == files
    for _ in range(3):  # the old workers end after the new ones have begun
        before = workers(server)
        server.process.send_signal(signal.SIGHUP)
        until(lambda before=before: len(workers(server)) == 2 and not workers(server) & before)
        assert server.request("/robots.txt")[0] == 200
        asked += 1
        assert numbers_of(server)[counted] == asked
    assert len([*folder.glob("counter_*")]) <= 4
    server.process.terminate()
    server.process.wait(30)
    assert shared_by(server) == []


@pytest.mark.fault(
    "Temporary files",
    "can't be written when a worker starts, with metrics",
    sees="nothing: all works, but this worker has no metrics",
    ends="with the next start of the worker",
)
def test_a_worker_that_cannot_share_its_metrics_serves_all_else(serve_counting: Callable[..., Server]) -> None:
    server = serve_counting()
    [folder] = shared_by(server)
    shutil.rmtree(folder)
    folder.write_text("a file, in which nothing can be stored")
    try:
        [worker] = workers(server)
        os.kill(worker, signal.SIGKILL)
        until(lambda: bool(workers(server) - {worker}))
        assert [server.request(path)[0] for path in ("/", "/nothing", "/robots.txt")] == [200, 404, 200]
        assert numbers_of(server) == {}
        assert server.request("/metrics")[0] == 404
        assert f"no metrics of this worker: they can't be stored in {folder}" in server.log.read_text()
    finally:
        folder.unlink()


# What a new worker does, where no file can have more than some bytes.
SHARE = """
import resource, sys
from app import metrics
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
metrics.share(sys.argv[1], int(sys.argv[2]))
metrics.events.labels("tested").inc()
print(metrics.response().get_data(as_text=True))
"""


def test_a_worker_without_room_leaves_the_others_their_metrics(tmp_path: Path) -> None:
    def share(number: int, most: int) -> str:
        command = [sys.executable, "-c", SHARE, str(tmp_path / "shared"), str(number), str(most)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    counted = 'security_events_total{event="tested"}'
    assert counted not in share(1, 0)
    assert f"{counted} 1.0" in share(0, -1)
    assert f"{counted} 2.0" in share(1, -1)
