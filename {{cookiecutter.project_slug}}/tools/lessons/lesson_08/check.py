"""What a sign-in clears: nothing for a thief; for people who share an address, their own wrong guesses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest import mock

from flask import Flask

from app.security.backoff import attempt_succeeded, claim_attempt
from app.security.errors import Refusal
from tools.lessons.lab import Lab


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    app = lab.create()
    with mock.patch("time.time", return_value=time.time()):
        spent = [_guess(app, f"victim-{number}", "192.0.2.1") for number in range(6)]
        if spent[:3] != [True] * 3:
            yield f"The first three guesses must not wait: {spent}."
        if any(spent[3:]):
            yield "From one address, guesses at many accounts never wait: a thief tries one password at each of them."
        # The thief's own account was never used here, so its own backoff is free.
        _succeed(app, "of-the-thief", "192.0.2.1")
        gained = [_guess(app, f"next-{number}", "192.0.2.1") for number in range(9)].count(True)
        if gained:
            yield (
                f"After a sign-in to an account of his own, a thief has {gained} more guesses at others. Give the "
                "address back only what was guessed at the account that signs in."
            )
        for number in range(12):  # people behind one address: each mistypes once, then signs in
            first = _guess(app, f"person-{number}", "192.0.2.2")
            if not (first and _guess(app, f"person-{number}", "192.0.2.2")):
                yield (
                    f"In an office with one address, person {number + 1} has to wait because others have mistyped. "
                    "A success has to give back the failures at its own account."
                )
                break
            _succeed(app, f"person-{number}", "192.0.2.2")
        for _ in range(3):
            _guess(app, "forgetful", "192.0.2.3")
        with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.3"}):
            attempt_succeeded("forgetful")
        if not _guess(app, "forgetful", "192.0.2.3"):
            yield "After a success, the account itself still has to wait."
        attacked = [_guess(app, "victim", f"198.51.100.{number}") for number in range(6)].count(True)
        if attacked > 3:
            yield "From many addresses, guesses at one account never wait."


def _guess(app: Flask, account: str, address: str) -> bool:
    """Return whether a guess is accepted, or has to wait."""
    with app.test_request_context(environ_base={"REMOTE_ADDR": address}):
        try:
            claim_attempt(account)
        except Refusal:
            return False
        return True


def _succeed(app: Flask, account: str, address: str) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": address}):
        attempt_succeeded(account)
