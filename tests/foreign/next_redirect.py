"""Habit: after the sign-in, ``redirect(request.args["next"])``; elsewhere looked at first, or built from an id."""

from urllib.parse import urlsplit

from flask import Flask, redirect, request, url_for

app = Flask(__name__)


@app.get("/plain")
def plain():
    target = request.args.get("next") or url_for("index")
    return redirect(target)


@app.get("/checked")
def checked():
    for target in (request.args.get("next"), request.referrer):
        if target and not urlsplit(target).netloc:
            return redirect(target)
    return redirect("/")


@app.get("/item")
def item():
    return redirect(f"/items/{request.args['id']}")


@app.get("/again")
def again():
    return redirect(request.url)


@app.get("/")
def index():
    return "Hello"
