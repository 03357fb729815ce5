"""Clients over their limit (8.T2): after the first refusal, they are refused in front of Flask.

The first refusal of a window is an ordinary error page, and one line in the log. Until the window ends, the client gets
a small answer that needs no counter, database, template or log line. A forgotten refusal only costs more: the counters
refuse the client all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from flask import Flask, Request, json

from app import logs
from app.security.bodies import read_the_rest
from app.security.errors import WORDS, wants_problem
from app.security.networks import WIDER, network
from app.visitors import Visitors

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_REFUSALS = 10_000

PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    {reload}<title>{title}</title>
  </head>
  <body>
    <h1>{title}</h1>
    <p>{message}</p>
    <p data-retry-after="{seconds}">Wait {seconds} seconds, then try again.</p>
    <p>If you contact us about this, please include this number: {request_id}</p>
  </body>
</html>
"""


class Counted(NamedTuple):
    """What a request counts for: its kind or its view, whether for the signed-in user, and the text of the limit.

    ``scope`` is two words, so that it is never the name of an endpoint. Flask-Limiter would look up the view of that
    endpoint and its ``__name__``, which a partial does not have. It also does not limit a scope that ends in "static".
    """

    scope: str
    by_user: bool
    limit: str
    kind: str = ""


@dataclass(frozen=True)
class Refused:
    """A limit that was hit: its ``amount`` of requests, when its window ends (seconds since 1970), and what to say."""

    amount: int
    end: float
    message: str

    def seconds(self) -> int:
        """Return the seconds until the window ends."""
        return seconds_until(self.end)

    def headers(self) -> dict[str, str]:
        """Return the headers that state the limit (draft-ietf-httpapi-ratelimit-headers-06)."""
        return {"RateLimit-Limit": str(self.amount), "RateLimit-Remaining": "0", "RateLimit-Reset": str(self.seconds())}


def seconds_until(end: float) -> int:
    """Return the seconds until ``end`` (seconds since 1970), at least 1."""
    return max(1, ceil(end - time.time()))


class Refusals:
    """The refusals whose window has not ended, at most ``MAX_REFUSALS``, in this process."""

    def __init__(self) -> None:
        # network → (what is limited, whose session it was) → refusal
        self._of: dict[str, dict[tuple[str, str | None], Refused]] = {}
        self._added = 0

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, net: str, scope: str, claim: str | None, refused: Refused) -> None:
        """Remember a refusal of the requests from ``net`` for ``scope`` with a session of ``claim``."""
        self._added += 1
        if self._added > MAX_REFUSALS:  # some may have expired, but a flood must not pay for a look at all of them
            self._of, self._added = {}, 1
        self._of.setdefault(net, {})[scope, claim] = refused

    def of(self, nets: Iterable[str]) -> dict[tuple[str, str | None], Refused]:
        """Return the refusals of these networks."""
        found: dict[tuple[str, str | None], Refused] = {}
        for net in nets:
            if kept := self._of.get(net):
                now = time.time()
                live = {what: refused for what, refused in list(kept.items()) if refused.end > now}
                self._of[net] = live
                found |= live
        return found


def claimed(app: Flask, asked: Request) -> str | None:
    """Return whose session the cookie says it is, without asking the database; None for nobody's."""
    if app.config["SESSION_COOKIE_NAME"] not in asked.cookies:
        return None
    try:
        session = app.session_interface.open_session(app, asked)
    except Exception:  # a session storage that fails: it will fail in Flask too, which logs it
        return None
    visitors: Visitors = app.extensions["visitors"]
    return visitors.claim(session or {})


def refuse_early(
    app: Flask, wsgi_app: WSGIApplication, refusals: Refusals, counted_as: Callable[[Flask, Request], Counted]
) -> WSGIApplication:
    """Put the refusals in front of ``wsgi_app``. ``counted_as`` returns what a request counts for."""

    def refusing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        address = environ.get("REMOTE_ADDR", "")
        if known := refusals.of(network(address, prefix) for prefix in (64, *WIDER)):
            context = app.request_context(environ)  # it is not pushed, so no hook runs
            try:
                if context.url_adapter:
                    context.match_request()
            except Exception:  # of a URL converter: Flask handles it
                return wsgi_app(environ, start_response)
            counted = counted_as(app, context.request)
            refused = known.get((counted.scope, claimed(app, context.request) if counted.by_user else None))
            if refused:
                read_the_rest(environ)
                return _answer(context.request, refused, start_response)
        return wsgi_app(environ, start_response)

    return refusing


def _answer(asked: Request, refused: Refused, start_response: StartResponse) -> Iterable[bytes]:
    seconds, request_id = refused.seconds(), logs.request_id.get()
    if wants_problem(asked):
        content_type = "application/problem+json"
        problem = {"title": "Too Many Requests", "status": 429, "detail": refused.message, "request_id": request_id}
        text = json.dumps(problem)
    else:
        content_type = "text/html; charset=utf-8"
        text = PAGE.format(
            title=escape(WORDS[429][0]),
            message=escape(refused.message),
            seconds=seconds,
            request_id=request_id,
            # Only a GET may be sent again without asking.
            reload=f'<meta http-equiv="refresh" content="{seconds}">\n    ' if asked.method == "GET" else "",
        )
    body = text.encode()
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Retry-After": str(seconds),
        "Vary": "Accept",
        **refused.headers(),
    }
    start_response("429 TOO MANY REQUESTS", list(headers.items()))
    return [] if asked.method == "HEAD" else [body]
