"""What limits in Redis add to a request, beside one round trip to the same Redis."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.bench.requests import free_port, printed_by, ratios, spread
from tests.programs import app as of_app


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis on loopback that stores nothing, and yield its address."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        options = f"--port {port} --bind 127.0.0.1 --dir {place} --save".split()
        command = [of_app.PROGRAMS["redis"].path(), *options, ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def counting(python: Path, folder: Path, rounds: int) -> Iterator[str]:
    """Yield the line about the app in ``folder``."""
    with redis() as address, mock.patch.dict(os.environ, REDIS_URL=address):
        taken: dict[str, list[float]] = printed_by(python, "counting_in_redis.py", folder, str(rounds))
    added = [ours - memory for ours, memory in zip(taken["redis"], taken["memory"], strict=True)]
    yield (
        f"Counting in Redis adds {spread(added)} ms to a request, and one round trip to that Redis takes "
        f"{spread(taken['ping'])} ms: {spread(ratios(added, taken['ping']), '{:.1f}')} times as long."
    )
