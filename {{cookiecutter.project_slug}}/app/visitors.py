"""Who sends a request. Without accounts, the app knows only a session; ``app/accounts`` adds the signed-in user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from flask.typing import ResponseReturnValue

View = TypeVar("View", bound=Callable[..., Any])


class Visitors:
    """What the rest of the app asks about a visitor. These are the answers of an app without accounts."""

    def account_id(self) -> str | None:
        """Return the id of the signed-in account, or None."""
        return None

    def claim(self, session: Mapping[str, Any]) -> str | None:
        """Return a value that identifies the session of an account, without asking the database; None for nobody's."""
        return None

    def account_name(self) -> str | None:
        """Return what the signed-in account signs in with, or None. The log has a digest of it."""
        return None

    def ask_to_sign_in(self) -> ResponseReturnValue | None:
        """Return the response that asks the visitor to sign in, or None if the visitor may continue."""
        return None

    def is_still_here(self) -> bool:
        """Return whether the visitor is still authorized. Long-running views ask again before they act."""
        return True

    def stay_unknown(self) -> None:
        """Keep the rest of this request from asking who the visitor is, if that is not known yet.

        An error page calls this: the question may fail as well, or store one half of what the view has begun.
        """


def init_app(app: Flask) -> None:
    """Treat every visitor as one without an account; ``accounts.init_app`` replaces this."""
    app.extensions["visitors"] = Visitors()


def visitors() -> Visitors:
    """Return the ``Visitors`` of the current app."""
    found: Visitors = current_app.extensions["visitors"]
    return found


def sign_in_required(view: View) -> View:
    """Restrict ``view`` to signed-in users. In an app without accounts, every visitor may use it."""

    @wraps(view)
    def asking(*args: Any, **kwargs: Any) -> Any:
        return visitors().ask_to_sign_in() or current_app.ensure_sync(view)(*args, **kwargs)

    return cast("View", asking)
