"""The growing wait between guesses at a password (8.S4), a part of mitigation 8, rate limits.

A password attempt has to wait 0, 0, 0, then 1, 2, 4 … up to 900 seconds, per account and per address,
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
- An address with a successful sign-in to an account in the last 30 days, with the password that it still has, has a
  separate backoff for that account (another 107 attempts a day) and ignores the two others: an attacker who keeps an
  account waiting doesn't lock its owner out. From a new address, the owner can reset the password by mail, which counts
  as a success. The separate backoff reveals that the account is used at this address, but only to clients behind it.

While Redis is lost, each worker counts for itself. So with four workers, an attacker who reaches all of them has four
times as many guesses. Longer waits would help little at first: waits double, so if they were twice as long, an attacker
would lose only one of about ten guesses in the first quarter of an hour. Later, owners would have to wait for hours.

An app without accounts uses the backoff in its own sign-in: see ``claim_attempt``.

Source: OWASP Authentication Cheat Sheet (login throttling), OWASP Blocking Brute Force Attacks.
"""

from __future__ import annotations

from flask import g

from app.security.counters import GuardedStorage
from app.security.errors import refuse
from app.security.networks import WIDER, client_address
from app.security.rate_limits import limiter
from app.security.refusals import seconds_until
from app.visitors import digest

FREE_TRIES = 3
MAX_WAIT = 900  # seconds
DAY = 86_400  # seconds
KNOWN_FOR = 30 * DAY


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
        if not storage.get(self.wait):
            return 0
        # In a full memory, the key may share its time with others.
        return min(seconds_until(storage.get_expiry(self.wait)), self.max_wait)

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
    pair = _pair(account)
    g.claimed = {account: pair}
    backoffs = _backoffs(account, pair)
    wait = max(backoff.waits() for backoff in backoffs)
    of_account, *of_networks = backoffs
    for backoff in (*of_networks, of_account):  # the narrowest first: what it refuses must not count for the others
        wait = wait or backoff.claim()
    if wait:
        message = "There were several wrong passwords. Please wait before the next try."
        refuse(429, message, retry_after=wait, event="authn_login_lock", account=account)
    if of_networks:  # a known address counts for none of them, so there is nothing to give back
        limiter.storage.incr(f"{pair}/guesses", DAY)


def attempt_succeeded(account: str, *, new_password: bool = False) -> None:
    """End the backoff after the right password or a reset by mail, and remember the address for 30 days.

    After a ``new_password`` only this address is known: who had the old one must not have separate guesses at it.
    """
    storage = limiter.storage
    # The password was right when the attempt was claimed. Meanwhile there may be another one.
    pair = g.get("claimed", {}).get(account) or _pair(account)
    own, *address = _backoffs(account, pair)
    own.clear()
    for backoff in address:
        backoff.give_back(_counted_for(f"{pair}/guesses"))
    storage.clear(f"{pair}/guesses")
    if new_password:
        forget_addresses(account)
    elif _counted_for(_passwords(account)):
        _remember(_passwords(account), 0)  # as long as the addresses that it tells apart
    _remember(f"{_pair(account) if new_password else pair}/known", 1)


def forget_addresses(account: str) -> None:
    """Forget where the password was right: after the account is deleted, its name may be that of another owner.

    Without effect on an account whose count found no room in a full memory.
    """
    _remember(_passwords(account), 1)


def remaining_tries(account: str) -> int:
    """Return the guesses left before the first wait, whether the account exists or not."""
    return min(backoff.left() for backoff in _backoffs(account, _pair(account)))


def _backoffs(account: str, pair: str) -> list[_Backoff]:
    if _counted_for(f"{pair}/known"):
        return [_Backoff(pair)]
    networks = {client_address(prefix): times for prefix, times in {64: 1, **WIDER}.items()}
    addresses = [_Backoff(f"address/{net}", times) for net, times in networks.items() if net]
    return [_Backoff(f"account/{digest(account)}"), *addresses]


def _counted_for(key: str) -> int:
    """Return a count in the client's favour, which a flood must not increase by filling the memory."""
    storage: GuardedStorage = limiter.storage  # type: ignore[assignment]
    return storage.get_own(key)


def _remember(key: str, more: int) -> None:
    storage: GuardedStorage = limiter.storage  # type: ignore[assignment]
    storage.incr(key, KNOWN_FOR, more, renew=True)  # the 30 days start again with each success


def _passwords(account: str) -> str:
    """Return the key of the number of new passwords and of deletions."""
    return f"account/{digest(account)}/passwords"


def _pair(account: str) -> str:
    return f"pair/{client_address()}/{digest(account)}/{_counted_for(_passwords(account))}"
