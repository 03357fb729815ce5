"""Habit: ``Talisman(app)`` without any option."""

import os

from flask import Flask, session
from flask_talisman import Talisman

app = Flask(__name__)
app.config.from_prefixed_env()
app.secret_key = app.secret_key or os.urandom(32)
Talisman(app)


@app.get("/")
def index():
    session["seen"] = True
    return "<h1>Hello</h1>"
