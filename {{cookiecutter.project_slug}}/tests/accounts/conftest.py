"""What the tests of accounts share."""

from __future__ import annotations

import pytest

from tests import forked
from tests.accounts.mailbox import Mailbox
from tests.test_08_rate_limits import clock, unlimited  # noqa: F401 - fixtures

forked.PACKAGES += ["argon2", "flask_security", "flask_sqlalchemy_lite", "sqlalchemy.orm"]


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch, app_config: dict[str, object]) -> Mailbox:
    return Mailbox(monkeypatch, app_config["DATABASE_URL"])
