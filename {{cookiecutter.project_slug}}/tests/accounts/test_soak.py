"""People use the app for a while, and meanwhile each part that it needs is killed and stopped in turn.

``make soak`` does this for ten minutes and prints how it went. The suite does it for a third of a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

import pytest
import sqlalchemy as sa
from urllib3.filepost import encode_multipart_formdata

from app import create_app
from app.accounts.database import schema
from app.accounts.models import Mail, db
from app.security.csp import REPORT_PATH
from tests.accounts.people import PASSWORD
from tests.accounts.postgres import Postgres, postgres
from tests.accounts.smtp import MailServer
from tests.conftest import TOKEN, Server
from tests.hostile_images import children
from tests.test_08_rate_limits import Redis, redis
from tests.test_09_uploads import Clamd, clamd

__all__ = ("clamd", "postgres", "redis")

SOAK = os.environ.get("SOAK")
SECONDS = int(SOAK or 20)
PEOPLE = 4 if SOAK else 2  # at a time
Fields = dict[str, str | tuple[str, str]]
Seen = Counter[tuple[str, int]]
Answer = tuple[int, http.client.HTTPMessage, bytes]
CUT = 0  # the status of a truncated response: its worker was killed while it wrote


def ask_once(server: Server, seen: Seen, what: str, source: str, path: str, *request: Any) -> Answer:
    """Send one request, and count its status. ``request`` is what ``Server.request`` takes after the path."""
    answer: Answer = CUT, http.client.HTTPMessage(), b""
    with contextlib.suppress(http.client.IncompleteRead):
        answer = server.request(path, *request, source=source, patience=60)
    seen[what, answer[0]] += 1
    return answer


class Person:
    """Somebody at an address of their own, who registers, stores files, and tries again after a 503.

    ``pause`` is in seconds, before each request. Without it, two cores would be busy anyway, and no wait would say
    anything about the faults.
    """

    pause = 0.3 if SOAK else 0.0

    def __init__(self, server: Server, seen: Seen) -> None:
        self.server, self.seen = server, seen
        self.source = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
        self.email = f"{secrets.token_hex(8)}@example.com"
        self.cookies: SimpleCookie = SimpleCookie()
        self.token = ""
        self.has_account = False
        self.stored: dict[str, str] = {}

    def ask(self, what: str, path: str, fields: Fields | None = None, *, good: int, accept: str = "text/html") -> str:
        """Return the body of a response with the status ``good``.

        For a while a 503 or a truncated one may come before it, and a 429 for one who has tried too often after that.
        """
        body, kind = encode_multipart_formdata({"csrf_token": self.token} | fields) if fields else (None, "")
        headers = {"Content-Type": kind, "Origin": self.server.url, "Referer": f"{self.server.url}/", "Accept": accept}
        time.sleep(self.pause)
        for _ in range(60):
            headers["Cookie"] = self.cookies.output([], "", ";")
            method = "POST" if fields else "GET"
            status, answer, text = ask_once(self.server, self.seen, what, self.source, path, method, body, headers)
            if status == good:
                for cookie in answer.get_all("Set-Cookie", ()):
                    self.cookies.load(cookie)
                return text.decode()
            assert status in (CUT, 429, 503), f"{what}: {status} {text[:300]!r}"
            time.sleep(int(answer["Retry-After"]) if status == 429 else 0.5)
        raise AssertionError(f"{what}: no such response in 60 attempts")

    def look(self, path: str) -> None:
        """Open a page, and keep its token."""
        found = TOKEN.search(self.ask(f"GET {path}", path, good=200))
        assert found
        self.token = found[1]

    def sign_in(self) -> None:
        self.look("/login")
        self.ask("sign in", "/login", {"email": self.email, "password": PASSWORD}, good=303)
        self.look("/uploads")

    def live(self) -> None:
        self.look("/register")
        form: Fields = {"email": self.email, "password": PASSWORD, "password_confirm": PASSWORD}
        self.ask("register", "/register", form, good=303)
        self.has_account = True
        self.sign_in()
        for number in range(3):
            text = secrets.token_hex(100 + secrets.randbelow(50_000))
            file: Fields = {"file": (f"{number}.txt", text)}
            answer = json.loads(self.ask("upload", "/uploads", file, good=201, accept="application/json"))
            self.stored[answer["id"]] = text
            assert self.ask("download", f"/uploads/{answer['id']}", good=200) == text
        report = {"document-uri": self.server.url, "blocked-uri": "inline", "effective-directive": "script-src"}
        headers = {"Content-Type": "application/csp-report", "Origin": self.server.url}
        body = json.dumps({"csp-report": report}).encode()
        status = ask_once(self.server, self.seen, "report", self.source, REPORT_PATH, "POST", body, headers)[0]
        assert status in (CUT, 204, 503)
        stranger = Person(self.server, self.seen)
        stranger.look("/login")
        stranger.ask("wrong password", "/login", {"email": self.email, "password": "a wrong password"}, good=403)

    def has_all(self) -> bool:
        """Sign in again in a new browser, and look whether each file is there and whole."""
        self.cookies.clear()
        self.pause = 0.0
        self.sign_in()
        return all(self.ask("download", f"/uploads/{key}", good=200) == text for key, text in self.stored.items())


def largest(processes: list[int]) -> int:
    """The memory of the largest of these processes, in MB."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", ",".join(map(str, processes))], capture_output=True, text=True)
    return max(map(int, shown.stdout.split()), default=0) // 1024


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def test_nothing_is_lost_while_parts_fail(
    app_config: dict[str, object],
    serve_proxied: Callable[..., Server],
    postgres: Postgres,
    redis: Redis,
    clamd: Clamd,
    mails: MailServer,
) -> None:
    app_config |= mails.settings | {"DATABASE_URL": postgres.new_database(), "DATABASE_TIMEOUT": 2}
    app_config |= {"RATELIMIT_STORAGE_URI": redis.uri, "RATELIMIT_DEFAULT": "9999 per minute"}
    app_config |= {"CLAMD_URL": clamd.urls[1]}
    app = create_app(app_config)
    with app.app_context():
        schema().upgrade()
    server = serve_proxied(**app_config, WEB_CONCURRENCY=2)
    end = time.monotonic() + SECONDS
    seen: Seen = Counter()
    probes: Seen = Counter()
    people: list[Person] = []
    # The name of the last fault → the longest wait for /healthz in seconds, and the memory of the largest worker in MB.
    waits, memories, last = {"": 0.0}, {}, [""]

    def live() -> None:
        while time.monotonic() < end:
            people.append(Person(server, seen))
            people[-1].live()

    def probe() -> None:
        while time.monotonic() < end:
            start = time.monotonic()
            # nginx may have another connection to the worker that was killed, and try again on that.
            assert ask_once(server, probes, "GET /healthz", "127.0.0.9", "/healthz")[0] in (CUT, 200, 503)
            waits[last[0]] = max(waits.get(last[0], 0), time.monotonic() - start)
            time.sleep(0.1)

    def signal_worker(number: signal.Signals, then: signal.Signals | None = None) -> Callable[[], object]:
        worker = children(server.process.pid)[0]
        os.kill(worker, number)
        return lambda: os.kill(worker, then) if then else None

    def kill_redis() -> Callable[[], object]:
        redis.kill()
        return redis.start

    def stop_redis() -> Callable[[], object]:
        redis.process.send_signal(signal.SIGSTOP)
        return lambda: redis.process.send_signal(signal.SIGCONT)

    def kill_clamd() -> Callable[[], object]:
        clamd.stop()
        return clamd.start

    def stop_clamd() -> Callable[[], object]:
        clamd.process.send_signal(signal.SIGSTOP)
        return lambda: clamd.process.send_signal(signal.SIGCONT)

    def kill_postgres() -> Callable[[], object]:
        postgres.process.send_signal(signal.SIGQUIT)  # "immediate": its start has to recover, as after a crash
        postgres.process.wait()
        return postgres.start

    def stop_postgres() -> Callable[[], object]:
        postgres.signal(signal.SIGSTOP)
        return lambda: postgres.signal(signal.SIGCONT)

    def kill_worker() -> Callable[[], object]:
        return signal_worker(signal.SIGKILL)

    def stop_worker() -> Callable[[], object]:
        return signal_worker(signal.SIGSTOP, signal.SIGCONT)

    kill = [kill_redis, kill_postgres, kill_clamd, kill_worker]
    faults = [*kill, stop_redis, stop_postgres, stop_clamd, stop_worker, *kill]
    pause = SECONDS / (2 * len(faults) + 2)
    with ThreadPoolExecutor(PEOPLE + 1) as pool:
        running = [pool.submit(live) for _ in range(PEOPLE)] + [pool.submit(probe)]
        for fail in faults:
            time.sleep(pause)
            memories[last[0]] = largest(children(server.process.pid))
            last[0] = fail.__name__
            heal = fail()
            time.sleep(min(pause, 10))
            heal()
        for each in running:
            each.result()
    cut = sum(count for (_, status), count in (seen + probes).items() if status == CUT)
    assert cut <= faults.count(kill_worker) * (PEOPLE + 1)  # each of them waits for one response at a time
    memories["the end"] = largest(children(server.process.pid))

    accounts = [person for person in people if person.has_account]
    assert len(accounts) >= PEOPLE
    with ThreadPoolExecutor(PEOPLE) as pool:
        assert all(pool.map(Person.has_all, accounts))
    with app.app_context():
        waiting = set(db.session.scalars(sa.select(Mail.recipient)))
    assert {person.email for person in accounts} <= waiting | set(mails.recipients)
    assert "Traceback" not in server.log.read_text()
    files = sum(len(person.stored) for person in accounts)
    unavailable = sum(count for (_, status), count in seen.items() if status == 503)
    print(f"\n{SECONDS} s, {len(faults)} faults: {len(accounts)} accounts and {files} files, all there;")
    print(f"{sum(seen.values())} requests, {unavailable} of them answered with 503, {cut} truncated;")
    print("longest wait for /healthz (ms):", {name: round(seconds * 1000) for name, seconds in waits.items()})
    print("memory of the largest worker (MB):", memories)
