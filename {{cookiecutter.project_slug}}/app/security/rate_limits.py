"""Mitigation 8, rate limits: no client can flood the app or guess passwords without bound.

**Limits.** Every request counts against the limit of its route: ``RATELIMIT_DEFAULT``, or the one of a view marked with
``@limited``: a kind of ``LIMITS``, or a limit of its own. Requests are counted before anything else looks at them, so
those that are refused count too: a foreign host, an address that is too long, http, a missing CSRF token, no such page.
A signed-in user is counted by account, any other client by address. ``refusals.py`` answers a client over its limit.

**IPv6.** A client can change the last 64 bits of its address at will, so it is counted by its /64. Many customers have
a /56 or a /48, which are 256 and 65,536 of these; but a /48 may also be a town of phones. So sign-ins, registrations
and resets count for the /56 as well, with 4 times the limits, and for the /48, with 16 times:

=======  ===========================  ============================  ===================================
         sign-ins                     registrations; as many resets  guesses a day: backoff.py
=======  ===========================  ============================  ===================================
/64      20 a minute, 100 an hour     5 a minute, 20 an hour        107: 3 at once, then up to 900 s apart
/56      80 a minute, 400 an hour     20 a minute, 80 an hour       402: 12 at once, then up to 225 s apart
/48      320 a minute, 1600 an hour   80 a minute, 320 an hour      1595: 48 at once, then up to 56 s apart
=======  ===========================  ============================  ===================================

**Backoff.** Attempts at a password have to wait after several wrong ones: see ``app/security/backoff.py``.

**Storage.** ``app/security/counters.py`` holds all counts, and documents what happens when the storage is lost or full.

Source: RFC 6585 (429); draft-ietf-httpapi-ratelimit-headers-06; ASVS 5.0 V2.4.1, V4.1.3, V6.2.4, V6.3.1, V6.3.8,
V15.2.4, V16.5.2.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, cast

from flask import Flask, Request, Response, current_app, g, request
from flask_limiter import Limit, Limiter, RequestLimit
from limits import RateLimitItem, parse_many

from app.security.counters import COUNTED_WIDELY, GuardedStorage
from app.security.declarations import Declared, declare, declared, declared_by, static_folder
from app.security.errors import Refusal, refuse, respond
from app.security.findings import Finding
from app.security.networks import WIDER, client_address
from app.security.refusals import Counted, Refusals, Refused, claimed, refuse_early, seconds_until
from app.visitors import visitors

NUMBER = 8
TITLE = "Rate limiting"
SUMMARY = "Floods and password guessing are slowed down until they are pointless. Owners can always get in."

# The POST, PUT, PATCH and DELETE requests that a view marked with @limited(kind) accepts from one client.
LIMITS: dict[str, str] = {
    "sign_in": "20 per minute; 100 per hour",
    "register": "5 per minute; 20 per hour",
    "reset": "5 per minute; 20 per hour",
    "upload": "30 per minute; 300 per hour",
    "csp_report": "60 per minute",
}
# Static files are cheap to serve, a page needs several of them, and many clients may share an address.
STATIC_LIMIT = "1200 per minute"

# The names of declarations: the kind or the text of a view's limit, and the reason why nothing limits a view.
KIND = "limited_as"
UNLIMITED = "unlimited"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def limited(limit: str) -> Callable[[Declared], Declared]:
    """Apply a limit to a view, or to each view of a blueprint, instead of the default.

    ``limit`` is a kind of ``LIMITS``: then views of the same kind share it, and it counts POST, PUT, PATCH and DELETE.
    Or it is the limit itself, such as ``"10 per minute; 100 per day"``: then each view has its own, and it counts every
    request, by account or by address as the default does. Where somebody could guess, use a kind: those count by
    address, which the guesser's own accounts don't multiply. Raises ValueError for anything else.
    """
    if limit not in LIMITS:
        try:
            fine = all(part.amount for part in parse_many(limit))
        except ValueError:
            fine = False
        if not fine:
            kinds = ", ".join(LIMITS)
            raise ValueError(f"{limit!r} is not one of {kinds}, and no limit such as '10 per minute; 100 per day'.")
    return lambda target: declare(target, KIND, limit)


def unlimited(reason: str) -> Callable[[Declared], Declared]:
    """Exempt a view from all limits, for ``reason``, which the audit shows."""
    if not reason.strip():
        raise ValueError("A view without a limit needs a reason.")
    return lambda view: declare(view, UNLIMITED, reason)


def counted_as(app: Flask, asked: Request) -> Counted:
    """Return what ``asked`` counts for.

    Kinds other than ``upload`` always count for the address: an attacker's own accounts must not multiply the guesses
    at the accounts of others.
    """
    limit: str = declared_by(app, asked.endpoint, asked.method, KIND, "", inherited=True)
    if limit in LIMITS and asked.method not in SAFE_METHODS:
        return Counted(f"each {limit}", limit == "upload", LIMITS[limit], limit)
    if limit and limit not in LIMITS:
        return Counted(f"{asked.endpoint} {limit}", True, limit)
    if static_folder(app, asked.endpoint):
        return Counted("each file", False, STATIC_LIMIT)
    return Counted(f"{asked.endpoint} default", True, str(app.config["RATELIMIT_DEFAULT"]))


def _counted() -> Counted:
    """Return what this request counts for. It is looked up once."""
    if "counted_as" not in g:
        g.counted_as = counted_as(current_app, request)
    return cast("Counted", g.counted_as)


def client_key() -> str:
    """Return the key that a request counts for: the signed-in user, else the client's address."""
    if "client_key" not in g:  # each window of a limit asks
        user = visitors().account_id() if _counted().by_user else None
        g.client_key = f"user {user}" if user else client_address()
    return cast("str", g.client_key)


def _is_unlimited() -> bool:
    return bool(declared(UNLIMITED))


def _refuse(over: RequestLimit) -> NoReturn:
    """Refuse a client's first request over its limit; until the window ends, ``refusals.py`` refuses the others."""
    counted = _counted()
    own, *wider = (client_address(prefix) for prefix in (64, *WIDER))
    hit = next((net for net in wider if over.key == over.limit.key_for(net, counted.scope)), own)
    of_whom = "requests" if hit == own else "requests from your network"
    refused = Refused(over.limit.amount, over.window[0], f"There were too many {of_whom}. Please wait a little.")
    claim = claimed(current_app, request) if counted.by_user else None
    # A user who is known without a session looks like any other client of the address from outside.
    if not counted.by_user or claim or not visitors().account_id():
        current_app.extensions["refusals"].add(hit, counted.scope, claim, refused)
    refuse(429, refused.message, retry_after=refused.seconds(), limit=over.limit)


limiter = Limiter(
    client_key,
    default_limits=[Limit(lambda: _counted().limit, exempt_when=_is_unlimited)],
    request_identifier=lambda: _counted().scope,
    on_breach=_refuse,
    storage_uri=f"{GuardedStorage.STORAGE_SCHEME[0]}://",
    # Flask-Limiter's own headers include Retry-After on every response, and a date where the draft has seconds.
    headers_enabled=False,
)


def init_app(app: Flask) -> None:
    """Count every request, in the storage ``RATELIMIT_STORAGE_URI``."""
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"counters_uri": app.config["RATELIMIT_STORAGE_URI"]}
    app.config["RATELIMIT_STRATEGY"] = "fixed-window"  # one number per client; the other strategies store more
    app.extensions["refusals"] = Refusals()
    app.wsgi_app = refuse_early(app, app.wsgi_app, app.extensions["refusals"], counted_as)  # type: ignore[method-assign, assignment]
    app.before_request(_begin)
    limiter.init_app(app)
    app.before_request(_count_networks)
    app.after_request(_tell_limit)
    app.after_request(_count_late)
    logging.getLogger("flask-limiter").setLevel(logging.WARNING)  # it repeats each refusal


def check(app: Flask) -> Iterator[Finding]:
    """Report several workers without a shared storage, which multiply the limits."""
    in_memory = app.config["RATELIMIT_STORAGE_URI"] == "memory://"
    if in_memory and os.environ.get("WEB_CONCURRENCY", "1") not in ("", "1"):
        evidence = "Each worker (WEB_CONCURRENCY) counts on its own: a client gets that many times the limits."
        yield Finding("RL02", "missing", evidence, "Set RATELIMIT_STORAGE_URI to a Redis, or run one worker.")


def _begin() -> None:
    """Note that Flask-Limiter's hook, which comes next, counts this request."""
    for name in ("client_key", "counted_as", "over_limit"):  # of an earlier one, if code makes several in one context
        g.pop(name, None)
    g.counted = True


def _count_networks() -> None:
    """Count a request of the kinds in ``COUNTED_WIDELY`` for the wider networks of its client too."""
    if (counted := _counted()).kind in COUNTED_WIDELY and not _is_unlimited():
        for prefix, times in WIDER.items():
            if net := client_address(prefix):
                _hit((type(one)(one.amount * times, one.multiples) for one in parse_many(counted.limit)), net)


def _hit(items: Iterable[RateLimitItem], key: str) -> None:
    """Count a request for ``key`` in each of ``items``. Raises Refusal over one of them."""
    for item in items if limiter.enabled else ():  # a team's tests may turn it off
        names = [key, _counted().scope]
        if not limiter.limiter.hit(item, *names):
            g.over_limit = RequestLimit(limiter, item, names, True, False)
            _refuse(g.over_limit)


def _count_late(response: Response) -> Response:
    """Count, by address, a request that was refused before ``_begin``: by a ``url_value_preprocessor``."""
    if g.get("counted") or _is_unlimited():
        return response
    try:
        _hit(parse_many(_counted().limit), client_address())
        _count_networks()
    except Refusal as refusal:
        return respond(refusal)
    return response


def _tell_limit(response: Response) -> Response:
    if limit := g.get("over_limit") or limiter.current_limit:
        count, end = cast("GuardedStorage", limiter.storage).counted(limit.key)
        response.headers["RateLimit-Limit"] = str(limit.limit.amount)
        response.headers["RateLimit-Remaining"] = str(max(limit.limit.amount - count, 0))
        response.headers["RateLimit-Reset"] = str(seconds_until(end))
    return response
