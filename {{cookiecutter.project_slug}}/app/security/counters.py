"""The counters of the rate limits: in Redis if it is configured, else in this process, in bounded memory.

Flask-Limiter and the backoff of ``app/security/backoff.py`` share this storage. While Redis is unreachable or refuses
to count, counting continues in memory from the last known counts: no request fails, and no client gets a fresh budget.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

from limits.storage import Storage

if TYPE_CHECKING:
    from app.security.shared_counters import SharedCounters

REDIS_RETRY = 5  # seconds between two attempts to reconnect
SLOW, SLOW_ANSWERS = 0.12, 3  # seconds of an answer, and how many such in a row are as bad as none

MAX_KEYS = 100_000  # in each of two memories: about 35 MB each
OVERFLOW_SLOTS = 65_536
SWEEP_INTERVAL = 1  # seconds; a sweep of all keys takes about 10 ms

# The kinds of limits against guessing: they count for the networks in networks.WIDER too, in the memory of the guesses.
COUNTED_WIDELY = ("sign_in", "register", "reset")

logger = logging.getLogger(__name__)


class BoundedCounters:
    """Counters that expire, in at most ``max_keys + OVERFLOW_SLOTS`` entries, however many keys are used.

    When the memory is full, new keys share slots and therefore budgets. Dropping old keys instead would let an
    attacker with many addresses erase the failures of an account.
    """

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._counters: dict[str, tuple[int, float]] = {}  # key → count, expiry time
        self._lock = threading.Lock()
        self._next_sweep = 0.0

    def incr(self, key: str, expiry: float, amount: int = 1, *, renew: bool = False) -> int:
        """See ``GuardedStorage.incr``."""
        with self._lock:
            slot, new_end = self._slot(key), time.time() + expiry
            count, end = self._live(slot) or (0, new_end)
            self._counters[slot] = (max(count + amount, 0), new_end if renew and slot == key else end)
            return self._counters[slot][0]

    def mirror(self, key: str, count: int, expiry: float) -> None:
        """Store a count of another storage, which expires in ``expiry`` seconds, if there is room for it."""
        with self._lock:
            if self._slot(key) == key:
                self._counters[key] = (count, time.time() + expiry)

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if there is none."""
        with self._lock:
            return (self._live(self._slot(key)) or (0, 0.0))[0]

    def get_own(self, key: str) -> int:
        """Return the value of a counter that no other key shares, else 0: for counts in a client's favour."""
        with self._lock:
            return (self._live(key) or (0, 0.0))[0]

    def get_expiry(self, key: str) -> float:
        """Return the time at which a counter expires; now if there is none."""
        with self._lock:
            return (self._live(self._slot(key)) or (0, time.time()))[1]

    def clear(self, key: str) -> None:
        """Delete a counter, unless it shares its slot with others."""
        with self._lock:
            self._counters.pop(key, None)

    def reset(self) -> int:
        """Delete all counters and return how many there were."""
        with self._lock:
            number = len(self._counters)
            self._counters.clear()
            return number

    def keys(self) -> set[str]:
        """Return all keys, including some that may have expired."""
        with self._lock:
            return set(self._counters)

    def _live(self, slot: str) -> tuple[int, float] | None:
        found = self._counters.get(slot)
        return found if found and found[1] > time.time() else None

    def _slot(self, key: str) -> str:
        if key in self._counters or len(self._counters) < self._max_keys:
            return key
        now = time.time()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL
            self._counters = {key: counter for key, counter in self._counters.items() if counter[1] > now}
            if len(self._counters) < self._max_keys:
                return key
        # hash() of a string is salted per process, so an attacker cannot target the slot of another client.
        return f"overflow/{hash(key) % OVERFLOW_SLOTS}"


class GuardedStorage(Storage):
    """A storage for ``limits`` that never fails: Redis as long as it counts, else memory.

    ``counters_uri`` is the setting ``RATELIMIT_STORAGE_URI``.
    """

    STORAGE_SCHEME = ["guarded"]  # noqa: RUF012 - as limits declares it

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, *, counters_uri: str, **_: str) -> None:
        super().__init__(uri, wrap_exceptions)
        # A network can fill the memory of the pages, with a key for each page and /64. Guesses and mails have another.
        self.pages, self.guesses = BoundedCounters(MAX_KEYS), BoundedCounters(MAX_KEYS)
        self.shared: SharedCounters | None = None
        self.lost = False
        self._lost_with = ""  # the key that could not be counted
        self._slow = 0  # slow answers in a row
        self._carry_over: set[str] = set()
        self._next_look = 0.0
        self._lock = threading.Lock()
        if counters_uri != "memory://":
            from app.security.shared_counters import SharedCounters  # here, because redis-py is a tenth of a start

            self.shared = SharedCounters(counters_uri)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """The exceptions of the storage. The methods handle them: losing Redis is not an error here."""
        return self.shared.base_exceptions if self.shared else ()

    def memory(self, key: str) -> BoundedCounters:
        """Return the memory that counts ``key``: that of the pages for the other limits of Flask-Limiter."""
        is_guess = not key.startswith("LIMITER/") or any(f"/each {kind}/" in key for kind in COUNTED_WIDELY)
        return self.guesses if is_guess else self.pages

    def incr(self, key: str, expiry: int, amount: int = 1, *, renew: bool = False) -> int:
        """Increment a counter and return its value.

        It expires ``expiry`` seconds after its first increment, or after the last one with ``renew``.
        """
        answer = self._ask_redis("count", key, expiry, amount, renew)
        if answer is None:
            return self.memory(key).incr(key, expiry, amount, renew=renew)
        count, left = answer
        self.memory(key).mirror(key, count, left)
        return int(count)

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if there is none."""
        count = self._ask_redis("get", key)
        return self.memory(key).get(key) if count is None else int(count)

    def get_own(self, key: str) -> int:
        """Return the value of a counter, or 0 if it is shared in a full memory: for counts in a client's favour."""
        count = self._ask_redis("get", key)
        return self.memory(key).get_own(key) if count is None else int(count)

    def get_expiry(self, key: str) -> float:
        """Return the time at which a counter expires; now if there is none."""
        end = self._ask_redis("get_expiry", key)
        return self.memory(key).get_expiry(key) if end is None else float(end)

    def counted(self, key: str) -> tuple[int, float]:
        """Return the value of a counter and when it expires, as this process has last seen it, without asking Redis.

        In a full memory, they may be those of several keys.
        """
        return self.memory(key).get(key), self.memory(key).get_expiry(key)

    def clear(self, key: str) -> None:
        """Delete a counter."""
        self.memory(key).clear(key)
        self._ask_redis("clear", key)

    def reset(self) -> int | None:
        """Delete all counters and return how many there were in this process."""
        if self.shared and not self.lost:
            self.shared.reset()
        return self.pages.reset() + self.guesses.reset()

    def check(self) -> bool:
        """Return whether the configured storage counted when it was last asked. Else each worker counts on its own."""
        return not self.lost

    def _ask_redis(self, method: str, key: str, *args: int) -> Any:
        """Return the answer of Redis; None if it is not configured or lost."""
        if self.shared is None or not self._may_ask():
            return None
        failures: tuple[type[Exception], ...] = (TimeoutError, *self.base_exceptions)
        try:
            if self.lost:
                self._in_time(self.shared.probe, self._lost_with)
                with self._lock:
                    self.lost, self._carry_over = False, self.pages.keys() | self.guesses.keys()
                logger.warning("The rate limits' Redis is back")
            self._carry_back(self.shared, key)
            return self._in_time(getattr(self.shared, method), key, *args)
        except failures as error:
            with self._lock:
                if not self.lost:
                    logger.error("The rate limits' Redis is lost, each worker counts on its own: %s", error)
                    self._lost_with = key
                self.lost, self._next_look = True, time.monotonic() + REDIS_RETRY
            return None

    def _in_time(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Return the answer. Raises TimeoutError after several slow ones: each request would wait for one."""
        start = time.monotonic()
        answer = ask(*args)
        self._slow = self._slow + 1 if time.monotonic() - start > SLOW else 0
        if self._slow >= (1 if self.lost else SLOW_ANSWERS):  # one is enough not to be back
            raise TimeoutError(f"its last {self._slow} answers took longer than {SLOW} seconds each")
        return answer

    def _may_ask(self) -> bool:
        with self._lock:
            if self.lost:
                if time.monotonic() < self._next_look:  # a clock may be set back
                    return False
                # One request checks whether Redis is back; the others don't wait for it.
                self._next_look = time.monotonic() + REDIS_RETRY
            return True

    def _carry_back(self, shared: SharedCounters, key: str) -> None:
        """Add the counts from the time without Redis to it: it may have come back empty."""
        if key in self._carry_over:
            self._carry_over.discard(key)
            missing = self.memory(key).get(key) - shared.get(key)
            if missing > 0:
                shared.count(key, max(1, ceil(self.memory(key).get_expiry(key) - time.time())), missing)
