"""What limits in Redis add to a request, beside one round trip to the same Redis."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.bench.requests import contenders, free_port, in_turn, ratios, spread
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
    wanted = {kind: (python, kind, folder) for kind in ("app", "redis", "ping")}
    with redis() as address, mock.patch.dict(os.environ, REDIS_URL=address):
        with contenders(wanted, ["json"]) as running:
            taken = in_turn(running, rounds, ["json"], wall=True)
        ping = taken["ping", "json"]
        added = [ours - memory for ours, memory in zip(taken["redis", "json"], taken["app", "json"], strict=True)]
        yield (
            f"Counting in Redis adds {spread(added)} ms to a request, and one round trip to that Redis takes "
            f"{spread(ping)} ms: {spread(ratios(added, ping), '{:.1f}')} times as long."
        )
