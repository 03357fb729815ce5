"""The connection to the Redis that holds the counters of ``app/security/counters.py``."""

from __future__ import annotations

import time

from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.exceptions import RedisError as Fault
from redis.retry import Retry

from app import project

__all__ = ["Fault", "connect"]

TIMEOUT = 0.2  # seconds; a hung Redis must not hang every request


class _Redis(RedisStorage):
    def get_expiry(self, key: str) -> float:
        """Return the expiry time with millisecond precision: ``TTL`` rounds, so a client would retry too early."""
        left = int(self.storage.pttl(self.prefixed_key(key)))
        return time.time() + max(left, 0) / 1000


def connect(uri: str) -> RedisStorage:
    """Return the storage at ``uri``. It connects with the first request. Raises ValueError if ``uri`` can't be parsed.

    Its methods raise ``Fault`` while it does not answer.
    """
    return _Redis(
        uri,
        # These keys must not collide with another app on the same Redis, or with a later counting strategy.
        key_prefix=f"{project.SLUG}:fixed-window",
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 1),  # type: ignore[arg-type] # redis-py would retry for 10 seconds
    )
