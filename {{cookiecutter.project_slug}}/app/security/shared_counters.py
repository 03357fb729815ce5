"""The Redis that holds the counters of ``app/security/counters.py``: one server, one behind Sentinel, or a Cluster."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from limits.storage import RedisClusterStorage, RedisSentinelStorage, RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from app import project

TIMEOUT = 0.2  # seconds; a hung Redis must not hang every request

# Count, and return the count and the milliseconds that are left, in one round trip. Parallel requests may give the same
# guesses back twice. A count below 0 would allow more guesses, and the next wait would be a fraction of a second, which
# Redis refuses.
COUNT = b"""
local count = redis.call("INCRBY", KEYS[1], ARGV[2])
if count < 0 then
  count = redis.call("INCRBY", KEYS[1], -count)
end
if redis.call("PTTL", KEYS[1]) < 0 or ARGV[3] == "1" then
  redis.call("EXPIRE", KEYS[1], ARGV[1])
end
return {count, redis.call("PTTL", KEYS[1])}
"""


class SharedCounters:
    """Counters in the Redis at ``uri``, which ``app/settings.py`` has checked.

    The first call of a method connects. While Redis does not count, the methods raise one of ``base_exceptions``.
    """

    base_exceptions = (RedisError, RedisClusterException)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def storage(self) -> RedisStorage:
        """The storage of ``limits``. That of a cluster connects when it is made, and the app must start without it."""
        url = urlsplit(self._uri)
        connection: dict[str, Any] = {
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "retry": Retry(NoBackoff(), 1),  # redis-py would retry for 10 seconds
        }
        # These keys must not collide with another app on the same Redis, or with a later counting strategy.
        options = connection | {"key_prefix": f"{project.SLUG}:fixed-window"}
        if "+" not in url.scheme:
            return RedisStorage(self._uri, **options)
        # limits does not decode these.
        options |= {name: unquote(value) for name in ("username", "password") if (value := getattr(url, name))}
        if url.scheme == "redis+cluster":
            return RedisClusterStorage(self._uri, **options)
        # A replica does not know the latest counts.
        return RedisSentinelStorage(self._uri, use_replicas=False, sentinel_kwargs=connection, **options)

    @property
    def _client(self) -> Any:
        return self.storage.get_connection()

    @cached_property
    def _count(self) -> Any:
        return self._client.register_script(COUNT)

    def count(self, key: str, expiry: int, amount: int, renew: bool = False) -> tuple[int, float]:
        """Increment a counter, and return its value and the seconds until it expires."""
        count, left = self._count([self.storage.prefixed_key(key)], [expiry, amount, int(renew)])
        return int(count), max(int(left), 0) / 1000

    def probe(self, key: str) -> None:
        """Raise an exception unless the server of ``key`` counts: a replica or a full one still answers a PING.

        In a cluster, a key in braces is on the server of what they enclose.
        """
        self.count(f"{{{self.storage.prefixed_key(key)}}}", 1, 1)

    def get(self, key: str) -> int:
        """Return the value of a counter; 0 if there is none."""
        return self.storage.get(key)

    def get_expiry(self, key: str) -> float:
        """Return the expiry time with millisecond precision: ``TTL`` rounds, so a client would retry too early."""
        left = int(self._client.pttl(self.storage.prefixed_key(key)))
        return time.time() + max(left, 0) / 1000

    def clear(self, key: str) -> None:
        """Delete a counter."""
        self.storage.clear(key)

    def reset(self) -> None:
        """Delete all counters."""
        self.storage.reset()
