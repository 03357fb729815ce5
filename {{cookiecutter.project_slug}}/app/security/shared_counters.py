"""The connection to the Redis that holds the counters of ``app/security/counters.py``."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import project

TIMEOUT = 0.2  # seconds; a hung Redis must not hang every request

# Count, and return the count and the milliseconds that are left, in one round trip.
COUNT = b"""
local count = redis.call("INCRBY", KEYS[1], ARGV[2])
if redis.call("PTTL", KEYS[1]) < 0 then
  redis.call("EXPIRE", KEYS[1], ARGV[1])
end
return {count, redis.call("PTTL", KEYS[1])}
"""


class SharedCounters(RedisStorage):
    """Counters in Redis."""

    @cached_property
    def _count(self) -> Any:
        return self.get_connection().register_script(COUNT)

    def count(self, key: str, expiry: int, amount: int) -> tuple[int, float]:
        """Increment a counter, and return its value and the seconds until it expires."""
        count, left = self._count([self.prefixed_key(key)], [expiry, amount])
        return int(count), max(int(left), 0) / 1000

    def get_expiry(self, key: str) -> float:
        """Return the expiry time with millisecond precision: ``TTL`` rounds, so a client would retry too early."""
        left = int(self.storage.pttl(self.prefixed_key(key)))
        return time.time() + max(left, 0) / 1000


def connect(uri: str) -> SharedCounters:
    """Return the storage at ``uri``. It connects with the first request. Raises ValueError if ``uri`` can't be parsed.

    Its methods raise one of its ``base_exceptions`` while Redis does not answer.
    """
    return SharedCounters(
        uri,
        # These keys must not collide with another app on the same Redis, or with a later counting strategy.
        key_prefix=f"{project.SLUG}:fixed-window",
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 1),  # type: ignore[arg-type] # redis-py would retry for 10 seconds
    )
