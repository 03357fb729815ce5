"""What visitors notice of a part that hangs or is slow: the site goes on. See also tests/accounts/test_postgres.py."""

from __future__ import annotations

import io
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask
from urllib3.filepost import encode_multipart_formdata

from app import breaker, create_app
from app.security import counters
from tests.conftest import Server, browser_like, csrf_token, new_member, session_cookie
from tests.fake_clamd import FakeClamd
from tests.faults import PAGE, as_the_tests_say
from tests.hostile_images import children
from tests.relay import Relay
from tests.s3_server import S3, own_s3
from tests.test_08_rate_limits import BACK_WITHIN, Redis, redis
from tests.test_09_uploads import Clamd, clamd

__all__ = ("clamd", "own_s3", "redis")

AT_ONCE = "at once: gunicorn starts another"


def test_the_page_about_faults_says_what_the_tests_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("`tests/") > 10
    assert page == as_the_tests_say(page), "run: make faults"


@pytest.mark.fault(
    "ClamAV",
    "hangs",
    sees="503 for uploads, at once for most; all else works",
    ends="with the next upload after its return",
)
def test_9_T4_a_scanner_that_hangs_does_not_stop_the_site(
    app: Flask, app_config: dict[str, object], clamd: Clamd, serve: Callable[..., Server]
) -> None:
    """More uploads wait for it than the server has threads. Nothing times out while the others are served."""
    server = serve(**app_config | {"CLAMD_URL": clamd.urls[0]}, THREADS=12)
    member = new_member(app)
    token = csrf_token(member)
    body, kind = encode_multipart_formdata({"csrf_token": token, "file": ("a.txt", "harmless")})
    headers = {"Content-Type": kind, "Cookie": f"__Host-session={session_cookie(member)}", "Origin": server.url}

    def upload() -> int:
        return server.request("/uploads", "POST", body, headers, patience=60)[0]

    assert upload() == 303
    with ThreadPoolExecutor(20) as pool:
        clamd.process.send_signal(signal.SIGSTOP)
        try:
            waiting = [pool.submit(upload) for _ in range(20)]
            for _ in range(20):
                assert [server.request(path)[0] for path in ("/healthz", "/", "/static/app.css")] == [200] * 3
            assert 0 < sum(not each.done() for each in waiting) < 12
        finally:
            clamd.process.send_signal(signal.SIGCONT)
        assert {each.result() for each in waiting} == {303, 503}
    assert upload() == 303


@pytest.mark.fault(
    "S3 bucket",
    "hangs",
    sees="503 for uploads and downloads, at once for most; all else works",
    ends="with the next request after its return",
)
def test_9_T4_a_bucket_that_hangs_does_not_stop_the_site(
    app_config: dict[str, object], own_s3: S3, serve: Callable[..., Server]
) -> None:
    """No upload that was answered with 503 appears later, although the bucket has received its data."""
    config = app_config | own_s3.settings() | {"RATELIMIT_DEFAULT": "999 per minute"}
    server, member = serve(**config, THREADS=12), new_member(create_app(config))
    token = csrf_token(member, "/uploads")  # without accounts, this makes the session an owner
    body, kind = encode_multipart_formdata({"csrf_token": token, "file": ("a.txt", "harmless")})
    headers = {"Cookie": f"__Host-session={session_cookie(member)}", "Origin": server.url, "Accept": "application/json"}

    def upload() -> int:
        return server.request("/uploads", "POST", body, headers | {"Content-Type": kind}, patience=60)[0]

    assert upload() == 201
    with ThreadPoolExecutor(20) as pool:
        own_s3.hang()
        try:
            waiting = [pool.submit(upload) for _ in range(15)]
            for _ in range(20):
                assert [server.request(path)[0] for path in ("/healthz", "/", "/static/app.css")] == [200] * 3
            assert 0 < sum(not each.done() for each in waiting) < 12
            assert {each.result() for each in waiting} == {503}
        finally:
            own_s3.go_on()
    assert upload() == 201
    status, _, files = server.request("/uploads", headers=headers)
    assert (status, files.count(b'"a.txt"')) == (200, 2)


@pytest.mark.parametrize(
    ("files", "seconds"),
    [
        (48, 0.25),  # more than may be scanned at once: the others wait as long as it answers in time
        (8, 0.6),  # large files: a few wait longer
    ],
)
def test_9_T4_a_scanner_that_answers_is_not_taken_for_one_that_hangs(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, files: int, seconds: float
) -> None:
    if files > 8:  # on a busy machine, one may take longer than the default of 0.2 seconds; all take 3
        monkeypatch.setattr(breaker, "STALL_SECONDS", 2)
    with FakeClamd("stream: OK\0", seconds=seconds) as scanner:
        app = create_app(app_config | {"CLAMD_URL": scanner.url})
        members = [new_member(app, f"member{number}@example.com") for number in range(3)]
        for number, member in enumerate(members):  # without accounts, the address counts
            member.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        tokens = [csrf_token(member) for member in members]

        def upload(number: int) -> int:
            form = {"csrf_token": tokens[number % 3], "file": (io.BytesIO(b"mine"), "a.txt")}
            return members[number % 3].post("/uploads", data=form).status_code

        assert upload(0) == 303  # in another test of this process, the scanner may have been away
        with ThreadPoolExecutor(files) as pool:
            assert set(pool.map(upload, range(files))) == {303}


def test_8_T4_health_checks_do_not_all_wait_for_a_scanner_that_hangs(app_config: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as scanner:  # it takes connections, and never answers
        app = create_app(app_config | {"CLAMD_URL": f"tcp://127.0.0.1:{scanner.getsockname()[1]}"})
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: browser_like(app).get("/readyz"), range(20)))
        scanner.settimeout(0)
        waited = 0
        with suppress(BlockingIOError):
            while True:
                scanner.accept()[0].close()
                waited += 1
    assert 0 < waited < 5


@pytest.mark.fault(
    "Worker",
    "hangs",
    sees="nothing if there are other workers: they serve all new requests",
    ends="at once, except for requests that it has begun",
)
def test_8_T4_a_worker_that_hangs_does_not_stop_the_site(serve_proxied: Callable[..., Server]) -> None:
    """The other worker serves all new requests, also of clients that both have served before."""
    server = serve_proxied(WEB_CONCURRENCY=2, RATELIMIT_DEFAULT="9999 per minute")

    def look(_: int = 0) -> int:
        return server.request("/healthz")[0]

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(look, range(60))) == {200}
    for worker in children(server.process.pid):
        os.kill(worker, signal.SIGSTOP)
        try:
            assert {look() for _ in range(20)} == {200}
        finally:
            os.kill(worker, signal.SIGCONT)


@pytest.mark.fault("Worker", "is killed during a GET", sees="nothing: nginx sends it once more", ends=AT_ONCE)
@pytest.mark.fault("Worker", "is killed during a POST", sees="503 of nginx", ends=AT_ONCE)
@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 503)])
def test_a_worker_that_is_killed_during_a_request(
    serve_proxied: Callable[..., Server], tmp_path: Path, method: str, status: int
) -> None:
    server = serve_proxied("tests.streams:app", STREAM=tmp_path / "killed")
    assert server.request("/tested-death", method)[0] == status
    assert server.request("/tested-death", method)[0] == 200


def test_a_clock_that_is_set_back_does_not_keep_redis_lost(
    app_config: dict[str, object], redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    client = browser_like(create_app(app_config | {"RATELIMIT_STORAGE_URI": redis.uri}))
    redis.kill()
    client.get("/")
    assert "Redis is lost" in caplog.text
    redis.start()
    monkeypatch.setattr(counters.time, "time", lambda now=time.time: now() - 3600)
    client.get("/")
    assert "Redis is back" in caplog.text


@pytest.fixture
def relay(redis: Redis) -> Iterator[Relay]:
    opened = Relay(redis.port)
    yield opened
    opened.close()


@pytest.mark.fault("Redis", "is slow", sees="a few responses are late, then nothing", ends=BACK_WITHIN)
def test_a_redis_that_is_slow_counts_as_lost_until_it_is_fast(
    app_config: dict[str, object], relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"redis://127.0.0.1:{relay.port}/0"
    client = browser_like(create_app(app_config | {"RATELIMIT_STORAGE_URI": uri, "RATELIMIT_DEFAULT": "99 per minute"}))
    left = [client.get("/").headers["RateLimit-Remaining"]]
    monkeypatch.setattr(counters, "REDIS_RETRY", 3600)  # on a busy machine, the requests below may take long
    relay.seconds = 0.15
    before = relay.answers
    left += [client.get("/").headers["RateLimit-Remaining"] for _ in range(10)]
    assert relay.answers - before < 6  # less than one for each request
    assert left == [str(number) for number in range(98, 87, -1)]
    assert caplog.text.count("Redis is lost") == 1
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    monkeypatch.setattr(counters.time, "monotonic", lambda start=time.monotonic: start() + 3601)
    client.get("/")
    assert "Redis is back" not in caplog.text  # it is as slow as before
    relay.seconds = 0
    assert client.get("/").headers["RateLimit-Remaining"] == "86"
    assert caplog.text.count("Redis is back") == 1
