"""A PostgreSQL of our own on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.programs import PROGRAMS
from tests.servers import free_port

# PostgreSQL does not run as root. Debian's package makes this user.
USER = "postgres" if os.geteuid() == 0 else None


class Postgres:
    """The server. ``new_database()`` returns the address of an empty database on it."""

    def __init__(self, superuser: str = "app") -> None:
        self.superuser = superuser
        self.binary = Path(str(PROGRAMS["postgres"].path()))
        self.folder = tempfile.mkdtemp()  # not below pytest's folders, which only root may enter
        if USER:
            shutil.chown(self.folder, USER)
        self.port = free_port()
        options = [f"--username={superuser}", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        self._run(self.binary.with_name("initdb"), *options, "-D", self.folder)
        self.start()

    def _run(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, cwd=self.folder, user=USER, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        command = [str(self.binary), "-D", self.folder, *(part for each in settings for part in ("-c", each))]
        self.process = subprocess.Popen(command, cwd=self.folder, user=USER, stderr=subprocess.DEVNULL)
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # "fast": it ends the connections
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, to the first one before the others: it starts them."""
        self.process.send_signal(number)
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        for process in map(int, found.stdout.split()):
            with contextlib.suppress(ProcessLookupError):  # one has ended meanwhile
                os.kill(process, number)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def address(self, database: str) -> str:
        return f"postgresql://{self.superuser}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        name = f"test_{time.monotonic_ns()}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@contextlib.contextmanager
def running(superuser: str = "app") -> Iterator[Postgres]:
    server = Postgres(superuser)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        shutil.rmtree(server.folder, ignore_errors=True)
