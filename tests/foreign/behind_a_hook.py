"""Habit: a hook sends everybody who is not signed in to the sign-in. That refuses requests, but for no token."""

from flask import Flask, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "dev"


@app.before_request
def only_members():
    if request.endpoint not in ("sign_in", "static") and "user" not in session:
        return redirect(url_for("sign_in", next=request.path))
    return None


@app.get("/")
def index():
    return "<h1>Members</h1>"


@app.post("/transfer")
def transfer():
    return f"Sent {request.form['amount']}"


@app.get("/sign-in")
def sign_in():
    return "<form></form>"
