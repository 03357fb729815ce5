"""The commands that do without the app: it can't start for want of a key, and an audit is not to start it.

The ``flask`` command starts the app to see which commands there are, and any start makes ``UPLOAD_DIR`` and a SQLite
file that are not there yet.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flask import Flask

from app.audit import cli as audit
from app.security import secret_key

COMMANDS = {command.name: command for command in (audit.command, secret_key.cli)}
WITH_A_VALUE = ("-A", "--app", "-e", "--env-file")  # of the options that may stand before a command


def is_all_that_is_asked() -> bool:
    """Whether this process is ``flask audit`` or ``flask secret-key``."""
    program, arguments = Path(sys.argv[0]), iter(sys.argv[1:])
    if program.stem == "flask" or program.parts[-2:] == ("flask", "__main__.py"):
        for argument in arguments:
            if argument in WITH_A_VALUE:
                next(arguments, None)
            elif not argument.startswith("-"):
                return argument in COMMANDS
    return False


def app_without_pages() -> Flask:
    """Give an app that serves nothing and has these commands only."""
    app = Flask("app", static_folder=None)
    for command in COMMANDS.values():
        app.cli.add_command(command)
    return app
