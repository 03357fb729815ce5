"""What a stored file is, and what a storage can do. There are two storages: ``folder.py`` and ``bucket.py``.

``UPLOAD_STORAGE`` chooses one of them, in ``app/security/uploads.py``.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Protocol

from flask import current_app

from app.security.cookies import absolute_lifetime

# The writes of an upload take seconds. So what is incomplete after an hour is no longer in progress.
LEFTOVER_SECONDS = 3600

# 128 random bits each. Both become part of a path or a key, so no other form is allowed.
ID = re.compile(r"[0-9a-f]{32}")
OWNER = re.compile(r"(session-)?[0-9a-f]{32}")

log = logging.getLogger(__name__)


class StorageError(OSError):
    """The bucket can't be used. The message says why and what to do. It contains no secret and no file name."""


@dataclass(frozen=True)
class StoredFile:
    """A file that may be sent to its owner. ``size`` is in bytes, ``name`` for display only."""

    id: str
    owner: str
    name: str
    size: int
    type: str
    uploaded_at: datetime

    def facts(self) -> bytes:
        """Return the metadata that is stored beside the data, as JSON."""
        facts = {"name": self.name, "type": self.type, "uploaded_at": self.uploaded_at.isoformat()}
        return json.dumps(facts, ensure_ascii=False).encode()


def from_facts(file_id: str, owner: str, size: int, facts: bytes) -> StoredFile | None:
    """Return the file that the metadata ``facts`` describes. If it can't be read, log that and return None."""
    try:
        read = json.loads(facts)
        name, media_type, uploaded_at = read["name"], read["type"], datetime.fromisoformat(read["uploaded_at"])
        if not (isinstance(name, str) and isinstance(media_type, str) and uploaded_at.tzinfo):
            raise TypeError("not what StoredFile.facts returns")  # listing() would fail for all files
        return StoredFile(file_id, owner, name, size, media_type, uploaded_at)
    except (ValueError, KeyError, TypeError):
        log.exception("unreadable metadata of an upload")
        return None


class Storage(Protocol):
    """A storage of uploaded files. Each function may raise OSError."""

    def store(
        self, stream: IO[bytes], name: str, media_type: str, owner: str, *, check_quota: Callable[[list[int]], None]
    ) -> StoredFile:
        """Write the data, then the metadata, which makes the file visible. If this raises, nothing is visible.

        ``check_quota`` gets the sizes of all files of ``owner``, including this one, and raises if they exceed the
        quota. It is called after the data is written: of two concurrent uploads, the later one always sees both files.
        So the quota holds without a lock, which a crash could leave behind. Close to the limit, both may be refused.
        """

    def listing(self, owner: str) -> list[StoredFile]:
        """Return the files of ``owner``, in any order."""

    def find(self, owner: str, file_id: str) -> StoredFile | None:
        """Return one file of ``owner``, or None."""

    def fetch(self, file: StoredFile, start: int, stop: int, /) -> IO[bytes]:
        """Return the content of a file, open for reading at its first byte.

        Only the bytes from ``start`` up to ``stop``, without that one, have to be right: nobody reads the others.

        Raises FileNotFoundError if the file was deleted meanwhile.
        """

    def delete(self, file: StoredFile) -> None:
        """Delete a file."""

    def delete_all(self, owner: str) -> None:
        """Delete all files of ``owner``."""

    def sizes(self, owner: str) -> list[int]:
        """Return the size in bytes of each file of ``owner``, including those that are not visible yet."""

    def total(self) -> int:
        """Return how many bytes the files of all owners have together. This lists the whole storage."""

    def sweep(self) -> int:
        """Remove leftovers of crashes and the files of expired sessions. Returns the number of removed files."""

    def prove(self) -> None:
        """Write something, to show that the storage works. Raises OSError if it does not."""


def storage() -> Storage:
    """Return the storage of the current app."""
    chosen: Storage = current_app.extensions["upload_storage"]
    return chosen


def life(owner: str, whole: bool) -> float:
    """Return the age in seconds at which the sweep removes a file. ``whole``: its data and its metadata exist."""
    if not whole:
        return LEFTOVER_SECONDS
    return absolute_lifetime(current_app).total_seconds() if owner.startswith("session-") else math.inf
