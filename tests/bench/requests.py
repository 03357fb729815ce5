"""What requests, a start and a worker's memory cost, beside Flask alone: the first part of ``make bench``.

All contenders run at the same time, each in a process of its own, and answer in turn: what else the machine does slows
all of them.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conftest import outside

CONTENDER = Path(__file__).with_name("contender.py")
PAGES = ("home", "json", "form", "member", "static")
# What a visitor loads, and what Flask alone does for it: a static file and a signed-in view have no like there.
BESIDE = {"home": "home", "json": "json", "form": "form", "member": "json", "static": "json"}
MITIGATIONS = ("csp", "csrf", "rate_limits", "headers", "errors", "cookies", "secret_key", "uploads")
REQUESTS = 40  # in a row, of one contender


class Contender:
    def __init__(self, python: Path, *arguments: str | Path) -> None:
        command = [python, CONTENDER, *arguments]
        self.process = subprocess.Popen(
            command, env=outside(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, page: str, count: int) -> float:
        """Return the CPU milliseconds of one of ``count`` requests."""
        assert self.process.stdin
        assert self.process.stdout
        print(page, count, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args} has ended")
        return float(answer) * 1000 / max(count, 1)

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def contenders(wanted: dict[str, tuple[Path, str, Path, str]], pages: Iterable[str]) -> Iterator[dict[str, Contender]]:
    with ExitStack() as stack:
        running = {}
        for name, (python, *arguments) in wanted.items():
            running[name] = Contender(python, *filter(None, map(str, arguments)))
            stack.callback(running[name].close)
        for contender in running.values():
            for page in pages:
                contender.run(page, 0)
        yield running


def in_turn(running: dict[str, Contender], rounds: int, pages: Iterable[str]) -> dict[tuple[str, str], list[float]]:
    """Return the milliseconds of each round, by contender and page."""
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for page in pages:
            for name, contender in running.items():
                taken.setdefault((name, page), []).append(contender.run(page, REQUESTS))
    return taken


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """The median, and between brackets the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{form} ({form}–{form})".format(middle, low, high)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Of each round: both halves of it met the same machine."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def starts(python: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of a start, of Flask alone and of the app."""
    programs = {
        "bare": "from flask import Flask; Flask('bare')",
        "app": "from app import create_app; create_app({'SECRET_KEY': 'Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU'})",
    }
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            before = os.times()
            subprocess.run([python, "-c", program], cwd=folder, env=outside(), stderr=subprocess.DEVNULL, check=True)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            taken[name].append(used * 1000)
    return taken


def memory(python: Path, folder: Path, program: str) -> float:
    """MB of one gunicorn worker that has answered a few requests."""
    environment = outside() | {"SECRET_KEY": "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU", "SERVER_NAME": "localhost"}
    socket = f"/tmp/bench-{os.getpid()}.sock"  # noqa: S108 - a socket's path is short
    command = [python, "-m", "gunicorn", program, "--bind", f"unix:{socket}", "--chdir", folder, "--workers", "1"]
    gunicorn = subprocess.Popen(command, env=environment, cwd=folder, stdout=-3, stderr=-3)
    try:
        while not Path(socket).exists():
            if gunicorn.poll() is not None:
                raise RuntimeError(f"{command} has ended")
            time.sleep(0.05)
        for _ in range(50):
            ask(socket)
        children = Path(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children").read_text().split()
        status = Path(f"/proc/{children[0]}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    finally:
        gunicorn.send_signal(signal.SIGTERM)
        gunicorn.wait()


def ask(path: str) -> bytes:
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while received := client.recv(65536):
            answer += received
    return answer


def requests(apps: dict[str, Path], python: Path, rounds: int) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from ("## Requests", "", "CPU time of one request, in milliseconds, and how often that of Flask alone.", "")
    wanted = {name: (python, "app", folder, "") for name, folder in apps.items()}
    wanted |= {f"bare {name}": (python, "bare", folder, "") for name, folder in apps.items()}
    with contenders(wanted, PAGES) as running:
        taken = in_turn(running, rounds, PAGES)
    yield "| page | app | Flask alone | with the app | times |"
    yield "|---|---|---|---|---|"
    for page in PAGES:
        for name in apps:
            ours, theirs = taken[name, page], taken[f"bare {name}", BESIDE[page]]
            yield f"| {page} | {name} | {spread(theirs)} | {spread(ours)} | {spread(ratios(ours, theirs))} |"
    first = next(iter(apps))
    yield from ("", f"What each mitigation takes ({first}): the request with it, less the request without it.", "")
    wanted = {"whole": (python, "app", apps[first], "")}
    wanted |= {each: (python, "app", apps[first], each) for each in MITIGATIONS}
    shown = ("home", "json")
    with contenders(wanted, shown) as running:
        taken = in_turn(running, rounds, shown)
    yield "| without | home, ms less | json, ms less |"
    yield "|---|---|---|"
    for each in MITIGATIONS:
        saved = [
            spread([a - b for a, b in zip(taken["whole", page], taken[each, page], strict=True)]) for page in shown
        ]
        yield f"| {each} | {saved[0]} | {saved[1]} |"
    yield from ("", "## Start and memory", "")
    yield "| app | start, CPU ms | Flask alone | times | a worker, MB |"
    yield "|---|---|---|---|---|"
    for name, folder in apps.items():
        start = starts(python, folder, max(rounds // 3, 5))
        times = spread(ratios(start["app"], start["bare"]))
        yield (
            f"| {name} | {spread(start['app'], '{:.0f}')} | {spread(start['bare'], '{:.0f}')} | {times} "
            f"| {memory(python, folder, 'wsgi:app'):.0f} |"
        )
    program = "flask:Flask('bare')"
    yield f"\nA worker of Flask alone: {memory(python, next(iter(apps.values())), program):.0f} MB."
