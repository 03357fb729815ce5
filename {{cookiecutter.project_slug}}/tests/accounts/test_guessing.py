"""Guesses at the form of the sign-in: how many get through (8.T1, 8.T3, 8.S4)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import islice
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.accounts.models import User, db, utcnow
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, register, sign_in, statements
from tests.conftest import browser_like, csrf_token, new_member, post, session_cookie
from tests.test_08_rate_limits import ELSEWHERE, WRONG, addresses

NEW = "another battery staple horse 43"
ALICE, THIEF = "alice@example.com", "192.0.2.7"


@pytest.fixture
def alice(unlimited: dict[str, object]) -> Flask:
    app = create_app(unlimited)
    register(browser_like(app), ALICE)
    return app


def logins(app: Flask, guesses: Iterable[tuple[str, str]]) -> list[int]:
    """Try a wrong password at the form for each account and address; give the statuses."""
    client = browser_like(app)
    token, statuses = csrf_token(client, "/login"), []
    client.environ_base["HTTP_ACCEPT"] = "application/json"  # it costs least
    for email, address in guesses:
        client.environ_base["REMOTE_ADDR"] = address
        answer = client.post("/login", data={"csrf_token": token, "email": email, "password": WRONG})
        statuses.append(answer.status_code)
    return statuses


@pytest.mark.parametrize(("email", "spread"), [(ALICE, False), (ALICE, True), ("nobody@example.com", True)])
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
        (ALICE, "\uff41lice@example.com"),  # the same in NFKC
        (ALICE, "\u24d0lice@example.com"),
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
    logins(alice, ((ALICE, "127.0.0.1") for _ in range(3)))
    client = browser_like(alice)
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    clock.shift(1)
    assert sign_in(client).status_code == 303


def test_8_S4_a_reset_by_mail_ends_the_wait(alice: Flask, clock: time_machine.Coordinates, mailbox: Mailbox) -> None:
    assert logins(alice, ((ALICE, address) for address in islice(addresses(), 5)))[-1] == 429
    owner = browser_like(alice)
    assert sign_in(owner).status_code == 429
    post(owner, "/reset", {"email": ALICE})
    assert post(owner, urlsplit(mailbox.link()).path, {"password": NEW, "password_confirm": NEW}).status_code == 303
    assert sign_in(owner, password=NEW).status_code == 303


def change(browser: FlaskClient, password: str, new: str) -> None:
    sign_in(browser, password=password)
    form = {"password": password, "new_password": new, "new_password_confirm": new}
    assert post(browser, "/account/password", form).status_code == 303


@pytest.fixture
def thief(alice: Flask) -> FlaskClient:
    """A browser of somebody who knows Alice's first password, at an address where nobody else is."""
    browser = browser_like(alice)
    browser.environ_base["REMOTE_ADDR"] = THIEF
    assert sign_in(browser).status_code == 303
    return browser


def assert_only_the_owner_is_known(app: Flask) -> None:
    assert logins(app, ((ALICE, ELSEWHERE) for _ in range(4)))[-1] == 429
    assert logins(app, [(ALICE, THIEF), (ALICE, "127.0.0.1")]) == [429, 403]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("by", ["the owner", "a link", "a new account"])
def test_8_T1_a_new_password_is_known_at_no_other_address(
    alice: Flask, thief: FlaskClient, mailbox: Mailbox, by: str
) -> None:
    """Where somebody has signed in with the old one, guesses at the new one count for the account, as elsewhere."""
    owner = browser_like(alice)
    if by == "a link":
        with alice.app_context():  # otherwise the reset would start an empty account
            db.session.execute(sa.update(User).values(confirmed_at=utcnow()))
            db.session.commit()
        post(owner, "/reset", {"email": ALICE})
        new = {"password": NEW, "password_confirm": NEW}
        assert post(owner, urlsplit(mailbox.link()).path, new).status_code == 303
    elif by == "the owner":
        change(owner, PASSWORD, NEW)
    else:  # whoever had the address before
        post(thief, "/account/delete", {"password": PASSWORD})
        register(owner, ALICE, NEW)
        assert sign_in(owner, password=NEW).status_code == 303
    assert_only_the_owner_is_known(alice)


def test_8_T1_a_later_password_is_known_at_no_other_address(
    alice: Flask, thief: FlaskClient, clock: time_machine.Coordinates
) -> None:
    """The thief gets hold of the second password too. The third one is set more than 30 days after the second."""
    owner = browser_like(alice)
    change(owner, PASSWORD, NEW)
    clock.shift(timedelta(days=20))
    assert sign_in(thief, password=NEW).status_code == 303
    clock.shift(timedelta(days=15))
    change(owner, NEW, f"{NEW} again")
    assert_only_the_owner_is_known(alice)


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
