"""Who sends a request. Without accounts, the app knows only a session; ``app/accounts`` adds the signed-in user.

With accounts, a view is for signed-in people unless it says ``@public``: a view that forgets to say so is closed.
Source: OWASP Authorization Cheat Sheet (deny by default).
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue
from itsdangerous.encoding import want_bytes

from app.security.declarations import Declared, declare, declared, static_folder

# The name of a declaration: that a view is for everybody.
PUBLIC = "public"


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

    def known_name(self) -> str | None:
        """Return ``account_name`` if this request has asked for it already, else None. It asks no database."""
        return None

    def ask_to_sign_in(self) -> ResponseReturnValue | None:
        """Return the response that asks the visitor to sign in, or None if this request's view is open to them."""
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


def public(target: Declared) -> Declared:
    """Open a view, or all views of a blueprint, to everybody. Without accounts, all views are.

    It accepts functions, ``MethodView`` classes and their methods, partials, callable objects and blueprints.
    """
    return declare(target, PUBLIC, True)


def is_for_members() -> bool:
    """Return whether this request's view is for signed-in people: all but static files and what is ``@public``.

    A request without a view, such as one for an unknown address, gets its error page.
    """
    if request.endpoint is None or declared(PUBLIC, default=False):
        return False
    return not static_folder(current_app, request.endpoint)


def digest(account: str) -> str:
    """Return a keyed hash of an account's name, so that logs and storages hold no e-mail addresses.

    The key is the oldest one that is accepted. A rotation leaves it, so that no guesses at a password are forgotten, by
    which an attacker would get new ones. ``rotate --prune`` changes it, which gives 13 guesses once in each rotation.
    Two accounts must not have the same digest: the owner of one could end the wait for guesses at the other. Only the
    first 1,000 characters count, since it takes seconds to normalize many accents in a row.
    """
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", account[:1000]).strip().lower())
    key = want_bytes(current_app.extensions["oldest_key"])
    return hmac.digest(key, normal.encode(errors="replace"), "sha256").hex()
