"""PostgreSQL: how long requests wait for it while it is slow, restarts or hangs."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psycopg
import sqlalchemy as sa
from flask import Flask
from psycopg.abc import RV, PQGen

from app.breaker import AwayError, Breaker

RETRY_SECONDS = 0.2


class Connection(psycopg.Connection[Any]):
    """A connection on which no answer takes longer than ``seconds``. After that, it is closed."""

    breaker: Breaker
    seconds: float

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Return the answer of the server. Raises OperationalError if it takes too long or is not asked."""
        start = time.monotonic()
        try:
            with self.breaker.attempt(TimeoutError):
                try:
                    return super().wait(gen, interval, timeout or self.seconds)
                except psycopg.OperationalError as error:
                    if time.monotonic() - start < self.seconds:
                        raise
                    # Without this, a slow statement would go on in the server.
                    with contextlib.suppress(psycopg.Error):
                        self.cancel_safe(timeout=1)
                    raise TimeoutError(f"no answer within {self.seconds} seconds") from error
        except (TimeoutError, AwayError) as error:
            self.close()  # its state is not known
            raise psycopg.OperationalError(f"PostgreSQL: {error}") from None

    def rollback(self) -> None:
        """End the transaction. The server itself ends that of a connection that was lost."""
        try:
            super().rollback()
        except psycopg.OperationalError:
            self.close()


def init_app(app: Flask, engine: sa.Engine) -> None:
    """Set up the connections of ``engine``."""
    breaker = app.extensions.setdefault("database_breaker", Breaker(app.config["DATABASE_POOL_SIZE"]))
    seconds = app.config["DATABASE_TIMEOUT"]  # to connect; for answers, the commands of migrations raise it

    def connect(_dialect: object, _record: object, arguments: list[str], parameters: dict[str, Any]) -> Connection:
        try:
            with breaker.attempt(psycopg.OperationalError):
                made = _connect(seconds, arguments, {"connect_timeout": seconds} | parameters)
        except AwayError as error:
            raise psycopg.OperationalError(f"PostgreSQL: {error}") from None
        made.breaker, made.seconds = breaker, app.config["DATABASE_TIMEOUT"]
        return made

    sa.event.listen(engine, "do_connect", connect)


def _connect(seconds: float, arguments: list[str], parameters: dict[str, Any]) -> Connection:
    """Return a connection. Try again for some seconds: a restart takes a moment, which need not be an error page."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Connection.connect(*arguments, **parameters)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
