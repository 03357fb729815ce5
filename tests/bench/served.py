"""What a request costs behind gunicorn while many clients ask at once: the CPU time of the worker, and the rate.

The clients are threads of this process. Their own work is not in the CPU time, but it takes a part of the machine.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.bench.requests import CONTENDER, SLOW_ROUNDS, free_port, ratios, spread
from tests.conftest import outside

CLIENTS = 8
ASKED = 50  # by each client, before it is the next server's turn
SHOWN = {"home": "/", "json": "/bench/json"}  # as in contender.py
# As a proxy in front of the server sends them.
HEADERS = {"Host": "localhost", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}


class Served:
    """One app under gunicorn, with one worker. ``kind`` and ``folder`` are those of ``contender.py``."""

    def __init__(self, python: Path, kind: str, folder: Path, place: Path) -> None:
        self.port = free_port()
        program = f"contender:served('{kind}', '{folder}', '{place}')"
        command = [python, "-m", "gunicorn", program, "--bind", f"127.0.0.1:{self.port}"]
        command += ["--worker-class", "gthread", "--threads", str(CLIENTS), "--preload"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, cwd=CONTENDER.parent, env=outside(), stdout=quiet, stderr=quiet)

    def wait(self) -> None:
        """Wait for the first answers: they compile the templates."""
        for _ in range(600):
            try:
                self.ask("home", CLIENTS)
            except ConnectionError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"{self.process.args} does not answer")

    def ask(self, page: str, count: int) -> None:
        """Send requests on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            for _ in range(count):
                connection.request("GET", SHOWN[page], headers=HEADERS)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{SHOWN[page]} answers {answer.status}")
        finally:
            connection.close()

    def cpu(self) -> float:
        """Return the CPU seconds of the worker so far."""
        (worker,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, page: str) -> tuple[float, float]:
        """Let all clients ask at once. Return the CPU milliseconds of a request, and the requests per second."""
        cpu, wall, asked = self.cpu(), time.perf_counter(), CLIENTS * ASKED
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(self.ask, [page] * CLIENTS, [ASKED] * CLIENTS))
        return (self.cpu() - cpu) * 1000 / asked, asked / (time.perf_counter() - wall)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def served(apps: dict[str, Path], python: Path) -> Iterator[str]:
    """Yield the table, with a row for each app and page."""
    yield from ("", "## Behind gunicorn", "")
    yield f"{CLIENTS} clients ask at once; one worker, which is compared with a worker of Flask alone."
    yield from ("", "| page | app | CPU ms of a request | multiple | requests per second | Flask alone |")
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        running = {}
        for name, app in apps.items():
            for kind in ("app", "bare"):
                (place := Path(folder, f"{kind}-{name}".replace(" ", "-"))).mkdir()
                running[name, kind] = Served(python, kind, app, place)
                stack.callback(running[name, kind].close)
        for server in running.values():
            server.wait()
        for page in SHOWN:
            rounds = [{key: server.load(page) for key, server in running.items()} for _ in range(SLOW_ROUNDS)]
            for name in apps:
                cpu, rate = zip(*(each[name, "app"] for each in rounds), strict=True)
                bare_cpu, bare_rate = zip(*(each[name, "bare"] for each in rounds), strict=True)
                figures = (
                    spread(cpu),
                    spread(ratios(cpu, bare_cpu)),
                    spread(rate, "{:.0f}"),
                    spread(bare_rate, "{:.0f}"),
                )
                yield f"| {page} | {name} | {' | '.join(figures)} |"
