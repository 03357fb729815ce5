"""Starts gunicorn by forking one process that has imported the packages: importing them takes 0.6 seconds of CPU."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from pathlib import Path

# tests/accounts/conftest.py adds the packages of the accounts. The modules of the app are imported after the fork: each
# server has its own settings, and may have its own checkout. So is gunicorn, which reads its folder at its import.
PACKAGES = ["flask_limiter", "flask_talisman", "flask_wtf", "pydantic_settings"]
FORKS = multiprocessing.get_context("forkserver")


class Gunicorn(FORKS.Process):
    """``python -m gunicorn ARGUMENTS`` in ``folder``, with ``environment``, in a process group of its own."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str], folder: Path) -> None:
        super().__init__(daemon=True)  # multiprocessing ends it with the tests
        self.arguments, self.log, self.environment, self.folder = arguments, log, environment, folder
        FORKS.set_forkserver_preload(PACKAGES)  # it starts with the first server
        self.start()

    def run(self) -> None:
        os.setpgid(0, 0)
        os.chdir(self.folder)
        with self.log.open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv[1:] = self.arguments
        sys.path.insert(0, str(self.folder))
        runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)

    # The same methods as subprocess.Popen, which runs the other servers:

    def poll(self) -> int | None:
        return self.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"gunicorn has not ended within {timeout} seconds")
