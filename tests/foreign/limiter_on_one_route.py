"""Habit: Flask-Limiter, with a limit on the sign-in alone."""

from flask import Flask, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")


@app.get("/")
def index():
    return "Hello"


@app.get("/search")
@limiter.limit("1000 per hour")
def search():
    return request.args.get("q", "")


@app.post("/login")
@limiter.limit("5 per minute")
def login():
    return "", 204


@app.post("/comments")
def comment():
    return "", 204
