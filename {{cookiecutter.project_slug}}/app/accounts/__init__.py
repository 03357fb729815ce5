"""Accounts, an option of the template: register, sign in and out, reset the password, end sessions, delete the account.

All of it is in this folder and in ``tests/accounts``, except one line in ``create_app`` and one in ``Settings``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.security.findings import Finding


def init_app(app: Flask) -> None:
    """Set up the database, the sign-in, and the pages."""
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # it logs its own import
    # Imported here: app.settings imports this package for its settings, and these modules import app.settings.
    from app.accounts import database, identity, views

    database.init_app(app)
    identity.init_app(app)
    views.init_app(app)


def check(app: Flask) -> Iterator[Finding]:
    """Report a missing mail server."""
    from app.security.findings import Finding

    if not app.config["MAIL_SERVER"] and not app.debug:
        evidence = "MAIL_SERVER is not set: no mails are sent, so users cannot reset a password."
        yield Finding("DP04", "note", evidence, "Set MAIL_SERVER and the other settings of app/accounts/settings.py.")
