"""The quota of all owners together: ``UPLOAD_QUOTA_TOTAL_BYTES`` (9.S5).

To list the files of all owners for each upload would be too slow. So the stored bytes are counted, in a file in
``UPLOAD_DIR``. Deletions do not lower the count, so no race can make it too low. All files are measured before the
first upload, by each sweep and restore, and if an upload does not fit, but then at most every ``MEASURE_SECONDS``.

Machines that share ``UPLOAD_DIR`` share the count, which is never too low. With a bucket, each machine counts only what
it stores itself. It learns what the others have stored when it measures.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from flask import current_app

from app.security.bodies import in_units
from app.security.errors import refuse
from app.storage import folder
from app.storage.stored import storage

MEASURE_SECONDS = 600

log = logging.getLogger(__name__)


@dataclass
class Count:
    """How many ``bytes`` are in ``storage`` at most, and when they were ``measured`` (seconds since 1970, or 0)."""

    storage: str = ""
    bytes: int = 0
    measured: float = 0


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
    with _count() as count:
        fits = count.bytes + size <= most
        count.bytes += size if fits else 0
        measured = count.measured
    if not fits:
        log.error("upload refused: all files together would exceed UPLOAD_QUOTA_TOTAL_BYTES (%s)", in_units(most))
        message = "The files of all visitors together have reached the limit of this site. It accepts no more for now."
        refuse(503, f"{message} Your own files are not the reason.", retry_after=3600)
    stored = False
    try:
        yield
        stored = True
    finally:
        with _count() as count:
            # A measurement that began meanwhile does not include the claim, and may have missed the new file.
            still_claimed = count.measured == measured
            if stored and not still_claimed:
                count.bytes += size
            elif still_claimed and not stored:
                count.bytes -= size


def measure() -> None:
    """Replace the count by a measurement. What an upload adds meanwhile may be counted twice, until the next one."""
    now = time.time()
    with _count() as count:
        before, last, count.measured = count.bytes, count.measured, now  # first, so no other thread measures too
    try:
        total = storage().total()
    except BaseException:
        with _count() as count:
            count.measured = last
        raise
    with _count() as count:
        if count.measured == now:  # else a later measurement has the result
            count.bytes = total + max(count.bytes - before, 0)


@contextlib.contextmanager
def _count() -> Iterator[Count]:
    """Yield the count. Until the block ends, no other thread can read or change it."""
    with folder.locked(folder.TOTAL) as file:
        try:
            found = Count(**json.load(file))
        except (ValueError, TypeError):  # empty, or a crash while it was written
            found = Count()
        if found.storage != (chosen := current_app.config["UPLOAD_STORAGE"]):  # UPLOAD_STORAGE has changed
            found = Count(chosen)
        before = asdict(found)
        yield found
        if asdict(found) != before:
            file.seek(0)
            file.truncate()
            json.dump(asdict(found), file)
