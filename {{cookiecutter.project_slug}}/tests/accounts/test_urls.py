"""The ``next`` of the sign-in leads nowhere else (10.T1)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask import Flask

from tests.accounts.people import PASSWORD, register
from tests.conftest import ORIGIN, browser_like, csrf_token
from tests.test_10_urls import read_by_a_browser


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example"])
def test_10_T1_sign_in_does_not_lead_elsewhere(app: Flask, target: str) -> None:
    register(browser_like(app))
    client = browser_like(app)
    form = {"email": "alice@example.com", "password": PASSWORD, "next": target}
    answer = client.post(f"/login?next={quote(target)}", data={"csrf_token": csrf_token(client), **form})
    found = read_by_a_browser(answer.headers.get("Location", "/"))
    assert found
    assert found.origin == ORIGIN
