"""Who sends a request. Without accounts, all that is known is a session; ``app/accounts`` knows who is signed in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from flask.typing import ResponseReturnValue

View = TypeVar("View", bound=Callable[..., Any])


class Visitors:
    """What the app asks about a visitor. The answers here are those of an app without accounts."""

    def account_id(self) -> str | None:
        """Return the id of the account that is signed in, or None."""
        return None

    def ask_to_sign_in(self) -> ResponseReturnValue | None:
        """Return the response to a visitor who has to sign in first, or None for one who may go on."""
        return None

    def is_still_here(self) -> bool:
        """Return whether the visitor may still act, in a view that has taken its time."""
        return True


def init_app(app: Flask) -> None:
    """Take everybody for a visitor without an account; ``accounts.init_app`` replaces this."""
    app.extensions["visitors"] = Visitors()


def visitors() -> Visitors:
    """Return what the current app knows about visitors."""
    found: Visitors = current_app.extensions["visitors"]
    return found


def sign_in_required(view: View) -> View:
    """Let only people who are signed in use ``view``. In an app without accounts, everybody may."""

    @wraps(view)
    def asking(*args: Any, **kwargs: Any) -> Any:
        return visitors().ask_to_sign_in() or current_app.ensure_sync(view)(*args, **kwargs)

    return cast("View", asking)
