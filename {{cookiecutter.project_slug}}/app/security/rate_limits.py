"""Mitigation 8, rate limits: no client can flood the app or guess passwords without bound.

**Limits.** Every request counts against the limit of its route: ``RATELIMIT_DEFAULT``, or a stricter one from
``LIMITS`` for views marked with ``@limited(kind)``. Requests are counted before any other check, so 404s, static files
and requests that fail the CSRF check count too. A signed-in user is counted by account, any other client by address.

**Backoff.** A password attempt has to wait 0, 0, 0, then 1, 2, 4 … up to 900 seconds, per account and per address,
whether the account exists or not. Attempt 3 + k is possible 2^k - 1 seconds after the first, attempt 13 after 1023
seconds, each later one after another 900. So **107 attempts a day** are possible at one account from all addresses
together, and as many from one address at all accounts together.

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
draft-ietf-httpapi-ratelimit-headers-06; ASVS 5.0 V2.4.1, V6.1.1, V6.3.1.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Any, Literal, NoReturn, TypeVar

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter, RequestLimit

from app.security.counters import GuardedStorage
from app.security.declarations import declare, declared
from app.security.errors import refuse
from app.security.findings import Finding
from app.visitors import visitors

NUMBER = 8
TITLE = "Rate limiting"
SUMMARY = "Floods and password guessing are slowed down until they are pointless, without locking anyone out."

Kind = Literal["sign_in", "register", "reset", "upload", "csp_report"]

# The POST, PUT, PATCH and DELETE requests that a view marked with @limited(kind) accepts from one client.
LIMITS: dict[Kind, str] = {
    "sign_in": "20 per minute; 100 per hour",
    "register": "5 per minute; 20 per hour",
    "reset": "5 per minute; 20 per hour",
    "upload": "30 per minute; 300 per hour",
    "csp_report": "60 per minute",
}
# Static files are cheap to serve, a page needs several of them, and many clients may share an address.
STATIC_LIMIT = "1200 per minute"

# The names of declarations: the kind of a stricter limit, and the reason why nothing limits a view.
KIND = "limited_as"
UNLIMITED = "unlimited"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

FREE_TRIES = 3
MAX_WAIT = 900  # seconds
DAY = 86_400  # seconds
KNOWN_FOR = 30 * DAY

View = TypeVar("View", bound=Callable[..., Any])


def limited(kind: Kind) -> Callable[[View], View]:
    """Apply the stricter limit ``LIMITS[kind]`` to a view; views of the same kind share it."""
    if kind not in LIMITS:
        raise ValueError(f"{kind!r} is not one of {', '.join(LIMITS)}.")
    return lambda view: declare(view, KIND, kind)


def unlimited(reason: str) -> Callable[[View], View]:
    """Exempt a view from all limits, for ``reason``, which the audit shows."""
    if not reason.strip():
        raise ValueError("A view without a limit needs a reason.")
    return lambda view: declare(view, UNLIMITED, reason)


def network(address: str) -> str:
    """Return the address as the limits count it: IPv6 by /64, since a client can change the rest (RFC 8981)."""
    # Some proxies add the port: 192.0.2.1:4711 and [2001:db8::1]:4711.
    address = re.sub(r"^\[(.*)\](:\d+)?$|^([\d.]+):\d+$", r"\1\3", address)
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"  # never empty: Flask-Limiter would not count such a client at all
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(getattr(parsed, "ipv4_mapped", parsed))


def client_address() -> str:
    """Return the client's address as the limits count it.

    It comes from ``remote_addr`` alone, which trusts as many proxies as ``TRUSTED_PROXY_HOPS`` says.
    """
    return network(request.remote_addr or "")


def client_key() -> str:
    """Return the key that a request counts for: the signed-in user, else the client's address.

    Kinds other than ``upload`` always count the address: an attacker's own accounts must not multiply the
    guesses at the accounts of others.
    """
    user = None if _kind() not in (None, "upload") or _is_file() else visitors().account_id()
    return f"user {user}" if user else client_address()


def _kind() -> Kind | None:
    kind: Kind | None = None if request.method in SAFE_METHODS else declared(KIND, inherited=True)
    return kind


def _limit() -> str:
    kind = _kind()
    if kind:
        return LIMITS[kind]
    return STATIC_LIMIT if _is_file() else str(current_app.config["RATELIMIT_DEFAULT"])


def _scope() -> str:
    # Flask-Limiter does not limit requests without an endpoint, or with the endpoint "static".
    return _kind() or ("files" if _is_file() else request.endpoint or "no route")


def _is_file() -> bool:
    return (request.endpoint or "").split(".")[-1] == "static"


def _refuse(limit: RequestLimit) -> NoReturn:
    wait = _seconds_until(limit.window[0])
    # A flood must not fill the log: the first refusal is an event, the others until the window ends are not logged.
    is_first = limiter.storage.incr(f"{limit.key}/refused", wait) == 1
    event = "" if is_first else None
    refuse(429, "There were too many requests. Please wait a little.", retry_after=wait, event=event, limit=limit.limit)


limiter = Limiter(
    client_key,
    default_limits=[_limit],
    default_limits_exempt_when=lambda: bool(declared(UNLIMITED)),
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
    limiter.init_app(app)
    app.after_request(_tell_limit)
    logging.getLogger("flask-limiter").setLevel(logging.WARNING)  # it repeats each refusal


def check(app: Flask) -> Iterator[Finding]:
    """Report several workers without a shared storage, which multiply the limits."""
    in_memory = app.config["RATELIMIT_STORAGE_URI"] == "memory://"
    if in_memory and os.environ.get("WEB_CONCURRENCY", "1") not in ("", "1"):
        evidence = "Each worker (WEB_CONCURRENCY) counts on its own: a client gets that many times the limits."
        yield Finding("RL02", "missing", evidence, "Set RATELIMIT_STORAGE_URI to a Redis, or run one worker.")


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

    def __init__(self, name: str) -> None:
        self.free, self.wait, self.step = f"{name}/free", f"{name}/wait", f"{name}/step"

    def waits(self) -> int:
        """Return the seconds until the next guess is possible; 0 if it is possible now."""
        storage = limiter.storage
        return _seconds_until(storage.get_expiry(self.wait)) if storage.get(self.wait) else 0

    def claim(self) -> int:
        """Count one guess and return 0; if it has to wait, return the seconds instead."""
        storage = limiter.storage
        # The last free guess does not wait, but it starts the first wait.
        if storage.get(self.free) < FREE_TRIES - 1 and storage.incr(self.free, DAY) < FREE_TRIES:
            return 0
        if storage.incr(self.wait, min(2 ** storage.get(self.step), MAX_WAIT)) > 1:
            return self.waits() or 1
        storage.incr(self.step, DAY)
        return 0

    def left(self) -> int:
        """Return the number of guesses left before the first wait."""
        storage = limiter.storage
        return max(0, FREE_TRIES - min(storage.get(self.free), FREE_TRIES - 1) - storage.get(self.step))

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
    for backoff in reversed(backoffs):  # the address first: a guess that it refuses must not count for the account
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
    return [_Backoff(f"account/{digest(account)}"), _Backoff(f"address/{client_address()}")]


def _counted_for(key: str) -> int:
    """Return a count in the client's favour, which a flood must not increase by filling the memory."""
    storage: GuardedStorage = limiter.storage  # type: ignore[assignment]
    return storage.get_own(key)


def _pair(account: str) -> str:
    return f"pair/{client_address()}/{digest(account)}"


def digest(account: str) -> str:
    """Return a keyed hash of the account's name, so that the storage holds no e-mail addresses."""
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", account).strip().casefold())
    return hmac.digest(current_app.config["SECRET_KEY"].encode(), normal.encode(errors="replace"), "sha256").hex()
