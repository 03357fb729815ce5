"""Mitigation 8, rate limits: no client can flood the app or guess passwords without bound.

**Limits.** Every request counts against the limit of its route: ``RATELIMIT_DEFAULT``, or the one of a view marked with
``@limited``: a kind of ``LIMITS``, or a limit of its own. Requests are counted before anything else looks at them, so
those that are refused count too: a foreign host, an address that is too long, http, a missing CSRF token, no such page.
A signed-in user is counted by account, any other client by address. ``refusals.py`` answers a client over its limit.

**IPv6.** A client can change the last 64 bits of its address at will, so it is counted by its /64. Many customers have
a /56 or a /48, which are 256 and 65,536 of these; but a /48 may also be a town of phones. So sign-ins, registrations
and resets count for the /56 as well, with 4 times the limits, and for the /48, with 16 times:

=======  ===========================  ============================  ===================================
         sign-ins                     registrations; as many resets  guesses a day (see below)
=======  ===========================  ============================  ===================================
/64      20 a minute, 100 an hour     5 a minute, 20 an hour        107: 3 at once, then up to 900 s apart
/56      80 a minute, 400 an hour     20 a minute, 80 an hour       402: 12 at once, then up to 225 s apart
/48      320 a minute, 1600 an hour   80 a minute, 320 an hour      1595: 48 at once, then up to 56 s apart
=======  ===========================  ============================  ===================================

**Backoff.** A password attempt has to wait 0, 0, 0, then 1, 2, 4 … up to 900 seconds, per account and per address,
whether the account exists or not. Attempt 3 + k is possible 2^k - 1 seconds after the first, attempt 13 after 1023
seconds, each later one after another 900. So **107 attempts a day** are possible at one account from all addresses
together, and as many from one address (an IPv4 address or an IPv6 /64) at all accounts together. A /56 has 12 free
attempts, then waits of 1, 2, 4 … 128, 225, 225 … seconds: attempt 20 is possible after 255 seconds, and one more every
225, 402 a day. A /48 has 48, then 1, 2, 4 … 32, 56, 56 …: attempt 54 after 63 seconds, one more every 56, 1595 a day.
An attacker with a network in a /48 can use up its guesses. Then people in it sign in from addresses that they have used
before, or reset the password by mail.

- A refused attempt changes nothing: it extends no wait. After the wait the right password works and ends the backoff.
- A success clears the account's backoff. The address gets back only its failures at this account, so an attacker who
  tries a list of stolen passwords can't reset the count by signing in to an account of his own.
- An address with a successful sign-in to an account in the last 30 days has a separate backoff for that account
  (another 107 attempts a day) and ignores the two others: an attacker who keeps an account waiting doesn't lock its
  owner out. From a new address, the owner can reset the password by mail, which counts as a success. The separate
  backoff reveals that the account is used at this address, but only to clients behind the same address.

An app without accounts uses the backoff in its own sign-in: see ``claim_attempt``.

**Storage.** ``app/security/counters.py`` holds all counts, and documents what happens when the storage is lost or full.

Source: OWASP Authentication Cheat Sheet (login throttling), OWASP Blocking Brute Force Attacks; RFC 6585 (429);
draft-ietf-httpapi-ratelimit-headers-06; ASVS 5.0 V2.4.1, V4.1.3, V6.2.4, V6.3.1, V6.3.8, V15.2.4, V16.5.2.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import NoReturn

from flask import Flask, Request, Response, current_app, g, request
from flask_limiter import Limit, Limiter, RequestLimit
from itsdangerous.encoding import want_bytes
from limits import parse_many

from app.security.counters import GuardedStorage
from app.security.declarations import Declared, declare, declared, declared_by
from app.security.errors import Refusal, refuse, respond
from app.security.findings import Finding
from app.security.networks import WIDER, network
from app.security.refusals import Refusals, Refused, claimed, door
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
# The kinds that count for the networks in networks.WIDER too.
COUNTED_WIDELY = ("sign_in", "register", "reset")
# Static files are cheap to serve, a page needs several of them, and many clients may share an address.
STATIC_LIMIT = "1200 per minute"

# The names of declarations: the kind or the text of a view's limit, and the reason why nothing limits a view.
KIND = "limited_as"
UNLIMITED = "unlimited"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

FREE_TRIES = 3
MAX_WAIT = 900  # seconds
DAY = 86_400  # seconds
KNOWN_FOR = 30 * DAY


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


def client_address(prefix: int = 64) -> str:
    """Return the client's address as the limits count it, or the wider network with ``prefix`` bits; see ``network``.

    It comes from ``remote_addr`` alone, which trusts as many proxies as ``TRUSTED_PROXY_HOPS`` says.
    """
    return network(request.remote_addr or "", prefix)


def client_key() -> str:
    """Return the key that a request counts for: the signed-in user, else the client's address.

    Kinds other than ``upload`` always count the address: an attacker's own accounts must not multiply the
    guesses at the accounts of others.
    """
    user = visitors().account_id() if _limit_of(current_app, request)[1] else None
    return f"user {user}" if user else client_address()


def _limit_of(app: Flask, asked: Request) -> tuple[str, bool]:
    """Return what a request counts for (its kind, or its view), and whether it counts for the signed-in user."""
    declared_limit = _declared_limit(app, asked)
    if declared_limit in LIMITS:
        return declared_limit, declared_limit == "upload"
    if declared_limit:
        return f"{asked.endpoint} {declared_limit}", True
    # Flask-Limiter does not limit requests without an endpoint, or with the endpoint "static".
    return ("files", False) if _is_file(asked) else (asked.endpoint or "no route", True)


def _declared_limit(app: Flask, asked: Request) -> str:
    limit: str = declared_by(app, asked.endpoint, asked.method, KIND, "", inherited=True)
    return "" if limit in LIMITS and asked.method in SAFE_METHODS else limit


def _is_file(asked: Request) -> bool:
    return (asked.endpoint or "").split(".")[-1] == "static"


def _scope() -> str:
    return _limit_of(current_app, request)[0]


def _limit() -> str:
    if limit := _declared_limit(current_app, request):
        return LIMITS.get(limit, limit)
    return STATIC_LIMIT if _is_file(request) else str(current_app.config["RATELIMIT_DEFAULT"])


def _wider_limit(prefix: int) -> str:
    """Return the limit of the client's network with ``prefix`` bits, or nothing if it has none."""
    kind = _declared_limit(current_app, request)
    if kind not in COUNTED_WIDELY or not client_address(prefix):
        return ""
    return "; ".join(str(type(one)(one.amount * WIDER[prefix], one.multiples)) for one in parse_many(LIMITS[kind]))


def _is_unlimited() -> bool:
    return bool(declared(UNLIMITED))


# The limits of the wider networks, and their keys.
_WIDER: tuple[tuple[Callable[[], str], Callable[[], str]], ...] = tuple(
    (partial(_wider_limit, prefix), partial(client_address, prefix)) for prefix in WIDER
)


def _refuse(over: RequestLimit) -> NoReturn:
    """Refuse a client's first request over its limit; until the window ends, ``refusals.py`` refuses the others."""
    scope, counts_users = _limit_of(current_app, request)
    own, *wider = (client_address(prefix) for prefix in (64, *WIDER))
    hit = next((net for net in wider if over.key == over.limit.key_for(net, scope)), own)
    of_whom = "requests" if hit == own else "requests from your network"
    refused = Refused(over.limit.amount, over.window[0], f"There were too many {of_whom}. Please wait a little.")
    claim = claimed(current_app, request) if counts_users else None
    # A user who is known without a session looks like any other client of the address from outside.
    if not counts_users or claim or not visitors().account_id():
        current_app.extensions["refusals"].add(hit, scope, claim, refused)
    refuse(429, refused.message, retry_after=refused.seconds(), limit=over.limit)


limiter = Limiter(
    client_key,
    default_limits=[
        Limit(limit, key_function=key, exempt_when=_is_unlimited) for limit, key in ((_limit, client_key), *_WIDER)
    ],
    request_identifier=_scope,
    on_breach=_refuse,
    storage_uri="guarded://",
    # Flask-Limiter's own headers include Retry-After on every response, and a date where the draft has seconds.
    headers_enabled=False,
)


def init_app(app: Flask) -> None:
    """Count every request, in the storage ``RATELIMIT_STORAGE_URI``."""
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"counters_uri": app.config["RATELIMIT_STORAGE_URI"]}
    app.config["RATELIMIT_STRATEGY"] = "fixed-window"  # one number per client; the other strategies store more
    app.extensions["refusals"] = Refusals()
    app.wsgi_app = door(app, app.wsgi_app, app.extensions["refusals"], _limit_of)  # type: ignore[method-assign, assignment]
    app.before_request(_begin)
    limiter.init_app(app)
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
    g.counted = True


def _count_late(response: Response) -> Response:
    """Count, by address, a request that was refused before that hook ran: by a ``url_value_preprocessor``."""
    if g.get("counted") or _is_unlimited():
        return response
    for limit, key in ((_limit, client_address), *_WIDER):
        for item in parse_many(text) if (text := limit()) else ():
            names = [key(), _scope()]
            if not limiter.limiter.hit(item, *names):
                try:
                    _refuse(RequestLimit(limiter, item, names, True, False))
                except Refusal as refusal:
                    return respond(refusal)
    return response


def _tell_limit(response: Response) -> Response:
    limit = limiter.current_limit
    if limit:
        response.headers["RateLimit-Limit"] = str(limit.limit.amount)
        response.headers["RateLimit-Remaining"] = str(limit.remaining)
        response.headers["RateLimit-Reset"] = str(_seconds_until(limit.window[0]))
    return response


def _seconds_until(end: float) -> int:
    return max(1, ceil(end - time.time()))


class _Backoff:
    """The guesses at one account, from one address, or of a pair of both.

    The free guesses have a counter of their own, since they may arrive at the same time. Of those that have to wait,
    only one gets through: the one that creates the key ``wait``. The key expires when the next guess may come.
    """

    def __init__(self, name: str, times: int = 1) -> None:
        self.free, self.wait, self.step = f"{name}/free", f"{name}/wait", f"{name}/step"
        self.free_tries, self.max_wait = FREE_TRIES * times, MAX_WAIT // times

    def waits(self) -> int:
        """Return the seconds until the next guess is possible; 0 if it is possible now."""
        storage = limiter.storage
        return _seconds_until(storage.get_expiry(self.wait)) if storage.get(self.wait) else 0

    def claim(self) -> int:
        """Count one guess and return 0; if it has to wait, return the seconds instead."""
        storage = limiter.storage
        # The last free guess does not wait, but it starts the first wait.
        if storage.get(self.free) < self.free_tries - 1 and storage.incr(self.free, DAY) < self.free_tries:
            return 0
        if storage.incr(self.wait, min(2 ** storage.get(self.step), self.max_wait)) > 1:
            return self.waits() or 1
        storage.incr(self.step, DAY)
        return 0

    def left(self) -> int:
        """Return the number of guesses left before the first wait."""
        storage = limiter.storage
        return max(0, self.free_tries - min(storage.get(self.free), self.free_tries - 1) - storage.get(self.step))

    def give_back(self, guesses: int) -> None:
        """Undo some guesses, beginning with those that had to wait."""
        storage = limiter.storage
        for key in (self.step, self.free):
            back = min(guesses, storage.get(key))
            if back:
                storage.incr(key, DAY, -back)
            guesses -= back
        if not storage.get(self.step):
            storage.clear(self.wait)

    def clear(self) -> None:
        """Undo all guesses."""
        for key in (self.free, self.wait, self.step):
            limiter.storage.clear(key)


def claim_attempt(account: str) -> None:
    """Count one guess at the account, before its password is verified. Raises a 429 if it has to wait.

    ``account`` is the identifier as it was submitted, of an account that exists or not.
    """
    backoffs = _backoffs(account)
    wait = max(backoff.waits() for backoff in backoffs)
    of_account, *of_networks = backoffs
    for backoff in (*of_networks, of_account):  # the narrowest first: what it refuses must not count for the others
        wait = wait or backoff.claim()
    if wait:
        message = "There were several wrong passwords. Please wait before the next try."
        refuse(429, message, retry_after=wait, event="authn_login_lock", account=account)
    limiter.storage.incr(f"{_pair(account)}/guesses", DAY)


def attempt_succeeded(account: str) -> None:
    """End the backoff after the right password or a reset by mail, and remember the address for 30 days."""
    storage, pair = limiter.storage, _pair(account)
    own, *address = _backoffs(account)
    own.clear()
    for backoff in address:
        backoff.give_back(_counted_for(f"{pair}/guesses"))
    storage.clear(f"{pair}/guesses")
    storage.clear(f"{pair}/known")  # the 30 days start again with each success
    storage.incr(f"{pair}/known", KNOWN_FOR)


def remaining_tries(account: str) -> int:
    """Return the guesses left before the first wait, whether the account exists or not."""
    return min(backoff.left() for backoff in _backoffs(account))


def _backoffs(account: str) -> list[_Backoff]:
    pair = _pair(account)
    if _counted_for(f"{pair}/known"):
        return [_Backoff(pair)]
    networks = {client_address(prefix): times for prefix, times in {64: 1, **WIDER}.items()}
    addresses = [_Backoff(f"address/{net}", times) for net, times in networks.items() if net]
    return [_Backoff(f"account/{digest(account)}"), *addresses]


def _counted_for(key: str) -> int:
    """Return a count in the client's favour, which a flood must not increase by filling the memory."""
    storage: GuardedStorage = limiter.storage  # type: ignore[assignment]
    return storage.get_own(key)


def _pair(account: str) -> str:
    return f"pair/{client_address()}/{digest(account)}"


def digest(account: str) -> str:
    """Return a keyed hash of the account's name, so that the storage holds no e-mail addresses."""
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", account).strip().casefold())
    return hmac.digest(want_bytes(current_app.config["SECRET_KEY"]), normal.encode(errors="replace"), "sha256").hex()
