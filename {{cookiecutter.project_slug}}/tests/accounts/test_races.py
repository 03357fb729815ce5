"""Two requests for one account at the same moment: every answer is clear, and nothing is left half done.

The second request runs as a whole between two statements of the first one, at each place in turn. Where the first one
holds the write lock of the database, the second one would only wait.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from flask_security.recoverable import generate_reset_password_token

from app import create_app
from app.accounts import identity
from app.accounts.models import User, db
from app.security.rate_limits import limiter
from app.storage import folder
from tests.accounts.people import PASSWORD, register, sign_in
from tests.conftest import browser_like, csrf_token, new_member, post
from tests.samples import stored

NEW = "an entirely different phrase"
THIRD = "yet another long phrase"


class Case:
    """One account, and the actions on it. Tokens and links are made before the race."""

    def __init__(self, app: Flask, number: int) -> None:
        limiter.storage.reset()
        self.app, self.email = app, f"person{number}@example.com"
        with app.test_request_context():
            user = identity.create_user(self.email, PASSWORD)
            assert user
            db.session.commit()
            self.owner = user.owner_key
            self.links = [f"/reset/{generate_reset_password_token(user)}" for _ in range(2)]
            folder.store(io.BytesIO(b"old"), "old.txt", "text/plain", self.owner, check_quota=lambda sizes: None)
        self.visitor, self.signed_in = browser_like(app), [browser_like(app) for _ in range(2)]
        for client in self.signed_in:
            sign_in(client, self.email)
        self.tokens = {id(client): csrf_token(client) for client in (self.visitor, *self.signed_in)}

    def post(self, client: FlaskClient, path: str, **form: Any) -> int:
        return client.post(path, data={"csrf_token": self.tokens[id(client)], **form}).status_code

    def login(self, which: int) -> int:
        return self.post(self.visitor, "/login", email=self.email, password=PASSWORD)

    def register(self, which: int) -> int:
        return self.post(self.visitor, "/register", email=self.email, password=NEW, password_confirm=NEW)

    def ask(self, which: int) -> int:
        return self.post(self.visitor, "/reset", email=self.email)

    def reset(self, which: int) -> int:
        return self.post(self.visitor, self.links[which], password=NEW, password_confirm=NEW)

    def delete(self, which: int) -> int:
        return self.post(self.signed_in[which], "/account/delete", password=PASSWORD)

    def change(self, which: int) -> int:
        form = {"password": PASSWORD, "new_password": THIRD, "new_password_confirm": THIRD}
        return self.post(self.signed_in[which], "/account/password", **form)

    def upload(self, which: int) -> int:
        return self.post(self.signed_in[which], "/uploads", file=(io.BytesIO(b"mine"), "notes.txt"))

    def look(self, which: int) -> int:
        return self.signed_in[which].get("/account").status_code

    def send_confirmation(self, which: int) -> int:
        return self.post(self.signed_in[which], "/account/confirm")

    def end_others(self, which: int) -> int:
        return self.post(self.signed_in[which], "/account/sessions/end")

    def logout(self, which: int) -> int:
        return self.post(self.signed_in[which], "/logout")


Action = Callable[[Case, int], int]
CHANGES = [Case.delete, Case.reset, Case.change]
ALL = [
    Case.login,
    Case.register,
    Case.ask,
    Case.upload,
    Case.look,
    Case.send_confirmation,
    Case.end_others,
    Case.logout,
    *CHANGES,
]


@pytest.fixture
def quick(app_config: dict[str, object]) -> Flask:
    """The app with a quick hash: this test hashes hundreds of passwords."""
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "10000 per minute"})
    app.extensions["security"].pwd_context.update(argon2__memory_cost=8, argon2__time_cost=1)
    return app


def interrupted(case: Case, first: Action, second: Action, place: int) -> list[int]:
    """Run ``first``, and ``second`` before its statement number ``place``. Gives the statuses."""
    count, answers = 0, list[int]()

    def before(connection: sa.Connection, *_: object) -> None:
        nonlocal count
        if connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
            return
        count += 1
        if count == place:  # in a thread of its own, or both requests would share their context
            other = threading.Thread(target=lambda: answers.append(second(case, 1)), daemon=True)
            other.start()
            other.join(30)

    with case.app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        return [first(case, 0), *answers]
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


@pytest.mark.parametrize("second", CHANGES, ids=lambda action: action.__name__)
@pytest.mark.parametrize("first", ALL, ids=lambda action: action.__name__)
def test_5_T3_two_requests_at_one_moment_have_clear_answers(
    quick: Flask,
    app_config: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    first: Action,
    second: Action,
) -> None:
    monkeypatch.setattr("app.accounts.mail.Postman.wake", lambda _, response=None: response)
    place, statuses = 0, [0, 0]
    while len(statuses) == 2:
        place += 1
        case = Case(quick, place)
        statuses = interrupted(case, first, second, place)
        where = f"{first.__name__} and, before its statement {place}, {second.__name__}: {statuses}"
        # 400: the session has ended, and with it the page's token.
        assert set(statuses) <= {200, 303, 400, 401, 403, 409}, where
        with quick.app_context():
            user = db.session.scalar(sa.select(User).where(User.email == case.email))
        # The files are there as long as the account is.
        kept = {path.parent.name for path in Path(str(app_config["UPLOAD_DIR"])).rglob("*.json")}
        assert (case.owner in kept) is (user is not None and user.owner_key == case.owner), where
    assert place > 2
    assert "The error page itself failed" not in caplog.text


def test_two_registrations_of_an_address_make_one_account(quick: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    find_user = identity.find_user

    def meanwhile(email: str) -> User | None:
        found = find_user(email)
        monkeypatch.setattr(identity, "find_user", find_user)
        assert register(browser_like(quick), email, NEW).status_code == 303
        return found

    monkeypatch.setattr(identity, "find_user", meanwhile)
    assert register(browser_like(quick)).status_code == 303
    with quick.app_context():
        assert db.session.scalar(sa.select(sa.func.count()).select_from(User)) == 1


def test_nothing_is_kept_of_a_session_that_began_during_the_deletion(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins after the others were ended, and stores a file after the others were deleted."""
    member, late = new_member(app), browser_like(app)
    end_sessions, delete_all = identity.end_sessions, folder.delete_all
    statuses: list[int] = []

    def store() -> None:
        statuses.append(post(late, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}).status_code)

    def in_another_thread(action: Callable[[], object]) -> None:
        other = threading.Thread(target=action, daemon=True)
        other.start()
        other.join(30)

    def end_and_begin(which: Any) -> int:
        ended = end_sessions(which)
        in_another_thread(lambda: sign_in(late))
        return ended

    def delete_and_store(owner: str) -> None:
        delete_all(owner)
        if not statuses:
            in_another_thread(store)

    monkeypatch.setattr(identity, "end_sessions", end_and_begin)
    monkeypatch.setattr(folder, "delete_all", delete_and_store)
    assert post(member, "/account/delete", {"password": PASSWORD}).status_code == 303
    assert statuses == [303]
    assert stored(app) == []
