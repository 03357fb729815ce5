"""gunicorn, forked from one process that has imported the packages, which take more than half a second of CPU."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from pathlib import Path

# tests/accounts/conftest.py adds those of the accounts. Nothing of the app, nor what gunicorn.conf.py changes, is
# imported before the fork: each server has its own settings, perhaps its own checkout.
PACKAGES = ["flask_limiter", "flask_talisman", "flask_wtf", "gunicorn.app.wsgiapp", "pydantic_settings"]
FORKS = multiprocessing.get_context("forkserver")


class Gunicorn(FORKS.Process):
    """``python -m gunicorn ARGUMENTS`` in ``folder``, with ``environment``, in a process group of its own."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str], folder: Path) -> None:
        super().__init__(daemon=True)  # it ends with the tests, also when they are interrupted
        self.arguments, self.log, self.environment, self.folder = arguments, log, environment, folder
        FORKS.set_forkserver_preload(PACKAGES)  # counts before the first start
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

    # As of subprocess.Popen, which other servers are:

    def poll(self) -> int | None:
        return self.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        self.join(timeout)
