"""A circuit breaker: a service that hangs must not take all threads, or the whole site hangs with it (8.T4).

Source: Nygard, Release It!, "Circuit Breaker" and "Bulkheads"; ASVS 5.0 V13.1.3, V13.2.6.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

STALL_SECONDS = 0.2


class AwayError(ConnectionError):
    """The service was not asked, because others wait for it already."""


class Breaker:
    """Limits how many threads of this process wait for a service at a time, and notices when it does not answer."""

    def __init__(self, threads: int, *, patient: int = 0, patience: float = 0) -> None:
        """``threads`` is how many may wait at a time. Keep it clearly below the threads of the server.

        Above it, threads wait as long as one of the others gets an answer every ``STALL_SECONDS``. For a service that
        takes longer, ``patient`` of them wait up to ``patience`` seconds for the next answer.
        """
        self._threads, self._patient, self._patience = threads, patient, patience
        self._asking = self._waiting = 0
        self._away = False
        self._answered = threading.Condition()

    @contextmanager
    def attempt(self, *failures: type[Exception]) -> Iterator[None]:
        """Run the block, which asks the service. One of ``failures`` in it says that there was no answer.

        From then on one thread at a time may ask, until there is an answer. All others get AwayError at once. So do
        threads above the limit that have waited in vain.
        """
        with self._answered:
            while self._asking >= (1 if self._away else self._threads):
                if self._away or not (self._answered.wait(STALL_SECONDS) or self._waited_patiently()):
                    raise AwayError("others wait for its answer, so this request did not ask")
            self._asking += 1
        away = self._away
        try:
            yield
            away = False
        except Exception as error:
            away = isinstance(error, failures)
            raise
        finally:
            with self._answered:
                self._asking -= 1
                self._away = away
                self._answered.notify_all()  # not only one: an answer tells all that wait that they may go on waiting

    def _waited_patiently(self) -> bool:
        """Wait up to ``patience`` seconds. Return whether there was an answer; if not, the service counts as away."""
        if self._patient and self._waiting == self._patient:
            return False
        self._waiting += 1
        try:
            self._away = not self._answered.wait(self._patience) or self._away
        finally:
            self._waiting -= 1
        return not self._away
