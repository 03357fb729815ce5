"""The people that the tests of accounts are about."""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.accounts import identity
from app.accounts.models import db
from app.security.rate_limits import limiter
from tests.conftest import browser_like, post

PASSWORD = "correct horse battery staple 42"


def create(app: Flask, email: str) -> None:
    """Make an account. The form would take longer than most tests."""
    with app.app_context():
        identity.create_user(email, PASSWORD)
        db.session.commit()


def register(client: FlaskClient, email: str = "alice@example.com", password: str = PASSWORD) -> TestResponse:
    return post(client, "/register", {"email": email, "password": password, "password_confirm": password})


def sign_in(client: FlaskClient, email: str = "alice@example.com", password: str = PASSWORD) -> TestResponse:
    return post(client, "/login", {"email": email, "password": password})


def registered(app: Flask, email: str = "alice@example.com") -> FlaskClient:
    """A new browser that is signed in to an account which it has registered, so its address got a mail."""
    client = browser_like(app)
    register(client, email)
    sign_in(client, email)
    return client


def is_signed_in(client: FlaskClient) -> bool:
    return client.get("/account").status_code == 200


def can_sign_in(app: Flask, password: str, email: str = "alice@example.com") -> bool:
    """Whether the password opens the account, in a new browser that no limit holds up."""
    limiter.storage.reset()
    client = browser_like(app)
    sign_in(client, email, password)
    return is_signed_in(client)


def statements(engine: sa.Engine) -> list[str]:
    """A list that grows with each statement of this thread from now on: mails are sent by another one."""
    found, here = [], threading.get_ident()

    def before(*call: Any) -> None:
        if threading.get_ident() == here:
            found.append(call[2])

    sa.event.listen(engine, "before_cursor_execute", before)
    return found
