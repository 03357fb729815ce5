"""Tells which tests are running when none has ended for a while: a first run, or a browser, takes its time."""

from __future__ import annotations

import threading

import pytest


class Progress:
    """A plugin for pytest, at work where pytest-xdist runs the tests in other processes."""

    def __init__(self) -> None:
        self.running: dict[str, None] = {}
        self.silent = 0
        self.over = threading.Event()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        plugins = session.config.pluginmanager
        if plugins.hasplugin("dsession") and session.config.get_verbosity() >= 0:
            threading.Thread(target=self.watch, args=[plugins.getplugin("terminalreporter")], daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        self.over.set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        self.silent = 0

    def watch(self, reporter: pytest.TerminalReporter) -> None:
        while not self.over.wait(1):
            self.silent += 1
            if self.silent % 4 == 0:
                oldest, *others = list(self.running) or ["nothing yet, the workers are starting"]
                line = f"  running: {oldest}" + (f" and {len(others)} more" if others else "")
                reporter.write_line(f"\n{line}" if reporter._tw.width_of_current_line else line)
