"""The migrations: they create the tables and change them. ``flask --app app db upgrade`` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from flask import Flask
from flask_alembic import Alembic

from app import paths
from app.accounts.models import Model

OURS = str(Path(__file__).parent / "migrations")


def newest() -> list[str]:
    """Return the newest migrations: those that the table ``alembic_version`` of an up-to-date database has."""
    return ScriptDirectory(OURS, version_locations=[OURS, str(paths.MIGRATIONS)]).get_heads()


class Schema(Alembic):
    """Flask-Alembic that also creates the folder and the file of a SQLite database."""

    def __init__(self, app: Flask, file: Path | None) -> None:
        """Set it up for ``app``, before its first request. ``file`` is the database if it is one of SQLite."""
        self.file = file
        # Two histories, so that none of your migrations must change for a new one of the template.
        app.config["ALEMBIC"] = {
            "script_location": OURS,
            "version_locations": [("app", str(paths.MIGRATIONS))],  # where ``flask db revision`` writes
        }
        # SQLite changes a column only by a copy of the table. Migrations that do so run on PostgreSQL too.
        app.config["ALEMBIC_CONTEXT"] = {"render_as_batch": True}
        super().__init__(app, run_mkdir=False, command_name="", metadatas=Model.metadata)

    def upgrade(self, target: Any = "heads") -> None:
        """Run the migrations up to ``target``."""
        if self.file:
            paths.make_private_folder(self.file.parent)
            self.file.touch(0o600)  # SQLite would create it readable by other users of this machine
        super().upgrade(target)
