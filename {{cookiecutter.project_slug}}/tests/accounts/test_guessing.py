"""Guesses at the form of the sign-in: how many get through (8.T1, 8.T3, 8.S4)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from urllib.parse import urlsplit

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.accounts.models import db
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import register, sign_in, statements
from tests.conftest import browser_like, csrf_token, new_member, post, session_cookie
from tests.test_08_rate_limits import ELSEWHERE, WRONG, addresses

NEW = "another battery staple horse 43"


@pytest.fixture
def alice(unlimited: dict[str, object]) -> Flask:
    app = create_app(unlimited)
    register(browser_like(app), "alice@example.com")
    return app


def logins(app: Flask, guesses: Iterator[tuple[str, str]]) -> list[int]:
    """Try a wrong password at the form for each account and address; give the statuses."""
    client = browser_like(app)
    token, statuses = csrf_token(client, "/login"), []
    client.environ_base["HTTP_ACCEPT"] = "application/json"  # it costs least
    for email, address in guesses:
        client.environ_base["REMOTE_ADDR"] = address
        answer = client.post("/login", data={"csrf_token": token, "email": email, "password": WRONG})
        statuses.append(answer.status_code)
    return statuses


@pytest.mark.parametrize(
    ("email", "spread"), [("alice@example.com", False), ("alice@example.com", True), ("nobody@example.com", True)]
)
def test_8_T1_a_thousand_guesses_at_the_login_form(
    alice: Flask, clock: time_machine.Coordinates, email: str, spread: bool
) -> None:
    source = addresses()
    answers = logins(alice, ((email, next(source) if spread else ELSEWHERE) for _ in range(1000)))
    assert answers == [403] * 3 + [429] * 997


def test_8_T3_a_thousand_accounts_at_the_login_form(alice: Flask, clock: time_machine.Coordinates) -> None:
    answers = logins(alice, ((f"user{number}@example.com", ELSEWHERE) for number in range(1000)))
    assert answers == [403] * 3 + [429] * 997


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        ("alice@example.com", "\uff41lice@example.com"),  # the same in NFKC
        ("alice@example.com", "\u24d0lice@example.com"),
        ("strasse@example.com", "stra\u00dfe@example.com"),  # the same for str.casefold
        ("alice.\u03c3@example.com", "alice.\u03c2@example.com"),
    ],
)
def test_8_T1_an_account_of_a_similar_name_ends_no_wait(
    unlimited: dict[str, object], clock: time_machine.Coordinates, theirs: str, own: str
) -> None:
    app = create_app(unlimited)
    register(browser_like(app), theirs)
    register(browser_like(app), own)
    assert logins(app, ((theirs, ELSEWHERE) for _ in range(4)))[-1] == 429
    browser = browser_like(app)
    browser.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert sign_in(browser, own).status_code in (303, 400)  # 400: there is no such address
    assert logins(app, [(theirs, "192.0.2.7")]) == [429]


def test_8_S4_the_login_form_opens_after_the_wait(alice: Flask, clock: time_machine.Coordinates) -> None:
    logins(alice, (("alice@example.com", "127.0.0.1") for _ in range(3)))
    client = browser_like(alice)
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    clock.shift(1)
    assert sign_in(client).status_code == 303


def test_8_S4_a_reset_by_mail_ends_the_wait(alice: Flask, clock: time_machine.Coordinates, mailbox: Mailbox) -> None:
    assert logins(alice, (("alice@example.com", address) for address in islice(addresses(), 5)))[-1] == 429
    owner = browser_like(alice)
    assert sign_in(owner).status_code == 429
    post(owner, "/reset", {"email": "alice@example.com"})
    assert post(owner, urlsplit(mailbox.link()).path, {"password": NEW, "password_confirm": NEW}).status_code == 303
    assert sign_in(owner, password=NEW).status_code == 303


def test_8_T2_a_member_over_the_limit_costs_no_query(app: Flask) -> None:
    alice, bob = new_member(app), new_member(app, "bob@example.com")
    nobody, thief = browser_like(app), browser_like(app)
    app.config["RATELIMIT_DEFAULT"] = "5 per minute"
    assert flood(app, alice) == (429, 0)
    assert [client.get("/account").status_code for client in (bob, nobody)] == [200, 303]  # who share her address
    assert flood(app, nobody) == (429, 0)
    assert bob.get("/account").status_code == 200
    stolen = session_cookie(bob)
    post(bob, "/logout")
    thief.set_cookie("__Host-session", stolen, secure=True)
    assert flood(app, thief) == (429, 0)


def flood(app: Flask, client: FlaskClient) -> tuple[int, int]:
    """Send requests until one is refused, and then more of them; give the status and the queries of the others."""
    while client.get("/account").status_code != 429:
        pass
    with app.app_context():
        queries = statements(db.engine)
    statuses = {client.get("/account").status_code for _ in range(20)}
    return statuses.pop() if len(statuses) == 1 else 0, len(queries)
