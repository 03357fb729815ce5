"""The quota of all owners together: ``UPLOAD_QUOTA_TOTAL_BYTES`` (9.S5).

To list the files of all owners for each upload would be too slow. So the stored bytes are counted, in a file in
``UPLOAD_DIR``. Deletions do not lower the count, and what an upload in progress has claimed stays in it, so no race can
make it too low. All files are measured before the first upload, by each sweep and restore, and if an upload does not
fit, but then at most every ``MEASURE_SECONDS``.

Machines that share ``UPLOAD_DIR`` share the count, which is never too low. With a bucket, each machine counts only what
it stores itself. It learns what the others have stored when it measures.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from flask import current_app

from app.security.bodies import in_units
from app.security.errors import refuse
from app.storage import folder
from app.storage.stored import LEFTOVER_SECONDS, storage

MEASURE_SECONDS = 600

log = logging.getLogger(__name__)


@dataclass
class Count:
    """How many ``bytes`` are in ``storage`` at most, and when they were ``measured`` (seconds since 1970, or 0).

    ``claims`` are the uploads in progress: the bytes of each, which ``bytes`` includes, and when it began.
    """

    storage: str = ""
    bytes: int = 0
    measured: float = 0
    claims: dict[str, tuple[int, float]] = field(default_factory=dict)


@contextlib.contextmanager
def claimed(size: int) -> Iterator[None]:
    """Add ``size`` bytes to the count while the block stores them; if it raises, subtract them again.

    Raises Refusal (503) if they exceed the quota.
    """
    most = current_app.config["UPLOAD_QUOTA_TOTAL_BYTES"]
    with _count() as count:
        seems_full = count.bytes + size > most and abs(time.time() - count.measured) > MEASURE_SECONDS
    if seems_full or not count.measured:
        measure()
    claim = secrets.token_hex(8)
    with _count() as count:
        fits = count.bytes + size <= most
        if fits:
            count.bytes += size
            count.claims[claim] = size, time.time()
    if not fits:
        log.error("upload refused: all files together would exceed UPLOAD_QUOTA_TOTAL_BYTES (%s)", in_units(most))
        message = "The files of all visitors together have reached the limit of this site. It accepts no more for now."
        refuse(503, f"{message} Your own files are not the reason.", retry_after=3600)
    stored = 0
    try:
        yield
        stored = size
    finally:
        with _count() as count:
            # There is no claim any more if the count was lost, or after LEFTOVER_SECONDS.
            count.bytes += stored - count.claims.pop(claim, (0, 0))[0]


def measure() -> None:
    """Replace the count by a measurement. An upload in progress may be counted twice, until the next one.

    The claims of a process that was killed are forgotten after ``LEFTOVER_SECONDS``.
    """
    now = time.time()
    with _count() as count:
        last = count.measured
        # No other thread measures too, unless there is no result at all yet.
        count.measured = mark = now if last else 0
        count.claims = {claim: made for claim, made in count.claims.items() if abs(now - made[1]) < LEFTOVER_SECONDS}
        stored = count.bytes - sum(size for size, _ in count.claims.values())
    try:
        total = storage().total()
    except BaseException:
        with _count() as count:
            count.measured = last
        raise
    with _count() as count:
        if count.measured == mark:  # else another measurement has the result
            count.bytes, count.measured = count.bytes + total - stored, now


def _count() -> AbstractContextManager[Count]:
    """Return the count, to read and to change by this thread alone. Another ``UPLOAD_STORAGE`` has a new one."""
    chosen = current_app.config["UPLOAD_STORAGE"]

    def parse(found: dict[str, Any]) -> Count:
        count = Count(**found)
        return count if count.storage == chosen else Count(chosen)

    return folder.locked(folder.TOTAL, parse, lambda: Count(chosen))
