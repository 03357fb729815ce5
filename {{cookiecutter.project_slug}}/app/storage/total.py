"""The quota of all owners together: ``UPLOAD_QUOTA_TOTAL_BYTES`` (9.S5).

Whether an upload fits must not take the reading of all owners' files. So the bytes are counted, in a file in
``UPLOAD_DIR``. Deletions are not, so that no race of them can make the count too low. All files are measured before the
first upload, by each sweep and restore, and when an upload does not fit, but then at most every ``MEASURE_SECONDS``.

Machines that share ``UPLOAD_DIR`` share the count, which never allows too much. With a bucket, each machine counts
what it stores itself: it learns what others have stored when it measures.
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
    """The ``bytes`` in ``storage``, as far as known, and when they were measured (seconds since 1970, 0 for never)."""

    storage: str = ""
    bytes: int = 0
    measured: float = 0


@contextlib.contextmanager
def claimed(size: int) -> Iterator[None]:
    """Count ``size`` bytes that the block stores, unless it raises. Raises Refusal (503) if they exceed the quota."""
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
        log.error("upload refused: all files together would be more than UPLOAD_QUOTA_TOTAL_BYTES, %s", in_units(most))
        message = "The files of all visitors together have reached the limit of this site, so it accepts none for now."
        refuse(503, f"{message} That is not about yours.", retry_after=3600)
    stored = False
    try:
        yield
        stored = True
    finally:
        with _count() as count:
            # A measure that has begun meanwhile does not know the claim, and may have looked before the file was there.
            if stored == (count.measured != measured):
                count.bytes += size if stored else -size


def measure() -> None:
    """Count again what is stored. Uploads go on meanwhile: what they add may be counted twice, until the next time."""
    now = time.time()
    with _count() as count:
        before, last, count.measured = count.bytes, count.measured, now  # first, so that no other upload measures too
    try:
        total = storage().total()
    except BaseException:
        with _count() as count:
            count.measured = last
        raise
    with _count() as count:
        if count.measured == now:  # else the result is that of a measure that has begun later
            count.bytes = total + max(count.bytes - before, 0)


@contextlib.contextmanager
def _count() -> Iterator[Count]:
    """Return the count, to read and to change by this thread alone."""
    with folder.locked(folder.TOTAL) as file:
        try:
            found = Count(**json.load(file))
        except (ValueError, TypeError):  # empty, or a crash while it was written
            found = Count()
        if found.storage != (chosen := current_app.config["UPLOAD_STORAGE"]):  # it was another one until now
            found = Count(chosen)
        before = asdict(found)
        yield found
        if asdict(found) != before:
            file.seek(0)
            file.truncate()
            json.dump(asdict(found), file)
