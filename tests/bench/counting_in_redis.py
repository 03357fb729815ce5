"""A request whose limits are counted in Redis, the same one counted in memory, and one round trip to that Redis.

``python counting_in_redis.py FOLDER ROUNDS``, in the environment of a generated app. Prints, as JSON, the milliseconds
of the clock in each round. All three take turns in one process, since the difference between two processes is larger.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import contender

REPEATED = 100


def main(folder: Path, rounds: int) -> None:
    """Take turns, and print the milliseconds."""
    address = os.environ["REDIS_URL"]
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        app = contender.whole(folder, "", Path(place), RATELIMIT_STORAGE_URI=address)
        from app.security.rate_limits import limiter
        from redis import Redis

        logging.disable(logging.CRITICAL)
        browser, client = contender.Browser(app), Redis.from_url(address)

        def in_memory() -> None:
            with mock.patch.object(limiter.storage, "shared", None):
                browser.get("json").close()

        calls: dict[str, Callable[[], object]] = {
            "redis": lambda: browser.get("json").close(),
            "memory": in_memory,
            "ping": client.ping,
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(REPEATED):
                    call()
                taken[name].append((time.perf_counter() - start) * 1000 / REPEATED)
    print(json.dumps({name: values[1:] for name, values in taken.items()}))  # the first one connects and compiles


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
