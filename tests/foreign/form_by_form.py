"""Habit: FlaskForm with validate_on_submit in every view, and no CSRFProtect; one view takes JSON beside them."""

from flask import Flask, flash, redirect, request, url_for
from flask_wtf import FlaskForm
from wtforms import StringField


class Config:
    SECRET_KEY = "a secret that everybody can read"


class NoteForm(FlaskForm):
    text = StringField()


def create_app(config=Config):
    app = Flask(__name__)
    app.config.from_object(config)

    @app.route("/", methods=["GET", "POST"], defaults={"page": 1})
    @app.route("/page/<int:page>", methods=["GET", "POST"])
    def index(page):
        form = NoteForm()
        if form.validate_on_submit():
            flash("Noted.")
        return redirect(url_for("index", page=page))

    @app.post("/translate")
    def translate():
        return {"text": request.get_json()["text"][::-1]}

    return app
