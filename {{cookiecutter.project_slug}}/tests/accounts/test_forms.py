"""The forms of accounts, when their page was open for too long."""

from __future__ import annotations

import time

import pytest
import time_machine
from flask.testing import FlaskClient

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
