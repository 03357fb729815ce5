"""Attacks on the sessions of accounts: 4.T1 and 4.T3, and 5.T2's question whether an account exists."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import argon2.low_level
import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.security.rate_limits import limiter
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, can_sign_in, is_signed_in, register, sign_in
from tests.conftest import browser_like, csrf_token, new_member, post, session_cookie

ALICE = "alice@example.com"
NEW = "an entirely different phrase"


def thief_of(victim: FlaskClient) -> FlaskClient:
    """A browser with a copy of the victim's cookie."""
    thief = browser_like(victim.application)
    thief.set_cookie("__Host-session", session_cookie(victim), secure=True)
    return thief


def path(link: str) -> str:
    return re.sub(r"^https://localhost", "", link)


class SlowBody(io.BytesIO):
    """A body that takes its time: ``meanwhile`` happens before its first byte comes."""

    def __init__(self, form: dict[str, str], meanwhile: Callable[[], object]) -> None:
        super().__init__(urlencode(form).encode())
        self.meanwhile = meanwhile

    def _wait(self) -> None:
        self.meanwhile()
        self.meanwhile = lambda: None

    def read(self, *args: Any) -> bytes:
        self._wait()
        return super().read(*args)

    def readinto(self, buffer: Any) -> int:
        self._wait()
        return super().readinto(buffer)


def post_slowly(client: FlaskClient, path: str, form: dict[str, str], meanwhile: Callable[[], object]) -> TestResponse:
    body = SlowBody({"csrf_token": csrf_token(client), **form}, meanwhile)
    length = str(len(body.getvalue()))
    content_type = "application/x-www-form-urlencoded"
    return client.post(path, input_stream=body, content_type=content_type, headers={"Content-Length": length})


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (
            "/account/password",
            {"password": PASSWORD, "new_password": "mine now, mine", "new_password_confirm": "mine now, mine"},
        ),
        ("/account/sessions/end", {}),
        ("/account/delete", {"password": PASSWORD}),
    ],
)
def test_4_T1_a_request_under_way_dies_with_its_session(
    member: FlaskClient, mailbox: Mailbox, path: str, form: dict[str, str]
) -> None:
    """Who knows the old password sends all of a request but its end, and that only after the password was changed."""
    thief = browser_like(member.application)
    sign_in(thief)
    answer = post_slowly(thief, path, form, lambda: change_password(member, mailbox))
    assert answer.headers["Location"].startswith("/login")
    assert is_signed_in(member)
    assert can_sign_in(member.application, NEW)


def test_a_reset_link_works_once_even_at_the_same_moment(client: FlaskClient, mailbox: Mailbox) -> None:
    register(client)
    post(client, "/reset", {"email": ALICE})
    link = path(mailbox.link())

    def reset(number: int) -> int:
        new = f"{NEW} {number}"
        return post(browser_like(client.application), link, {"password": new, "password_confirm": new}).status_code

    with ThreadPoolExecutor(4) as together:
        answers = list(together.map(reset, range(4)))
    # Who came too late is told so, or sent to ask for another link; one alone signs in with what was set.
    assert set(answers) <= {303, 409}
    worked = [number for number in range(4) if can_sign_in(client.application, f"{NEW} {number}")]
    assert len(worked) == 1


def sign_out(member: FlaskClient, mailbox: Mailbox) -> None:
    post(member, "/logout")


def change_password(member: FlaskClient, mailbox: Mailbox) -> None:
    post(member, "/account/password", {"password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW})


def reset_password(member: FlaskClient, mailbox: Mailbox) -> None:
    anybody = browser_like(member.application)
    post(anybody, "/reset", {"email": ALICE})
    post(anybody, path(mailbox.link()), {"password": NEW, "password_confirm": NEW})


def end_others(member: FlaskClient, mailbox: Mailbox) -> None:
    other = browser_like(member.application)
    sign_in(other)
    post(other, "/account/sessions/end")


def end_it_in_the_list(member: FlaskClient, mailbox: Mailbox) -> None:
    other = browser_like(member.application)
    sign_in(other)
    (end,) = re.findall(r'action="(/account/sessions/\w{32}/end)"', other.get("/account").text)
    assert post(other, end).status_code == 303


def delete_the_account(member: FlaskClient, mailbox: Mailbox) -> None:
    post(member, "/account/delete", {"password": PASSWORD})


@pytest.mark.parametrize(
    "ends", [sign_out, change_password, reset_password, end_others, end_it_in_the_list, delete_the_account]
)
def test_4_T1_a_copied_cookie_is_dead_after(
    member: FlaskClient, mailbox: Mailbox, ends: Callable[[FlaskClient, Mailbox], None]
) -> None:
    thief = thief_of(member)
    assert is_signed_in(thief)
    ends(member, mailbox)
    assert not is_signed_in(thief)
    assert not is_signed_in(thief_of(thief))


def test_4_T1_of_a_dead_session_nothing_is_left_in_the_cookie(member: FlaskClient) -> None:
    thief = thief_of(member)
    post(member, "/logout")
    thief.get("/")
    with thief.session_transaction() as content:
        assert not {"_user_id", "owner"} & set(content)


@pytest.mark.parametrize(
    ("step", "times", "alive"),
    [(3500, 1, True), (3700, 1, False), (3500, 12, True), (3500, 13, False)],  # 1 hour idle, 12 hours in all
)
def test_4_T1_a_sign_in_ends_with_either_lifetime(member: FlaskClient, step: int, times: int, alive: bool) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        for _ in range(times):
            clock.shift(step)
            still = is_signed_in(member)
    assert still is alive


def test_4_T1_the_servers_row_ends_a_session_whatever_the_cookie_says(member: FlaskClient) -> None:
    """A cookie that was signed just now, of a session that nobody used for over an hour or began 12 hours ago."""
    with member.session_transaction() as content:
        secret = content["_user_id"]
    with time_machine.travel(time.time() + 3700):
        forged = browser_like(member.application)
        with forged.session_transaction() as content:
            content["_user_id"] = secret
        assert not is_signed_in(forged)


def test_4_T1_the_servers_row_ends_after_twelve_hours_whatever_the_cookie_says(member: FlaskClient) -> None:
    with member.session_transaction() as content:
        secret = content["_user_id"]
    alive = []
    with time_machine.travel(time.time(), tick=False) as clock:
        for _ in range(13):
            clock.shift(3500)
            forged = browser_like(member.application)
            with forged.session_transaction() as content:
                content["_user_id"] = secret
            alive.append(is_signed_in(forged))
    assert alive == [True] * 12 + [False]


def test_4_T1_what_the_page_or_the_database_shows_of_a_session_opens_nothing(member: FlaskClient) -> None:
    other = browser_like(member.application)
    sign_in(other)
    (row_id,) = re.findall(r'action="/account/sessions/(\w{32})/end"', other.get("/account").text)
    forged = browser_like(member.application)
    with forged.session_transaction() as content:
        content["_user_id"] = row_id
    assert not is_signed_in(forged)


def test_4_T1_nobody_ends_the_session_of_another_account(member: FlaskClient) -> None:
    other = browser_like(member.application)
    sign_in(other)
    (end,) = re.findall(r'action="(/account/sessions/\w{32}/end)"', other.get("/account").text)
    mallory = browser_like(member.application)
    register(mallory, "mallory@example.com")
    sign_in(mallory, "mallory@example.com")
    assert post(mallory, end).status_code == 404
    assert post(mallory, "/account/sessions/end").status_code == 303
    assert is_signed_in(member)


def test_4_T1_the_number_of_sessions_is_bounded(member: FlaskClient) -> None:
    for _ in range(20):
        limiter.storage.reset()
        sign_in(browser_like(member.application))
    assert not is_signed_in(member)


@pytest.mark.parametrize("field", ["remember", "remember_me"])
def test_4_T1_there_is_no_cookie_but_the_sessions(client: FlaskClient, field: str) -> None:
    register(client)
    answer = post(client, "/login", {"email": ALICE, "password": PASSWORD, field: "y"})
    assert [cookie.partition("=")[0] for cookie in answer.headers.getlist("Set-Cookie")] == ["__Host-session"]


def test_4_T3_the_session_of_before_is_worthless(client: FlaskClient) -> None:
    """The attacker knows the victim's session from before the sign-in: planted it, or read it on a shared computer."""
    register(client)
    token = csrf_token(client)
    attacker = thief_of(client)
    sign_in(client)
    assert is_signed_in(client)
    assert not is_signed_in(attacker)
    assert client.post("/logout", data={"csrf_token": token}).status_code == 400
    assert is_signed_in(client)


def test_4_S4_a_sign_in_replaces_a_session_that_the_server_cannot_read(app_config: dict[str, object]) -> None:
    visitor = new_member(create_app(app_config | {"SECRET_KEY": "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"}))
    visitor.application = create_app(app_config)
    assert not is_signed_in(visitor)
    assert sign_in(visitor).status_code == 303
    assert is_signed_in(visitor)


def test_4_T3_the_next_sign_in_has_another_session(client: FlaskClient) -> None:
    register(client)
    secrets = set()
    for _ in range(3):
        sign_in(client)
        with client.session_transaction() as content:
            secrets.add(content["_user_id"])
        post(client, "/logout")
    assert len(secrets) == 3


def test_4_T3_a_change_of_the_password_changes_the_session(member: FlaskClient, mailbox: Mailbox) -> None:
    token = csrf_token(member)
    change_password(member, mailbox)
    assert is_signed_in(member)
    assert member.post("/logout", data={"csrf_token": token}).status_code == 400


def words(response: TestResponse) -> tuple[int, str | None, str]:
    """What somebody sees, without what is random in every page."""
    text = re.sub(r'(content|value|nonce)="[^"]{16,}"', "", response.text)
    return response.status_code, response.headers.get("Location"), re.sub(r"\S+@example.com", "", text)


def from_somewhere(app: Flask, number: int) -> FlaskClient:
    """A client of its own address, so that neither limits nor backoff get in the way."""
    client = browser_like(app)
    client.environ_base["REMOTE_ADDR"] = f"198.51.100.{number}"
    return client


FORMS = {
    "/login": {"password": "not the password at all"},
    "/register": {"password": PASSWORD, "password_confirm": PASSWORD},
    "/reset": {},
}


@pytest.mark.parametrize("form", FORMS)
def test_5_T2_known_and_unknown_addresses_look_alike(client: FlaskClient, form: str) -> None:
    register(client)
    seen = []
    for number, email in enumerate([ALICE, "unknown@example.com"]):
        visitor = from_somewhere(client.application, number)
        answer = post(visitor, form, {"email": email} | FORMS[form])
        seen.append((words(answer), words(visitor.get("/login"))))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("form", ["/login", "/register"])
def test_5_T2_known_and_unknown_addresses_take_alike(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Hashing a password takes nearly all of the time: it is done once, whether there is an account or not."""
    register(client)
    hashed: list[str] = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def hash_or_verify(*args: object, **kwargs: object) -> Any:
            hashed.append(form)
            return real(*args, **kwargs)

        return hash_or_verify

    for name in ("hash_secret", "verify_secret"):
        monkeypatch.setattr(argon2.low_level, name, counted(getattr(argon2.low_level, name)))
    for number, email in enumerate([ALICE, "unknown@example.com"]):
        hashed.clear()
        post(from_somewhere(client.application, number), form, {"email": email} | FORMS[form])
        assert hashed == [form], email
