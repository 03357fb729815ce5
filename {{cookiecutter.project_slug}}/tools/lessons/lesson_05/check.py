"""Other kinds of failures and clients. No response may say what failed; the log must."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from werkzeug.exceptions import BadRequest, NotFound

from app.security.errors import Refusal
from app.visitors import public
from tools.lessons.lab import Lab

# The name of a page → the exception that it raises, what must not be shown, and the fault if it is shown. Simplest
# first: the first one that is shown tells what the fix overlooks.
FAILURES: dict[str, tuple[Exception, str, str]] = {
    "password": (
        ConnectionError("postgresql://shop:hunter2@db/orders"),
        "hunter2",
        "The text of an exception is shown",
    ),
    "path": (
        FileNotFoundError("no such file: /srv/shop/orders/2026-07-14.csv"),
        "/srv/shop",
        "A path of the server is shown. It is no password, so no redaction finds it",
    ),
    "table": (RuntimeError("no such table: customers_eu"), "customers_eu", "The name of a table is shown"),
    "type": (
        type("OrdersDatabaseError", (Exception,), {})(""),
        "OrdersDatabaseError",
        "The name of the exception's class is shown, which tells what the app is built of",
    ),
    "bad": (
        BadRequest("invalid literal for int() in /srv/shop/cart.py"),
        "cart.py",
        "What a view has passed on with abort(400, str(error)) is shown",
    ),
    "not-found": (NotFound("no row in customers_eu"), "customers_eu", "The description of a 404 is shown"),
}


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    failing = {name: failure[0] for name, failure in FAILURES.items()}
    failing["refused"] = Refusal(409, "This order was sent already.")

    @public
    def fail(name: str) -> str:
        raise failing[name]

    log = io.StringIO()
    logging.disable(logging.NOTSET)
    with contextlib.redirect_stderr(log), lab.serve({"/failing/<name>": fail}) as shop:
        visitor = shop.visitor()

        def text(path: str, accept: str) -> str:
            return visitor.get(path, Accept=accept).text

        leaks = {
            accept: [
                fault for name, (_, secret, fault) in FAILURES.items() if secret in text(f"/failing/{name}", accept)
            ]
            for accept in ("text/html", "application/json")
        }
        page, script = leaks.values()
        if page:
            yield f"{page[0]}."
        elif script:
            yield f"Pages are clean. {script[0]} to a script, which asks for JSON: anybody can ask for it."
        for accept in leaks:
            if "This order was sent already." not in text("/failing/refused", accept):
                yield f"The message of refuse(409, …) is no longer shown ({accept}). It is written for people."
        if visitor.get("/failing/path").status != 500:
            yield "An exception no longer answers 500: nobody would notice it."
    if "RuntimeError: no such table: customers_eu" not in log.getvalue():
        yield "The log does not have the exception: now nobody can find the fault."
