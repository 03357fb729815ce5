"""Mitigation 5, error handling: an attack leaves a security event in the log, and can neither forge nor drown one.

``tests/accounts/test_events.py`` has the events of the accounts.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, abort
from flask.testing import FlaskClient

from app import create_app, events, logs, visitors
from app.storage.content import EICAR
from app.visitors import public
from tests.conftest import HAS_ACCOUNTS, ROOT, browser_like, csrf_token, new_member, post, session_cookie
from tests.test_05_errors import capture_log

FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)')


def logged(log: io.StringIO) -> list[dict[str, str]]:
    """The security events that were written since the last call, read from lines of text or of JSON."""
    found = []
    for line in log.getvalue().splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            if fields["logger"] == "security":
                found.append({name: fields[name] for name in fields if name not in ("time", "logger", "message")})
        elif line.split(" ")[2] == "security":
            _, level, _, request_id, message = line.split(" ", 4)
            assert FIELD.sub("", message).strip() == "", message
            fields = {name: json.loads(value) if value[0] == '"' else value for name, value in FIELD.findall(message)}
            found.append({"level": level, "request_id": request_id, **fields})
    log.seek(0)
    log.truncate()
    return found


@pytest.fixture(params=["text", "json"])
def app(app_config: dict[str, object], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flask:
    if HAS_ACCOUNTS:  # a mail in the background would be a line among those of the attacks
        monkeypatch.setattr("app.accounts.mail.Postman.wake", lambda _postman, response=None: response)
    app = create_app(app_config | {"LOG_FORMAT": request.param})
    app.add_url_rule("/tested-careless", "careless", public(lambda: ("", 302, {"Location": "https://evil.example/"})))
    app.add_url_rule("/tested-forbidden", "forbidden", public(lambda: abort(403)))
    return app


@pytest.fixture
def member(app: Flask) -> FlaskClient:
    return new_member(app)


@pytest.fixture
def log(app: Flask, member: FlaskClient) -> io.StringIO:
    return capture_log()


def upload(client: FlaskClient, content: bytes, name: str = "a.txt", accept: str = "application/json") -> Any:
    return post(client, "/uploads", {"file": (io.BytesIO(content), name)}, headers={"Accept": accept})


# What somebody does → the event, the route and what else the event says.
ATTACKS: dict[str, tuple[Callable[[FlaskClient], Any], str, str, dict[str, str]]] = {
    "another site": (
        lambda client: client.post("/uploads", headers={"Origin": "https://evil.example"}),
        "malicious_cors",
        "/uploads",
        {"level": "CRITICAL", "status": "400", "origin": "https://evil.example", "expected": "https://localhost"},
    ),
    "this site on another port, as behind a proxy that drops the port": (
        lambda client: client.post("/uploads", headers={"Origin": "https://localhost:8443"}),
        "malicious_cors",
        "/uploads",
        {"level": "CRITICAL", "origin": "https://localhost:8443", "expected": "https://localhost"},
    ),
    "a cross-site fetch": (
        lambda client: client.post("/uploads", headers={"Sec-Fetch-Site": "cross-site"}),
        "malicious_cors",
        "/uploads",
        {"level": "CRITICAL", "status": "400"},
    ),
    "no token": (lambda client: client.post("/uploads"), "input_validation_fail", "/uploads", {"status": "400"}),
    "a wrong token": (
        lambda client: client.post("/uploads", data={"csrf_token": "x"}),
        "input_validation_fail",
        "/uploads",
        {"status": "400"},
    ),
    "a null byte": (lambda client: client.get("/?a=%00"), "input_validation_fail", "/", {"status": "400"}),
    "a null byte in the path": (lambda client: client.get("/%00"), "input_validation_fail", "/%00", {}),
    "an argument twice": (
        lambda client: client.get("/redirect?next=/&next=/a"),
        "input_validation_fail",
        "/redirect",
        {"status": "400", "parameter": "next"},
    ),
    "a long URL": (lambda client: client.get(f"/?a={'b' * 5000}"), "input_validation_fail", "/", {"status": "414"}),
    "another host": (
        lambda client: client.get("/", headers={"Host": "evil.example"}),
        "input_validation_fail",
        "/",
        {"status": "400"},
    ),
    "a redirect elsewhere": (
        lambda client: client.get("/redirect?next=https://evil.example/?token=hunter2"),
        "input_validation_fail",
        "/redirect",
        {"status": "400", "target": "https://evil.example/?token=[redacted]"},
    ),
    "a redirect of other code": (
        lambda client: client.get("/tested-careless"),
        "input_validation_fail",
        "/tested-careless",
        {"target": "https://evil.example/"},
    ),
    "a large body": (
        lambda client: client.post("/csp-reports", data=b"x" * 20_000, content_type="application/csp-report"),
        "input_validation_fail",
        "/csp-reports",
        {"status": "413"},
    ),
    "somebody else's file": (
        lambda client: client.get(f"/uploads/{'0' * 32}"),
        "authz_fail",
        "/uploads/<file_id>",
        {"status": "404", "file": "0" * 32},
    ),
    "to delete somebody else's file": (
        lambda client: post(client, f"/uploads/{'0' * 32}/delete"),
        "authz_fail",
        "/uploads/<file_id>/delete",
        {"status": "404"},
    ),
    "a 403": (lambda client: client.get("/tested-forbidden"), "authz_fail", "/tested-forbidden", {"status": "403"}),
    "the wrong type": (
        lambda client: upload(client, b"text", "a.png"),
        "input_validation_fail",
        "/uploads",
        {"status": "415"},
    ),
    "the wrong type, on the page": (
        lambda client: upload(client, b"text", "a.png", accept="text/html"),
        "input_validation_fail",
        "/uploads",
        {"status": "415"},
    ),
    "malware": (
        lambda client: upload(client, EICAR),
        "upload_validation",
        "/uploads",
        {"level": "CRITICAL", "status": "422", "found": "EICAR"},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_5_S3_an_attack_is_one_event_in_one_line(
    app: Flask, member: FlaskClient, log: io.StringIO, attack: str
) -> None:
    csrf_token(member)
    act, name, route, fields = ATTACKS[attack]
    member.environ_base["REMOTE_ADDR"] = "2001:db8::1"
    log.truncate(0)
    answer = act(member)
    assert len(log.getvalue().splitlines()) == 1
    (event,) = logged(log)
    assert event["request_id"] == answer.headers["X-Request-ID"]
    assert (event["event"], event["route"], event["network"]) == (name, route, "2001:db8::/64")
    assert event["method"] == answer.request.method
    assert event["level"] == fields.get("level", "WARNING")
    assert event | fields == event
    assert event["reason"]


def test_5_S3_what_a_visitor_does_with_files_is_an_event(member: FlaskClient, log: io.StringIO) -> None:
    stored = upload(member, b"text").json
    post(member, f"/uploads/{stored['id']}/delete")
    first, second = logged(log)
    assert (first["event"], first["file"], first["type"], first["size"]) == (
        "upload_stored",
        stored["id"],
        "text/plain",
        "4",
    )
    assert (second["event"], second["file"], second["level"]) == ("upload_delete", stored["id"], "INFO")


@pytest.mark.parametrize(("seconds", "reason"), [(3601, "idle"), (43_201, "lifetime")])
def test_5_S3_the_end_of_a_session_is_an_event(app: Flask, seconds: int, reason: str) -> None:
    app.add_url_rule("/tested-alive", view_func=public(lambda: ""), endpoint="alive")
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        client = browser_like(app)
        csrf_token(client)
        for _ in range(seconds // 3000 if reason == "lifetime" else 0):
            clock.shift(3000)
            csrf_token(client)
        stolen = session_cookie(client)
        clock.move_to(1_800_000_000 + seconds)
        log = capture_log()
        thief = browser_like(app)
        thief.set_cookie("__Host-session", stolen)
        thief.get("/tested-alive")
    (event,) = logged(log)
    assert (event["event"], event["reason"], event["level"]) == ("session_expired", reason, "INFO")


def test_5_S3_a_flood_does_not_fill_the_log(app_config: dict[str, object]) -> None:
    """Over its limit, a client writes one event in each window, and no other line: also with a dead cookie."""
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "5 per minute"})
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        client = browser_like(app)
        csrf_token(client)
        clock.shift(3601)
        log = capture_log()
        for path in ("/", "/nothing"):
            statuses = [client.get(path).status_code for _ in range(50)]
            assert statuses.count(429) == 45
            refused = [event for event in logged(log) if event["event"] == "excess_rate_limit_exceeded"]
            assert [(event["status"], event["limit"]) for event in refused] == [("429", "5 per 1 minute")]
        for _ in range(20):
            client.get("/")
        assert log.getvalue() == ""
        clock.shift(61)
        for _ in range(20):
            client.get("/nothing")
        assert len([event for event in logged(log) if event["event"] == "excess_rate_limit_exceeded"]) == 1


# What a client may send to pass for an event, or to spoil the line of one.
FORGERIES = (
    *('x" event=authn_login_success y="', "x\r\nevent=authn_login_success", "\u2028event=authn_login_success"),
    *("\\", '\\"', "", "a=b", "\u00e9 \ud800"),
)


@pytest.mark.parametrize("text", FORGERIES)
def test_5_S3_no_field_can_forge_an_event(app: Flask, log: io.StringIO, text: str) -> None:
    with app.test_request_context("/", base_url="https://localhost"):
        logs.security_event("upload_delete", note=text, event="authn_login_success", level="CRITICAL", time="now")
    (line,) = log.getvalue().splitlines()
    assert line.isprintable()
    (event,) = logged(log)
    assert event["event"] == "upload_delete"
    assert event["note"] == text
    if app.config["LOG_FORMAT"] == "json":
        assert event["level"] == "INFO"


def test_5_S3_an_event_has_no_secret_and_no_address(app: Flask, log: io.StringIO) -> None:
    with app.test_request_context("/", base_url="https://localhost"):
        logs.security_event(
            "authn_login_fail",
            account="alice@example.com",
            password="hunter2",
            reset_token="hunter3",
            said="password=hunter4",
            long="x" * 10_000,
        )
    assert not re.search(r"hunter|alice", log.getvalue())
    assert len(log.getvalue()) < 2000
    (event,) = logged(log)
    with app.app_context():
        assert visitors.digest(" Alice@Example.com").startswith(event["account"])
    assert len(event["account"]) == 16


def test_5_S3_a_team_logs_events_of_its_own(app: Flask, log: io.StringIO) -> None:
    """Also outside of a request."""
    with app.app_context():
        logs.security_event("sensitive_read", account="alice@example.com", record=7)
    (event,) = logged(log)
    assert (event["event"], event["record"], event["level"]) == ("sensitive_read", "7", "WARNING")
    assert "network" not in event


def test_5_S3_the_readme_lists_the_events() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([a-z_]+)` \| (INFO|WARNING|CRITICAL) \| (.+) \|$", readme)
    listed = {name: (level, meaning) for name, level, meaning in rows}
    assert listed == {
        name: (logs.logging.getLevelName(level), meaning) for name, (level, meaning) in events.EVENTS.items()
    }


def test_5_S3_each_event_of_the_code_is_in_the_table() -> None:
    """A typing error in a name would make an event that no monitoring looks for."""
    used = set()
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                first = node.args[:1] if name == "security_event" else []
                named = [each.value for each in node.keywords if each.arg == "event" and name in ("refuse", "Refusal")]
                used |= {each.value for each in (*first, *named) if isinstance(each, ast.Constant) and each.value}
    assert len(used) > 5
    assert used <= events.EVENTS.keys()
    assert Path(events.__file__).exists()
