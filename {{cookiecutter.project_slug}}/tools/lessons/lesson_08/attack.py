"""A thief has a list of e-mail addresses and passwords that another site has lost. He tries all of them at the shop.

The team has a sign-in of its own, with the app's backoff: after three wrong passwords, an address has to wait, longer
each time. The thief has 30 accounts of his own. After every two guesses, he signs in to one of them.
"""

from __future__ import annotations

import time
from unittest import mock

from flask import request

from app.security.backoff import attempt_succeeded, claim_attempt
from app.security.errors import refuse
from app.visitors import public
from tools.lessons.lab import Lab

PASSWORDS = {f"customer-{number}@mail.test": f"password-{number}" for number in range(60)}
PASSWORDS |= {f"thief-{number}@mail.test": "of the thief" for number in range(1, 31)}
LOST = {f"customer-{number}@mail.test": f"password-{number if number % 13 == 12 else 'old'}" for number in range(60)}


@public
def sign_in() -> str:
    """Sign in."""
    claim_attempt(request.form["email"])
    if PASSWORDS.get(request.form["email"]) != request.form["password"]:
        refuse(403, "The e-mail address or the password is wrong.")
    attempt_succeeded(request.form["email"])
    return "Welcome!"


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    stopped = mock.patch("time.time", return_value=time.time())  # no wait ends meanwhile
    with lab.serve({"/shop/sign-in": sign_in}) as shop, stopped:
        thief, statuses = shop.visitor(), list[int]()
        for email, password in LOST.items():  # 200: right, 403: wrong, 429: the thief has to wait
            statuses.append(thief.send("/shop/sign-in", {"email": email, "password": password}).status)
            if len(statuses) % 2 == 0:
                own = {"email": f"thief-{len(statuses) // 2}@mail.test", "password": "of the thief"}
                thief.send("/shop/sign-in", own)
    print(f"Of {len(LOST)} passwords, {60 - statuses.count(429)} were tried. {statuses.count(200)} were right.")
    return f"The thief is in {statuses.count(200)} accounts." if 200 in statuses else ""
