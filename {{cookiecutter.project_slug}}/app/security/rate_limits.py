"""Mitigation 8, rate limits: nobody gets more of the app, or more guesses at a password, than people need.

**Limits.** Every request counts against the limit of its route: ``RATELIMIT_DEFAULT``, or a stricter one out of
``LIMITS`` for views marked with ``@limited(kind)``. It counts before anything else looks at it, so requests that fail
CSRF, 404s and static files count too. Who asks is the signed-in user, else the client address.

**Backoff.** Guesses at a password wait for 0, 0, 0, then 1, 2, 4 … up to 900 seconds, per account and per address,
whether the account exists or not. Guess 3 + k comes 2^k - 1 seconds after the first, guess 13 after 1023 seconds, each
later one after another 900: **107 guesses a day** get through at one account, from all addresses together, and as many
from one address at all accounts together.

- A refused guess changes nothing: it lengthens no wait. After the wait the right password works, and ends the backoff.
- Success clears the account; the address gets back only what it failed at this very account. Who tries a list of
  stolen passwords can't wash that clean by signing in to an account of his own now and then.
- An address from which somebody signed in to an account within 30 days has a backoff of its own for that account
  (another 107 guesses a day), and ignores the two others: strangers who keep an account waiting don't hold up its
  owner. From a new address, a password reset by mail opens the way, since it counts as a success. What a neighbour
  behind the same address can learn from it is that somebody there has signed in to the account; nobody else can.

In an app without accounts the backoff waits for a sign-in of your own: see ``claim_attempt``.

**Memory.** All this is counted in ``app/security/counters.py``, which also says what happens when that place is lost
or full.

Source: OWASP Authentication Cheat Sheet (login throttling), OWASP Blocking Brute Force Attacks; RFC 6585 (429);
draft-ietf-httpapi-ratelimit-headers-06; ASVS 5.0 V2.4.1, V6.1.1, V6.3.1.
"""

from __future__ import annotations

import hmac
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
from app.security.errors import refuse
from app.security.findings import Finding
from app.security.policy import declare, declared
from app.visitors import visitors

NUMBER = 8
TITLE = "Rate limiting"
SUMMARY = "Floods and guessing are slowed down until they are not worth it, without locking anybody out."

Kind = Literal["sign_in", "register", "reset", "upload", "csp_report"]

# What a view that is marked with @limited(kind) takes of POST, PUT, PATCH and DELETE from one client.
LIMITS: dict[Kind, str] = {
    "sign_in": "20 per minute; 100 per hour",
    "register": "5 per minute; 20 per hour",
    "reset": "5 per minute; 20 per hour",
    "upload": "30 per minute; 300 per hour",
    "csp_report": "60 per minute",
}
# Files need no more than a read, a page needs several of them, and many people may share an address.
STATIC_LIMIT = "1200 per minute"

# The attributes in which a view keeps its kind, and the reason why nothing limits it.
KIND = "limited_as"
UNLIMITED = "unlimited"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

FREE_TRIES = 3
MAX_WAIT = 900  # seconds
DAY = 86_400  # seconds
KNOWN_FOR = 30 * DAY

View = TypeVar("View", bound=Callable[..., Any])


def limited(kind: Kind) -> Callable[[View], View]:
    """Give a view the stricter limit ``LIMITS[kind]``; views of the same kind share it."""
    return lambda view: declare(view, KIND, kind)


def unlimited(reason: str) -> Callable[[View], View]:
    """Let anybody call a view as often as they like, for ``reason``."""
    return lambda view: declare(view, UNLIMITED, reason)


def network(address: str) -> str:
    """Give an address as limits count it: IPv6 without its last 64 bits, which a client changes at will (RFC 8981)."""
    # Some proxies name the port as well: 192.0.2.1:4711 and [2001:db8::1]:4711.
    address = re.sub(r"^\[(.*)\](:\d+)?$|^([\d.]+):\d+$", r"\1\3", address)
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"  # never empty: Flask-Limiter would not count it at all
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(getattr(parsed, "ipv4_mapped", parsed))


def client_address() -> str:
    """Give the client's address as limits count it.

    It comes from ``remote_addr`` alone, which believes a proxy only as far as ``TRUSTED_PROXY_HOPS`` says.
    """
    return network(request.remote_addr or "")


def client_key() -> str:
    """Give who a request counts for: the signed-in user, else the client's address.

    Where there is no reason to be signed in, it is always the address: a handful of accounts of one's own must not
    multiply the guesses at the accounts of others.
    """
    user = None if _kind() not in (None, "upload") or _is_file() else visitors().account_id()
    return f"user {user}" if user else client_address()


def _kind() -> Kind | None:
    kind: Kind | None = None if request.method in SAFE_METHODS else declared(KIND)
    return kind


def _limit() -> str:
    kind = _kind()
    if kind:
        return LIMITS[kind]
    return STATIC_LIMIT if _is_file() else str(current_app.config["RATELIMIT_DEFAULT"])


def _scope() -> str:
    # Flask-Limiter never limits what has no endpoint, or one named "static".
    return _kind() or ("files" if _is_file() else request.endpoint or "no route")


def _is_file() -> bool:
    return (request.endpoint or "").split(".")[-1] == "static"


def _refuse(limit: RequestLimit) -> NoReturn:
    refuse(429, "There were too many requests. Please wait a little.", retry_after=_seconds_until(limit.window[0]))


limiter = Limiter(
    client_key,
    default_limits=[_limit],
    default_limits_exempt_when=lambda: bool(declared(UNLIMITED)),
    request_identifier=_scope,
    on_breach=_refuse,
    storage_uri="guarded://",
    # Its own headers put Retry-After on every response, and a date where the draft has seconds.
    headers_enabled=False,
)


def init_app(app: Flask) -> None:
    """Count every request, in the storage that the settings name."""
    app.config["RATELIMIT_STORAGE_OPTIONS"] = {"counters_uri": app.config["RATELIMIT_STORAGE_URI"]}
    app.config["RATELIMIT_STRATEGY"] = "fixed-window"  # one number a client; the others keep a time for every request
    limiter.init_app(app)
    app.after_request(_tell_limit)


def check(app: Flask) -> Iterator[Finding]:
    """State where requests are counted, if that weakens the limits."""
    in_memory = app.config["RATELIMIT_STORAGE_URI"] == "memory://"
    if in_memory and os.environ.get("WEB_CONCURRENCY", "1") not in ("", "1"):
        evidence = "Several workers (WEB_CONCURRENCY) count on their own: a client gets that many times the limits."
        yield Finding("RL01", "missing", evidence, "Set RATELIMIT_STORAGE_URI to a Redis, or run one worker.")


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
    """The guesses of one account, address or pair of both.

    The free ones are counted apart, since many may come at the same moment. Of those that have to wait only one gets
    through at a time: whoever makes the key ``wait`` anew. It lasts until the next may come.
    """

    def __init__(self, name: str) -> None:
        self.free, self.wait, self.step = f"{name}/free", f"{name}/wait", f"{name}/step"

    def waits(self) -> int:
        """Give the seconds until a guess may come; 0 for now."""
        storage = limiter.storage
        return _seconds_until(storage.get_expiry(self.wait)) if storage.get(self.wait) else 0

    def claim(self) -> int:
        """Take one guess and give 0, else give the seconds until one may come."""
        storage = limiter.storage
        # The last of the free ones has not waited, but starts the first wait.
        if storage.get(self.free) < FREE_TRIES - 1 and storage.incr(self.free, DAY) < FREE_TRIES:
            return 0
        if storage.incr(self.wait, min(2 ** storage.get(self.step), MAX_WAIT)) > 1:
            return self.waits() or 1
        storage.incr(self.step, DAY)
        return 0

    def left(self) -> int:
        """Give the number of guesses that need no wait."""
        storage = limiter.storage
        return max(0, FREE_TRIES - min(storage.get(self.free), FREE_TRIES - 1) - storage.get(self.step))

    def give_back(self, guesses: int) -> None:
        """Undo some guesses, those that had to wait first."""
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
    """Take one guess at the account, before its password is verified; raise the 429 when it has to wait.

    ``account`` is the identifier as it was submitted, of an account that exists or not.
    """
    backoffs = _backoffs(account)
    wait = max(backoff.waits() for backoff in backoffs)
    for backoff in reversed(backoffs):  # the address first: what it refuses must not cost the account a guess
        wait = wait or backoff.claim()
    if wait:
        refuse(429, "There were several wrong passwords. Please wait before the next try.", retry_after=wait)
    limiter.storage.incr(f"{_pair(account)}/guesses", DAY)


def attempt_succeeded(account: str) -> None:
    """End the backoff, after the right password or a password reset by mail; the address is known from now on."""
    storage, pair = limiter.storage, _pair(account)
    own, *address = _backoffs(account)
    own.clear()
    for backoff in address:
        backoff.give_back(_counted_for(f"{pair}/guesses"))
    storage.clear(f"{pair}/guesses")
    storage.clear(f"{pair}/known")  # its 30 days run from the last time
    storage.incr(f"{pair}/known", KNOWN_FOR)


def remaining_tries(account: str) -> int:
    """Give how many guesses are left before the first wait, for an account that exists or not."""
    return min(backoff.left() for backoff in _backoffs(account))


def _backoffs(account: str) -> list[_Backoff]:
    pair = _pair(account)
    if _counted_for(f"{pair}/known"):
        return [_Backoff(pair)]
    return [_Backoff(f"account/{digest(account)}"), _Backoff(f"address/{client_address()}")]


def _counted_for(key: str) -> int:
    """Give a count that is in the client's favour: in a full memory a flood must not raise it for everybody."""
    storage: GuardedStorage = limiter.storage  # type: ignore[assignment]
    return storage.get_own(key)


def _pair(account: str) -> str:
    return f"pair/{client_address()}/{digest(account)}"


def digest(account: str) -> str:
    """Give a name for the account that tells no e-mail address to whoever reads the storage."""
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", account).strip().casefold())
    return hmac.digest(current_app.config["SECRET_KEY"].encode(), normal.encode(errors="replace"), "sha256").hex()
