"""The forms of accounts: how often each may be sent, and what becomes of one whose page was open for too long."""

from __future__ import annotations

import time

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.security.declarations import declared_by
from app.security.rate_limits import KIND, LIMITS
from tests.accounts.people import PASSWORD, can_sign_in, sign_in
from tests.conftest import TOKEN, browser_like, csrf_token, new_member, post


@pytest.mark.parametrize(
    "pauses",
    [[1500, 1500, 1500], [7200]],
    ids=["the session stays in use, the page does not", "the session has ended"],
)
def test_a_stale_token_gives_the_form_back_filled_in(client: FlaskClient, pauses: list[int]) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        token = csrf_token(client, "/login")
        for pause in pauses[:-1]:
            clock.shift(pause)
            client.get("/")
        clock.shift(pauses[-1])
        answer = client.post("/login", data={"csrf_token": token, "email": "alice@example.com", "password": "x"})
    assert answer.status_code == 400
    assert 'value="alice@example.com"' in answer.text
    assert "open for too long" in answer.text


def test_a_form_of_a_server_with_another_key_comes_back_filled_in(app_config: dict[str, object]) -> None:
    visitor = browser_like(create_app(app_config | {"SECRET_KEY": "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"}))
    form = {"csrf_token": csrf_token(visitor), "email": "alice@example.com", "password": "x"}
    visitor.application = create_app(app_config)
    answer = visitor.post("/login", data=form)
    assert answer.status_code == 400
    assert 'value="alice@example.com"' in answer.text
    assert "open for too long" in answer.text
    again = TOKEN.search(answer.text)
    assert again
    assert visitor.post("/login", data=form | {"csrf_token": again[1]}).status_code == 403  # a wrong password


def test_8_S3_the_forms_of_accounts_have_limits_of_their_own(app: Flask) -> None:
    """That such a limit is stricter, and counts, is in tests/test_08_rate_limits.py."""
    kinds = {"login": "sign_in", "register": "register", "forgot_password": "reset", "reset_password": "reset"}
    assert {view: declared_by(app, f"security.{view}", "POST", KIND) for view in kinds} == kinds


# A form, and the fields that it holds again when too many were sent: all that is no password.
TYPED = {"email": "alice@example.com"}
SECRET = {"password": "hunter2 hunter2", "password_confirm": "hunter3 hunter3"}


@pytest.mark.parametrize(
    ("path", "kind", "heading"),
    [
        ("/login", "sign_in", "Sign in"),
        ("/register", "register", "Create an account"),
        ("/reset", "reset", "Reset your password"),
    ],
)
def test_8_S5_who_sent_a_form_too_often_gets_it_back_filled_in(
    app: Flask, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, heading: str
) -> None:
    monkeypatch.setitem(LIMITS, kind, "1 per minute")  # type: ignore[arg-type]
    client = browser_like(app)
    sent = TYPED | SECRET | ({"next": "/uploads"} if path == "/login" else {})
    post(client, path, sent)
    answer = post(client, path, sent)
    assert (answer.status_code, answer.mimetype) == (429, "text/html")
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert f'data-retry-after="{answer.headers["Retry-After"]}"' in answer.text
    assert f"<h1>{heading}</h1>" in answer.text
    assert 'value="alice@example.com"' in answer.text
    assert ('value="/uploads"' in answer.text) is (path == "/login")
    assert not any(password in answer.text for password in SECRET.values())
    assert 'action="/reset"' in answer.text or 'href="/reset"' in answer.text or path == "/register"


def test_8_S5_the_sign_in_says_how_long_to_wait_and_offers_the_reset(
    app: Flask, clock: time_machine.Coordinates
) -> None:
    client = browser_like(app)
    answers = [sign_in(client, password="hunter2 hunter2") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 429]
    page = answers[-1].text
    assert "There were several wrong passwords" in page
    assert 'data-retry-after="1"' in page
    assert 'value="alice@example.com"' in page
    assert 'href="/reset"' in page
    assert "hunter2" not in page


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/account/password", {"new_password": "an other password 1", "new_password_confirm": "an other password 1"}),
        ("/account/delete", {}),
    ],
)
def test_8_S5_a_form_that_comes_back_has_done_nothing(
    app: Flask, clock: time_machine.Coordinates, path: str, sent: dict[str, str]
) -> None:
    member = new_member(app)
    for _ in range(3):
        post(member, path, sent | {"password": "wrong"})
    answer = post(member, path, sent | {"password": PASSWORD})
    assert answer.status_code == 429
    assert 'data-retry-after="1"' in answer.text
    assert 'name="password"' in answer.text
    assert not any(value in answer.text for value in (PASSWORD, *sent.values()))
    assert can_sign_in(app, PASSWORD)


@pytest.mark.parametrize("data", [{"email": "a\0b"}, {f"field{number}": "" for number in range(150)}])
def test_8_S5_a_form_that_cannot_be_read_is_not_shown_again(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, data: dict[str, str]
) -> None:
    monkeypatch.setitem(LIMITS, "sign_in", "1 per minute")  # type: ignore[arg-type]
    client = browser_like(app)
    client.get("/login")
    sent = [client.post("/login", data=data, content_type="multipart/form-data") for _ in range(2)]
    assert [answer.status_code for answer in sent] == [400 if "email" in data else 413, 429]
    assert 0 < int(sent[1].headers["Retry-After"]) <= 60
    assert "Traceback" not in caplog.text


def test_8_S5_a_script_that_sent_a_form_too_often_gets_a_problem(app: Flask, clock: time_machine.Coordinates) -> None:
    client = browser_like(app)
    for _ in range(3):
        sign_in(client)
    problem = post(client, "/login", TYPED | SECRET, headers={"Accept": "application/json"})
    assert (problem.status_code, problem.content_type) == (429, "application/problem+json")


def test_2_T1_a_form_that_another_site_sent_too_often_starts_no_session(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser leaves out the visitor's cookie, and a new one would take its place: they would be signed out."""
    monkeypatch.setitem(LIMITS, "sign_in", "1 per minute")
    answers = [client.post("/login", data=TYPED, headers={"Sec-Fetch-Site": "cross-site"}) for _ in range(2)]
    assert [(answer.status_code, "Set-Cookie" in answer.headers) for answer in answers] == [(400, False), (429, False)]
    assert "alice@example.com" not in answers[1].text
