"""Two machines serve one site: a rotation of the key, a session that one of them can't read, clocks that differ."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
import time_machine
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from urllib3.filepost import encode_multipart_formdata

from app import create_app
from app.security.cookies import NAME
from app.visitors import public
from tests.conftest import KEY, ROOT, TOKEN, Server, browser_like, csrf_token, new_member, pages, session_cookie
from tests.s3_server import S3
from tests.samples import JSON, upload

NEW_KEY = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"
DELETE = "/uploads/0123456789abcdef0123456789abcdef/delete"  # there is no such file


class Machine:
    """A machine with a folder of its own, and so a .env. Each step of a rotation restarts its workers."""

    def __init__(self, folder: Path, serve: Callable[..., Server]) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("gunicorn.conf.py", "wsgi.py"):
            shutil.copy(ROOT / name, folder)
        (folder / ".env").write_text(f"SECRET_KEY={KEY}\n")
        self.server = serve(folder=folder, SECRET_KEY="")  # that of .env

    def rotate(self, *options: str) -> None:
        command = [sys.executable, "-m", "app.security.secret_key", "rotate", *options]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)
        self.reload()

    def reload(self) -> None:
        """Send HUP, and wait until the worker of before is gone."""
        gone = self._exits()
        self.server.process.send_signal(signal.SIGHUP)
        patience = time.monotonic() + 60
        while self._exits() == gone and time.monotonic() < patience:
            time.sleep(0.1)
        assert self._exits() > gone, self.server.log.read_text()

    def _exits(self) -> int:
        return self.server.log.read_text().count("Worker exiting")


class Traveller:
    """A browser whose requests go to one machine or the other. It begins with the cookie of ``client``."""

    def __init__(self, client: FlaskClient) -> None:
        self.cookie = session_cookie(client)

    def ask(self, server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Send a request, keep the cookie that the response sets, and return its status and text."""
        sent = {"Cookie": f"{NAME}={self.cookie}", "Origin": server.url, **headers}
        status, answered, text = server.request(path, "GET" if body is None else "POST", body, sent)
        if cookie := SimpleCookie(answered["Set-Cookie"] or "").get(NAME):
            self.cookie = cookie.value
        return status, text.decode()

    def goes_on(self, page_of: Machine, sent_to: Machine) -> bool:
        """Whether both machines know the visitor, and one takes a form of the other."""
        here, there = page_of.server, sent_to.server
        files = [self.ask(server, "/uploads", Accept="application/json")[1] for server in (here, there)]
        token = TOKEN.search(self.ask(here, "/uploads")[1])
        form = {"X-CSRFToken": token[1] if token else "", "Accept": "application/json"}
        return all("a.txt" in text for text in files) and self.ask(there, DELETE, b"", **form)[0] == 404


@pytest.mark.fault(
    "One of several machines",
    "restarts later than others in a rotation",
    sees="nothing, after `rotate --stage`",
    ends="at once",
)
def test_1_S5_a_rotation_of_two_machines_signs_nobody_out(
    serve: Callable[..., Server], tmp_path: Path, app_config: dict[str, object]
) -> None:
    one, two = (Machine(tmp_path / name, serve) for name in ("one", "two"))
    member = new_member(create_app(app_config))
    assert upload(member, "a.txt", b"a").status_code == 201
    idle, busy = Traveller(member), Traveller(member)  # two of its windows: one sends nothing until the end

    def second_machine_gets_the_file() -> None:
        shutil.copy(one.folder / ".env", two.folder)
        two.reload()

    for step in (
        lambda: one.rotate("--stage"),
        second_machine_gets_the_file,
        lambda: one.rotate(),
        lambda: two.rotate(),
    ):
        step()
        assert busy.goes_on(one, two)
        assert busy.goes_on(two, one)
    assert (one.folder / ".env").read_text() == (two.folder / ".env").read_text()
    assert KEY in (one.folder / ".env").read_text()
    assert idle.goes_on(two, one)
    forgotten = Traveller(member)
    for machine in (one, two):
        machine.rotate("--prune")
        assert busy.goes_on(one, two)
        assert busy.goes_on(two, one)
    assert not forgotten.goes_on(one, two)


def test_two_machines_with_a_bucket_see_the_files_of_each_other(
    app_config: dict[str, object], s3_server: S3, serve: Callable[..., Server], tmp_path: Path
) -> None:
    config = app_config | s3_server.settings()
    one, two = (serve(**config | {"UPLOAD_DIR": str(tmp_path / name)}) for name in ("one", "two"))
    member = new_member(create_app(config))
    csrf_token(member, "/uploads")  # without accounts, this makes the session an owner
    traveller = Traveller(member)
    for here, there in ((one, two), (two, one)):
        token = TOKEN.search(traveller.ask(here, "/uploads")[1])
        assert token
        sent, kind = encode_multipart_formdata({"csrf_token": token[1], "file": ("a.txt", "of this machine")})
        status, told = traveller.ask(here, "/uploads", sent, **{"Content-Type": kind, "Accept": "application/json"})
        where = f"/uploads/{json.loads(told)['id']}"
        assert (status, traveller.ask(there, where)) == (201, (200, "of this machine"))
        form = {"X-CSRFToken": token[1], "Accept": "application/json"}
        assert traveller.ask(there, f"{where}/delete", b"", **form)[0] == 204
        assert traveller.ask(here, where)[0] == 404


def cookie_of(app: Flask) -> str:
    visitor = new_member(app)
    csrf_token(visitor)
    return Traveller(visitor).cookie


def of_another_key(config: dict[str, object]) -> str:
    return cookie_of(create_app(config | {"SECRET_KEY": NEW_KEY}))


def of_a_newer_version(config: dict[str, object]) -> str:
    """Signed with the right key, in a form that this version does not know."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(create_app(config))
    assert serializer
    return serializer.make_signer(serializer.salt).sign(b"a newer form").decode()


def without_a_birth(config: dict[str, object]) -> str:
    serializer = SecureCookieSessionInterface().get_signing_serializer(create_app(config))
    assert serializer
    return str(serializer.dumps({"_user_id": "x", "csrf_token": "x"}))


UNREAD = [of_another_key, of_a_newer_version, without_a_birth]


def with_cookie(app: Flask, cookie: str) -> FlaskClient:
    client = browser_like(app)
    client.set_cookie(NAME, cookie, domain="localhost", secure=True)
    return client


@pytest.mark.parametrize("cookie", UNREAD)
def test_4_S4_a_session_that_a_server_cannot_read_stays_in_the_browser(
    app_config: dict[str, object], cookie: Callable[[dict[str, object]], str]
) -> None:
    unread = cookie(app_config)
    app = create_app(app_config)
    app.add_url_rule("/tested-empty", view_func=public(lambda: session.clear() or "empty"))
    client = with_cookie(app, unread)
    for path in (*pages(browser_like(app)), "/uploads", "/account", "/nowhere", "/static/app.css", "/tested-empty"):
        with client.get(path) as answer:
            assert answer.status_code < 500
            assert "Set-Cookie" not in answer.headers, path
    for path in (DELETE, "/uploads", "/login", "/logout"):
        assert "Set-Cookie" not in client.post(path, data={"csrf_token": "of a page of the other server"}).headers


def test_4_S4_a_visitor_of_two_servers_with_different_keys_comes_back_signed_in(app_config: dict[str, object]) -> None:
    here, there = create_app(app_config), create_app(app_config | {"SECRET_KEY": NEW_KEY})
    member = new_member(there)
    upload(member, "a.txt", b"a")
    token = csrf_token(member)
    for app in (here, there, here, there):
        member.application = app
        member.get("/uploads")
        member.post(DELETE, data={"csrf_token": token})
        assert ("a.txt" in member.get("/uploads", headers=JSON).text) is (app is there)
    assert member.post(DELETE, data={"csrf_token": token}).status_code == 404


@pytest.mark.parametrize("cookie", UNREAD)
def test_2_S3_a_form_works_although_the_session_cannot_be_read(
    app_config: dict[str, object], cookie: Callable[[dict[str, object]], str]
) -> None:
    """The key has leaked and was replaced at once: whoever has a cookie of before must get in again."""
    unread = cookie(app_config)
    app = create_app(app_config)
    client = with_cookie(app, unread)
    assert client.post(DELETE, data={"csrf_token": csrf_token(client)}).status_code != 400
    assert Traveller(client).cookie != unread
    assert client.post(DELETE, data={"csrf_token": csrf_token(client)}).status_code != 400


def test_4_S4_what_a_view_stores_replaces_a_session_that_cannot_be_read(app_config: dict[str, object]) -> None:
    """As a sign-in by OAuth does, which is made of GETs."""
    unread = of_another_key(app_config)
    app = create_app(app_config)
    app.add_url_rule("/tested-store", view_func=public(lambda: str(session.setdefault("state", "kept"))))
    client = with_cookie(app, unread)
    assert "Set-Cookie" in client.get("/tested-store").headers
    with client.session_transaction() as content:
        assert content["state"] == "kept"


def test_2_T1_the_token_of_one_cookie_is_not_that_of_another(app_config: dict[str, object]) -> None:
    """Whatever an attacker sends as a cookie, the token of the victim's page stays unknown to him."""
    app = create_app(app_config)
    victim, attacker = with_cookie(app, "a.b.c"), with_cookie(app, "a.b.d")
    foreign = csrf_token(with_cookie(create_app(app_config | {"SECRET_KEY": NEW_KEY}), "a.b.c"))
    for token in (csrf_token(attacker), foreign, csrf_token(browser_like(app))):
        assert victim.post(DELETE, data={"csrf_token": token}).status_code == 400


# Seconds that one server is ahead of the other → whether that is tolerated.
@pytest.mark.parametrize(("ahead", "fine"), [(2, True), (10, True), (15, False), (86_400, False)])
def test_4_S4_a_session_of_a_server_whose_clock_is_ahead(app_config: dict[str, object], ahead: int, fine: bool) -> None:
    here, there, now = create_app(app_config), create_app(app_config), int(time.time())
    with time_machine.travel(now + ahead, tick=False):
        member = new_member(there)
        assert upload(member, "a.txt", b"a").status_code == 201
        token = csrf_token(member)
    with time_machine.travel(now, tick=False):
        member.application = here
        assert ("a.txt" in member.get("/uploads", headers=JSON).text) is fine
        assert (member.post(DELETE, data={"csrf_token": token}).status_code == 404) is fine


@pytest.mark.parametrize("ahead", [-2, 2])
def test_4_S4_two_servers_two_seconds_apart_take_turns(app_config: dict[str, object], ahead: int) -> None:
    here, there = create_app(app_config), create_app(app_config)
    with time_machine.travel(int(time.time()), tick=False) as clock:
        member = new_member(here)
        assert upload(member, "a.txt", b"a").status_code == 201
        token = csrf_token(member)
        for app, seconds in ((there, ahead), (here, -ahead)) * 5:
            member.application = app
            clock.shift(seconds)
            assert "a.txt" in member.get("/uploads", headers=JSON).text
            assert member.post(DELETE, data={"csrf_token": token}).status_code == 404
            token = csrf_token(member)


def test_4_S4_a_token_alone_from_the_future_is_refused(app_config: dict[str, object]) -> None:
    app, now = create_app(app_config), int(time.time())
    with time_machine.travel(now, tick=False) as clock:
        member = new_member(app)
        csrf_token(member)
        cookie = Traveller(member).cookie
        clock.shift(60)
        token = csrf_token(member)
        clock.move_to(now)
        assert with_cookie(app, cookie).post(DELETE, data={"csrf_token": token}).status_code == 400
