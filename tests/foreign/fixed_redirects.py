"""Habit: redirects to fixed addresses and back to the page itself; nothing that a request asks for."""

from flask import Flask, redirect, request, url_for

app = Flask(__name__)


@app.get("/")
def index():
    target = url_for("index", page=request.args.get("page"))
    return redirect(target) if request.args else redirect("/start")


@app.post("/")
def save():
    return redirect(request.url)
