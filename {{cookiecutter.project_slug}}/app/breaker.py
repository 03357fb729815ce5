"""A circuit breaker: a service that hangs must not take all threads, or the whole site hangs with it (8.T4).

Source: Nygard, Release It!, "Circuit Breaker" and "Bulkheads"; ASVS 5.0 V13.1.3, V13.2.6.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

STALL_SECONDS = 0.2


class AwayError(ConnectionError):
    """The service was not asked, because it does not answer other requests."""


class Breaker:
    """Limits how many threads of this process wait for a service at a time, and notices when it does not answer."""

    def __init__(self, threads: int) -> None:
        """``threads`` is that limit. Keep it clearly below the threads of the server."""
        self._threads = threads
        self._waiting = 0
        self._away = False
        self._answered = threading.Condition()

    @contextmanager
    def attempt(self, *failures: type[Exception]) -> Iterator[None]:
        """Run the block, which asks the service. One of ``failures`` in it says that there was no answer.

        From then on one thread at a time may ask, until there is an answer. All others get AwayError at once. So do
        threads above the limit, when none of those that wait gets an answer for ``STALL_SECONDS``.
        """
        with self._answered:
            while self._waiting >= (1 if self._away else self._threads):
                if self._away or not self._answered.wait(STALL_SECONDS):
                    self._away = True
                    raise AwayError("it does not answer other requests, so this one did not ask")
            self._waiting += 1
        away = self._away
        try:
            yield
            away = False
        except Exception as error:
            away = isinstance(error, failures)
            raise
        finally:
            with self._answered:
                self._waiting -= 1
                self._away = away
                self._answered.notify_all()  # not only one: an answer tells all that wait that they may go on waiting
