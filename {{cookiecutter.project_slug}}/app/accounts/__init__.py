"""Accounts, an option of the template: register, sign in and out, reset the password, end sessions, delete the account.

All of it is in this folder and in ``tests/accounts``, except one line in ``create_app`` and one in ``Settings``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.security.findings import Finding


def init_app(app: Flask) -> None:
    """Set up the database, the sign-in, and the pages."""
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # it logs its own import
    # Imported here: app.settings imports this package for its settings, and these modules import app.settings.
    from app.accounts import backup, database, identity, mail, views

    database.init_app(app)
    backup.init_app(app)
    identity.init_app(app)
    mail.init_app(app)
    views.init_app(app)


def check(app: Flask) -> Iterator[Finding]:
    """State whether the app can send mails, and who else may read its database."""
    from app.accounts.database import sqlite_file
    from app.security.findings import Finding

    if not app.config["MAIL_SERVER"] and not app.debug:
        evidence = "MAIL_SERVER is not set: no mails are sent, so nobody can reset a password."
        yield Finding("DP04", "note", evidence, "Set MAIL_SERVER and the others in app/accounts/settings.py.")
    file = sqlite_file(app)
    if os.name == "posix" and file and file.exists() and (mode := file.stat().st_mode & 0o077):
        evidence = f"Other users of this machine have access to the database (permission bits {mode:03o})."
        yield Finding("DP05", "relaxed", evidence, f"Run: chmod 600 {file}")
