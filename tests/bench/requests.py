"""What requests, a start and a worker's memory cost, compared with Flask alone.

All contenders run at the same time, each in its own process, and take turns: other load on the machine slows all of
them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import outside

CONTENDER = Path(__file__).with_name("contender.py")
# Each page, and the page of Flask alone that it is compared with: Flask has no signed-in view or file of its own.
COMPARED = {"home": "home", "json": "json", "form": "form", "member": "json", "static": "json"}
# The app does not work without the others.
MITIGATIONS = ("csp", "csrf", "rate_limits", "headers", "errors", "cookies", "secret_key")
REQUESTS = 40  # that one contender sends before it is the next one's turn
SLOW_ROUNDS = 5  # of what takes seconds
SHOWN = 4  # milliseconds of a package that has a row of its own
STARTS = {"bare": "from flask import Flask; Flask('bare')", "app": "from app import create_app; create_app()"}


class Contender:
    """A process that runs ``contender.py`` with these arguments."""

    def __init__(self, python: str | Path, *arguments: str | Path) -> None:
        command = [python, CONTENDER, *arguments]
        self.process = subprocess.Popen(
            command, env=outside(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, page: str, count: int) -> float:
        """Send ``count`` requests, and return the CPU milliseconds of one."""
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
def contenders(wanted: Mapping[str, tuple[str | Path, ...]], pages: Iterable[str]) -> Iterator[dict[str, Contender]]:
    """Start a contender for each name, with its Python and arguments. Each makes the first requests for each page."""
    with ExitStack() as stack:
        running = {}
        for name, (python, *arguments) in wanted.items():
            running[name] = Contender(python, *arguments)
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


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return the median, and in parentheses the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{form} ({form}–{form})".format(middle, low, high)


def printed_by(python: Path, script: str, *arguments: str | Path) -> Any:
    """Run a script of this folder in the environment of a generated app, and return what it prints as JSON."""
    command = [python, CONTENDER.with_name(script), *arguments]
    printed = subprocess.run(command, env=outside(), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(printed.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round: other load on the machine slowed both."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def starts(python: Path, folder: Path) -> dict[str, list[float]]:
    """Return the CPU milliseconds of a start, of Flask alone and of the app in ``folder``."""
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(SLOW_ROUNDS):
        for name, program in STARTS.items():
            before = os.times()
            subprocess.run([python, "-c", program], cwd=folder, env=outside(), stderr=subprocess.DEVNULL, check=True)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            taken[name].append(used * 1000)
    return taken


def imports(python: Path, folder: Path) -> Counter[str]:
    """Return the milliseconds that the modules of each package take at a start of the app in ``folder``."""
    command = [python, "-X", "importtime", "-c", STARTS["app"]]
    told = subprocess.run(command, cwd=folder, env=outside(), stderr=subprocess.PIPE, text=True, check=True).stderr
    taken: Counter[str] = Counter()
    for own, name in re.findall(r"(?m)^import time: +([0-9]+) [| 0-9]+ (\w+)", told):
        package = {"app": "the app itself"}.get(name, "Python" if name in sys.stdlib_module_names else name)
        taken[package] += int(own) / 1000
    return taken


def memory(python: Path, folder: Path, program: str) -> float:
    """Return the MB (resident) of a gunicorn worker that serves ``program`` and has answered a few requests."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "socket"
        command = [python, "-m", "gunicorn", program, "--bind", f"unix:{path}", "--workers", "1"]
        environment = outside() | {"SERVER_NAME": "localhost", "TRUSTED_PROXY_HOPS": "1"}
        quiet = subprocess.DEVNULL
        gunicorn = subprocess.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet)
        try:
            while not path.exists():
                if gunicorn.poll() is not None:
                    raise RuntimeError(f"{command} has ended")
                time.sleep(0.05)
            for _ in range(50):
                get_home(path)
            worker = Path(f"/proc/{gunicorn.pid}/task/{gunicorn.pid}/children").read_text().split()[0]
            status = Path(f"/proc/{worker}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        finally:
            gunicorn.terminate()
            gunicorn.wait()


def get_home(path: Path) -> None:
    """Request the home page over https, as a proxy in front of the server does. Flask alone has none: a 404 will do."""
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.connect(str(path))
        proxy.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n"
        )
        status = proxy.recv(65536).split(b" ")[1]
        while proxy.recv(65536):
            pass
    if status not in (b"200", b"404"):
        raise RuntimeError(f"The home page answers {status.decode()}.")


def pages(apps: dict[str, Path], python: Path, rounds: int) -> Iterator[str]:
    """Yield the table of the pages, with a row for each page and app."""
    yield from ("## Requests", "", "CPU time of one request, in milliseconds, and as a multiple of Flask alone.", "")
    wanted = {name: (python, "app", folder) for name, folder in apps.items()}
    for kind in ("bare", "libraries"):
        wanted |= {f"{kind} {name}": (python, kind, folder) for name, folder in apps.items()}
    with contenders(wanted, COMPARED) as running:
        taken = in_turn(running, rounds, COMPARED)
    yield from ("| page | app | Flask alone | the app | multiple | the libraries alone |", "|---|---|---|---|---|---|")
    for page, other in COMPARED.items():
        for name in apps:
            ours, theirs = taken[name, page], taken[f"bare {name}", other]
            libraries = spread(ratios(taken[f"libraries {name}", page], theirs))
            figures = [spread(theirs), spread(ours), spread(ratios(ours, theirs)), libraries]
            yield f"| {page} | {name} | {' | '.join(figures)} |"
    yield ""
    yield (
        "The last column is the multiple of Flask with Flask-Talisman, Flask-Limiter and Flask-WTF, and nothing else. "
        "The app can't cost less than that."
    )
    file, view = (taken[f"bare {name}", page] for page in ("static", "json"))
    yield ""
    yield (
        f"Flask alone takes {spread(file)} ms for the static file, "
        f"{spread(ratios(file, view))} times as long as for its JSON view."
    )


def mitigations(folder: Path, python: Path, rounds: int) -> Iterator[str]:
    """Yield the table of what each mitigation of the app in ``folder`` costs."""
    yield from ("", "What each mitigation adds (accounts): a request with it, minus a request without it.", "")
    wanted = {"whole": (python, "app", folder)} | {each: (python, "app", folder, each) for each in MITIGATIONS}
    shown = ("home", "json")
    with contenders(wanted, shown) as running:
        taken = in_turn(running, rounds, shown)
    yield from ("| mitigation | home, ms | json, ms |", "|---|---|---|")
    for each in MITIGATIONS:
        added = [
            spread([a - b for a, b in zip(taken["whole", page], taken[each, page], strict=True)]) for page in shown
        ]
        yield f"| {each} | {' | '.join(added)} |"


def packages(folder: Path, python: Path) -> Iterator[str]:
    """Yield the table of the packages in which the requests to the app in ``folder`` spend their time."""
    shares: dict[str, dict[str, float]] = printed_by(python, "where.py", folder)
    yield from ("", "Where the time goes (accounts), in percent of a request with a profiler running:", "")
    yield from (f"| package | {' | '.join(shares)} |", f"|---|{'---|' * len(shares)}")
    for name in sorted({name for of in shares.values() for name in of}, key=lambda name: -shares["json"].get(name, 0)):
        figures = [of.get(name, 0) for of in shares.values()]
        if max(figures) >= 1:
            yield f"| {name} | {' | '.join(f'{each:.0f}' for each in figures)} |"


def starts_and_memory(apps: dict[str, Path], python: Path) -> Iterator[str]:
    """Yield the table of what a start and a worker take, with a row for each app."""
    yield from ("", "## Start and memory", "")
    yield from ("| app | start, CPU ms | Flask alone | multiple | a worker, MB |", "|---|---|---|---|---|")
    for name, folder in apps.items():
        start = starts(python, folder)
        figures = [spread(start[which], "{:.0f}") for which in ("app", "bare")]
        figures += [spread(ratios(start["app"], start["bare"])), f"{memory(python, folder, 'wsgi:app'):.0f}"]
        yield f"| {name} | {' | '.join(figures)} |"
    alone = memory(python, folder, "flask:Flask('bare')")
    yield from ("", f"A worker of Flask alone takes {alone:.0f} MB.", "")
    yield from ("What the modules of each package take of a start, in milliseconds:", "")
    taken = {name: imports(python, folder) for name, folder in apps.items()}
    yield from (f"| package | {' | '.join(taken)} |", f"|---|{'---|' * len(taken)}")
    for package, most in max(taken.values(), key=Counter.total).most_common():
        if most >= SHOWN:
            yield f"| {package} | {' | '.join(f'{each[package]:.0f}' for each in taken.values())} |"
