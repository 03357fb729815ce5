"""Habit: an alias without a view, defaults, a choice in the address, a view that is no function; writes at start."""

import functools
import logging
import sqlite3
import sys
import warnings
from pathlib import Path

from flask import Flask

Path("logs").mkdir(exist_ok=True)
logging.basicConfig(filename="logs/app.log", level=logging.DEBUG)
sqlite3.connect(Path(__file__).with_name("app.db")).execute("CREATE TABLE IF NOT EXISTS item (id)")
warnings.warn("an old extension is in use", stacklevel=1)
print("starting", file=sys.stderr)


def create_app(name):
    app = Flask(name)
    app.add_url_rule("/", endpoint="home")
    app.add_url_rule("/", endpoint="pages.home", view_func=view)
    app.add_url_rule("/<any(red, blue):colour>", view_func=view, endpoint="colour")
    app.add_url_rule("/list/", defaults={"page": 1}, view_func=view, endpoint="list")
    app.add_url_rule("/list/<int:page>", view_func=view, endpoint="list")
    app.add_url_rule("/partial", view_func=functools.partial(view, 1), endpoint="partial", methods=["POST"])
    return app


def view(*_, **__):
    Path("written-by-a-view").touch()
    raise AssertionError("the audit runs no view")
