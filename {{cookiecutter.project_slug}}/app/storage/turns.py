"""Who may decode an image now, who waits, and who is refused: for all processes that share ``UPLOAD_DIR`` (9.T4).

A lane serves one request at a time, in the order of their arrival, so the memory that images take is that of its two
lanes, whatever the number of gunicorn's workers. A request that waits holds a thread, so few may. Nobody may hold the
lanes against others: each owner has one place, and each IPv4 address and each /48 of IPv6 two.

The tickets of those who wait or decode are in a file in ``UPLOAD_DIR``, which the kernel locks while it is changed. The
ticket of a process that was killed expires. On Windows, which has no such lock, each process has lanes of its own.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from app.security.errors import refuse
from app.storage import folder

PER_OWNER = 1
PER_ADDRESS = 2
POLL_SECONDS = 0.05


class Ticket(NamedTuple):
    """A place in a lane. ``until`` is in seconds since 1970: machines that share the folder share this clock."""

    id: str
    lane: str
    owner: str
    address: str
    until: float


@contextlib.contextmanager
def turn(lane: str, places: int, *, owner: str, address: str, wait: float, hold: float) -> Iterator[None]:
    """Wait up to ``wait`` seconds for a turn in ``lane``, then hold it for the block, up to ``hold`` seconds.

    ``places`` is the number of requests that may be in the lane at a time, waiting or served. Raises Refusal (503): at
    once if the lane is full, or if ``owner`` or ``address`` has its share; later if no turn comes in time.
    """
    start = time.monotonic()
    mine = Ticket(secrets.token_hex(8), lane, owner, address, time.time() + wait + hold)
    with _tickets() as tickets:
        if sum(ticket.owner == owner for ticket in tickets) >= PER_OWNER:
            refuse(503, "Another image of yours is still being processed. Please try again after that.", retry_after=5)
        if sum(ticket.address == address for ticket in tickets) >= PER_ADDRESS:
            refuse(503, "Other images from your network are being processed. Please try again.", retry_after=5)
        if sum(ticket.lane == lane for ticket in tickets) >= places:
            refuse(503, "Too many images are being processed. Please try again in a moment.", retry_after=10)
        tickets.append(mine)
    try:
        while not _is_first(mine):
            if time.monotonic() > start + wait:
                refuse(
                    503,
                    "Other images took too long, so there is no time for this one. Please try again.",
                    retry_after=10,
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        with _tickets() as tickets:
            tickets[:] = [ticket for ticket in tickets if ticket.id != mine.id]


def _is_first(mine: Ticket) -> bool:
    with _tickets() as tickets:
        return next((ticket.id for ticket in tickets if ticket.lane == mine.lane), None) == mine.id


def _tickets() -> AbstractContextManager[list[Ticket]]:
    """Return the tickets that have not expired, in their order, to read and to change by this thread alone."""
    return folder.locked(folder.TURNS, _not_expired, list)


def _not_expired(found: list[list[Any]]) -> list[Ticket]:
    now = time.time()
    tickets = (Ticket(*fields) for fields in found)
    return [ticket for ticket in tickets if 0 < ticket.until - now < 600]  # unless a clock was set meanwhile
