"""The security events of an account's life: who did what from where, without an address or a password in the log."""

from __future__ import annotations

import pytest
from flask import Flask

from app import create_app
from app.accounts.models import db
from app.security.backoff import FREE_TRIES
from app.security.rate_limits import unlimited
from app.visitors import digest
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, register, sign_in, statements
from tests.conftest import browser_like, post, session_cookie
from tests.test_05_access_log import lines_of
from tests.test_05_errors import capture_log
from tests.test_05_events import logged

NEW = "a new pass phrase for alice"
EMAIL = "alice@example.com"


@pytest.fixture(params=["text", "json"])
def app(app_config: dict[str, object], request: pytest.FixtureRequest) -> Flask:
    return create_app(app_config | {"LOG_FORMAT": request.param})


def test_5_S3_each_step_of_an_account_s_life_is_an_event(app: Flask, mailbox: Mailbox) -> None:
    log, client, second = capture_log(), browser_like(app), browser_like(app)
    everything = ""
    refused = [("authz_fail", None, "Nobody is signed in."), ("session_use_after_expire", None, "ended")]
    app.add_url_rule("/tested-unlimited", view_func=unlimited("a test")(lambda: ""), endpoint="tested")
    with app.app_context():
        alice = digest(EMAIL)[:16]

    def events() -> list[tuple[str | None, ...]]:
        nonlocal everything
        everything += log.getvalue()
        found = logged(log)
        assert {event["account"] for event in found if "account" in event} <= {alice}
        assert {(event["network"], len(event["request_id"])) for event in found} <= {("127.0.0.1", 32), ("unknown", 32)}
        return [(event["event"], event.get("account") and "alice", event.get("reason")) for event in found]

    register(client)
    assert events() == [("user_created", "alice", None)]
    register(client)
    assert events() == [("input_validation_fail", "alice", "The address already has an account.")]
    sign_in(client, password="a wrong pass phrase")
    assert events() == [("authn_login_fail", "alice", None)]
    sign_in(client)
    sign_in(second)
    assert events() == [("authn_login_success", "alice", None)] * 2
    change = {"password": "a wrong pass phrase", "new_password": NEW, "new_password_confirm": NEW}
    post(client, "/account/password", change)
    assert events() == [("authn_login_fail", "alice", None)]
    post(client, "/account/password", change | {"password": PASSWORD})
    assert events() == [("authn_password_change", "alice", None)]
    second.get("/account")
    assert events() == refused
    sign_in(second, password=NEW)
    post(client, "/account/sessions/end")
    assert events() == [("authn_login_success", "alice", None), ("session_expired", "alice", "revoked")]
    stolen = session_cookie(client)
    post(client, "/logout")
    assert events() == [("session_expired", "alice", "logout")]
    client.set_cookie("__Host-session", stolen)
    client.get("/account")
    assert events() == refused
    client.set_cookie("__Host-session", stolen)
    client.get("/tested-unlimited")
    assert events() == refused
    post(client, "/reset", {"email": EMAIL})
    link = mailbox.link()
    path = link[link.index("/reset/") :]
    post(client, path, {"password": PASSWORD, "password_confirm": PASSWORD})
    client.get(path)
    assert [name for name, *_ in events()] == ["authn_password_change", "input_validation_fail"]
    sign_in(client)
    post(client, "/account/delete", {"password": PASSWORD})
    assert [name for name, *_ in events()] == ["authn_login_success", "session_expired", "user_deleted"]
    for secret in (EMAIL, PASSWORD, NEW, "a wrong pass phrase", path, path.rpartition(".")[2], stolen):
        assert secret not in everything


def test_5_S3_a_page_for_members_only_is_an_event(app: Flask) -> None:
    log, client = capture_log(), browser_like(app)
    for accept in ("text/html", "application/json"):
        client.get("/account", headers={"Accept": accept})
        (event,) = logged(log)
        assert (event["event"], event["route"], event["level"]) == ("authz_fail", "/account", "WARNING")


def test_5_S3_a_guess_that_has_to_wait_is_an_event(app: Flask) -> None:
    register(browser_like(app))
    log, client = capture_log(), browser_like(app)
    for _ in range(FREE_TRIES + 2):
        sign_in(client, password="a wrong pass phrase")
    found = logged(log)
    assert [event["event"] for event in found] == ["authn_login_fail"] * FREE_TRIES + ["authn_login_lock"] * 2
    assert len({event["account"] for event in found}) == 1


def test_5_T2_the_events_of_a_known_and_of_an_unknown_address_look_alike(app: Flask) -> None:
    """Whoever reads the log, or measures how long it takes, learns nothing: the lines are the same."""
    register(browser_like(app))
    log = capture_log()
    for email in (EMAIL, "nobody@example.com"):
        sign_in(browser_like(app), email, "a wrong pass phrase")
    known, unknown = logged(log)
    assert known.keys() == unknown.keys()
    assert {name for name in known if known[name] != unknown[name]} == {"account", "request_id"}


def test_5_S3_an_account_made_on_the_command_line_is_an_event(app: Flask) -> None:
    log = capture_log()
    app.test_cli_runner().invoke(args=["users", "create", EMAIL], input=f"{PASSWORD}\n")
    (event,) = logged(log)
    assert event["event"] == "user_created"
    assert "network" not in event


def test_5_S3_an_event_needs_no_database(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browser_like(app)
    register(client)
    sign_in(client)
    log = capture_log()

    def lost(*_: object) -> None:
        raise RuntimeError("lost")

    monkeypatch.setattr("sqlalchemy.orm.Session.scalar", lost)
    client.get("/", headers={"Host": "evil.example"})
    (event,) = logged(log)
    assert event["event"] == "input_validation_fail"


@pytest.mark.parametrize("is_on", [False, True])
def test_5_S3_an_access_line_has_the_account_if_it_is_known_and_asks_no_database(
    app_config: dict[str, object], is_on: bool
) -> None:
    """The digest is that of the events. A report counts for its address, so nobody asks who sent it."""
    app = create_app(app_config | {"ACCESS_LOG": is_on})
    client = browser_like(app)
    register(client)
    sign_in(client)
    log = capture_log()
    with app.app_context():
        asked, alice = statements(db.engine), digest(EMAIL)[:16]
    client.get("/account")
    client.post("/csp-reports", data='{"csp-report": {}}', content_type="application/csp-report")
    assert len(asked) == 2  # for the page: the session with its account, and the list of sessions
    lines = lines_of(log.getvalue()).values()
    assert [(line["route"], line.get("account")) for line in lines] == is_on * [
        ("/account", alice),
        ("/csp-reports", None),
    ]
