"""Habit: a JSON API with bearer tokens; no page, no form, no session, no key, no uploads."""

from flask import Flask, abort, request
from flask.views import MethodView

app = Flask(__name__)
ITEMS = {}


@app.before_request
def only_with_a_token():
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        abort(401)


class Items(MethodView):
    def get(self):
        return ITEMS

    def post(self):
        ITEMS[len(ITEMS)] = request.get_json()
        return ITEMS, 201

    def delete(self):
        ITEMS.clear()
        return "", 204


app.add_url_rule("/items", view_func=Items.as_view("items"))
