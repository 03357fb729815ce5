"""Habit: a JSON API for a page of the same site, signed in by Flask's session: another site's request carries it."""

import secrets

from flask import Flask, request, session
from werkzeug.security import check_password_hash

app = Flask(__name__)
app.secret_key = secrets.token_bytes(32)
USERS = {}


@app.post("/session")
def sign_in():
    given = request.get_json()
    if not check_password_hash(USERS.get(given["name"], ""), given["password"]):
        return {"error": "no"}, 403
    session["name"] = given["name"]
    return {}


@app.get("/me")
def me():
    return {"name": session.get("name")}


@app.delete("/me")
def leave():
    USERS.pop(session["name"])
    return {}
