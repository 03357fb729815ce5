"""The forms of accounts: how often each may be sent, and what becomes of one whose page was open for too long."""

from __future__ import annotations

import time

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from app.security.declarations import declared_by
from app.security.rate_limits import KIND
from tests.conftest import csrf_token


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


def test_8_S3_the_forms_of_accounts_have_limits_of_their_own(app: Flask) -> None:
    """That such a limit is stricter, and counts, is in tests/test_08_rate_limits.py."""
    kinds = {"login": "sign_in", "register": "register", "forgot_password": "reset", "reset_password": "reset"}
    assert {view: declared_by(app, f"security.{view}", "POST", KIND) for view in kinds} == kinds
