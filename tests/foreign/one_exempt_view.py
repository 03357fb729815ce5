"""Habit: CSRFProtect for the whole app, and one exempt view for another company's servers (a payment's webhook)."""

import os

from flask import Flask, redirect, url_for
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import StringField

app = Flask(__name__)
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "change-me")
csrf = CSRFProtect(app)


class NoteForm(FlaskForm):
    text = StringField()


@app.get("/")
def index():
    raise AssertionError("the audit runs no view")


@app.post("/notes")
def add_note():
    form = NoteForm()
    if form.validate_on_submit():
        app.logger.info("noted")
    return redirect(url_for("index"))


@app.post("/webhook")
@csrf.exempt
def webhook():
    raise AssertionError("the audit runs no view")
