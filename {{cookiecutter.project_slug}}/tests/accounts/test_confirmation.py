"""Mallory registers Alice's address before she does. What of his is left when she comes?"""

from __future__ import annotations

import io
import re
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.security import uploads
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, is_signed_in, register, registered, sign_in
from tests.conftest import KEY, browser_like, csrf_token, post
from tests.samples import stored

ALICE = "alice@example.com"
NEW = "an entirely different phrase"


def upload(member: FlaskClient) -> int:
    return post(member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}).status_code


def path(text: str, start: str) -> str:
    found = re.search(rf"https://localhost({start}\S+)", text)
    assert found
    return found[1]


def confirmation(mailbox: Mailbox) -> str:
    return path(mailbox.next("/account/confirm/"), "/account/confirm/")


def reset(app: Flask, mailbox: Mailbox, password: str = NEW) -> FlaskClient:
    """Alice sets a new password by mail, and signs in with it."""
    alice = browser_like(app)
    post(alice, "/reset", {"email": ALICE})
    link = path(mailbox.next("/reset/"), "/reset/")
    assert post(alice, link, {"password": password, "password_confirm": password}).status_code == 303
    sign_in(alice, ALICE, password)
    assert is_signed_in(alice)
    return alice


def test_the_owner_of_an_address_inherits_nothing_of_who_registered_it(app: Flask, mailbox: Mailbox) -> None:
    mallory = registered(app)
    assert upload(mallory) == 303
    mailbox.next("Welcome")
    alice = reset(app, mailbox)
    assert "notes.txt" not in alice.get("/uploads").text
    assert stored(app) == []
    assert not is_signed_in(mallory)
    assert upload(mallory) == 303  # to the sign-in
    assert stored(app) == []
    # Now the address is confirmed, and a reset keeps what is Alice's.
    assert upload(alice) == 303
    assert "notes.txt" in reset(app, mailbox, PASSWORD).get("/uploads").text


def test_nothing_is_kept_of_an_upload_that_was_under_way(
    app: Flask, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    mallory, save_all = registered(app), uploads.save_all
    mailbox.next("Welcome")

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(uploads, "save_all", save_all)
        with ThreadPoolExecutor(1) as meanwhile:
            meanwhile.submit(reset, app, mailbox).result()
        return save_all(*args)

    monkeypatch.setattr(uploads, "save_all", slow)
    assert upload(mallory) == 401
    assert stored(app) == []


def test_before_the_files_are_deleted_the_page_says_so(app: Flask, mailbox: Mailbox) -> None:
    register(browser_like(app))
    for says in (True, False):
        alice = browser_like(app)
        post(alice, "/reset", {"email": ALICE})
        link = path(mailbox.next("/reset/"), "/reset/")
        assert ("all files in it are deleted" in alice.get(link).text) is says
        assert post(alice, link, {"password": NEW, "password_confirm": NEW}).status_code == 303


def test_a_reset_keeps_the_files_of_a_confirmed_account(app: Flask, mailbox: Mailbox) -> None:
    alice = registered(app)
    assert "Confirm your address" in alice.get("/account").text
    link = confirmation(mailbox)
    assert upload(alice) == 303
    assert post(alice, link).status_code == 303
    assert "Confirm your address" not in alice.get("/account").text
    assert "notes.txt" in reset(app, mailbox).get("/uploads").text


def by_a_link_alone(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    owner.get(link)


def signed_out(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    assert post(owner, link).headers["Location"].startswith("/login")


def in_another_account(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    bob = registered(owner.application, "bob@example.com")
    assert post(bob, link).headers["Location"] == "/account"
    assert "Confirm your address" in bob.get("/account").text


def with_a_changed_link(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    post(mallory, link[:-2])


def without_the_page_s_token(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    assert mallory.post(link).status_code == 400


def after_two_days(owner: FlaskClient, mallory: FlaskClient, link: str) -> None:
    with time_machine.travel(time.time() + 2 * 86_400 + 10):
        sign_in(mallory)
        post(mallory, link)


@pytest.mark.parametrize(
    "tried",
    [
        by_a_link_alone,
        signed_out,
        in_another_account,
        with_a_changed_link,
        without_the_page_s_token,
        after_two_days,
    ],
)
def test_an_address_is_confirmed_only_by_its_owner_in_the_account(
    app: Flask, mailbox: Mailbox, tried: Callable[[FlaskClient, FlaskClient, str], None]
) -> None:
    mallory = registered(app)
    tried(browser_like(app), mallory, confirmation(mailbox))
    assert "Confirm your address" in mallory.get("/account").text or not is_signed_in(mallory)
    assert upload(mallory) == 303
    assert "notes.txt" not in reset(app, mailbox).get("/uploads").text


def test_another_link_can_be_had(app: Flask, mailbox: Mailbox) -> None:
    alice = registered(app)
    confirmation(mailbox)
    assert post(alice, "/account/confirm").status_code == 303
    post(alice, confirmation(mailbox))
    assert "Confirm your address" not in alice.get("/account").text


def test_1_S5_a_confirmation_of_before_a_rotation_works(
    app: Flask, mailbox: Mailbox, app_config: dict[str, object]
) -> None:
    alice = registered(app)
    link = confirmation(mailbox)
    rotated = {"SECRET_KEY": "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R", "SECRET_KEY_FALLBACKS": KEY}
    alice.application = create_app(app_config | rotated)
    post(alice, link)
    assert "Confirm your address" not in alice.get("/account").text


def test_5_T3_a_body_of_json_is_no_error_of_ours(app: Flask, mailbox: Mailbox) -> None:
    alice = registered(app)
    link, headers = confirmation(mailbox), {"X-CSRFToken": csrf_token(alice), "Origin": "https://localhost"}
    assert [alice.post(link, json=body, headers=headers).status_code for body in ([1], 5, "x")] == [303] * 3


def test_an_account_of_the_administrator_is_confirmed(app: Flask, mailbox: Mailbox) -> None:
    app.test_cli_runner().invoke(args=["users", "create", ALICE], input=f"{PASSWORD}\n")
    alice = browser_like(app)
    sign_in(alice)
    assert upload(alice) == 303
    assert "notes.txt" in reset(app, mailbox).get("/uploads").text


def test_accounts_of_before_the_migration_keep_their_files(app: Flask, app_config: dict[str, object]) -> None:
    run = app.test_cli_runner()
    with app.app_context():
        assert run.invoke(args=["db", "downgrade", "default@0001"]).exit_code == 0
        with sqlite3.connect(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")) as database:
            row = (1, ALICE, "hash", "f", "o", "2026-01-02 03:04:05.000000")
            database.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)", row)
        assert run.invoke(args=["db", "upgrade"]).exit_code == 0
        found = database.execute("SELECT email, confirmed_at FROM users").fetchall()
        database.close()
    assert found == [(ALICE, "2026-01-02 03:04:05.000000")]
