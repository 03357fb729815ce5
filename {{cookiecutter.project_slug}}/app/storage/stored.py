"""What a stored file is, and what a storage can do: ``folder.py`` and ``bucket.py`` are the two there are.

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

# An upload takes seconds from its first to its last write, so after an hour it is not in progress any more.
LEFTOVER_SECONDS = 3600

# Both become part of a path, so no other form is allowed: 128 random bits each.
ID = re.compile(r"[0-9a-f]{32}")
OWNER = re.compile(r"(session-)?[0-9a-f]{32}")

log = logging.getLogger(__name__)


class StorageError(OSError):
    """The bucket can't be used. The message says why and what to do, and has no secret and no name of a file."""


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
        """Return what is stored beside the data."""
        facts = {"name": self.name, "type": self.type, "uploaded_at": self.uploaded_at.isoformat()}
        return json.dumps(facts, ensure_ascii=False).encode()


def from_facts(file_id: str, owner: str, size: int, facts: bytes) -> StoredFile | None:
    """Return the file to which these ``facts`` belong; None, with a line in the log, if they can't be read."""
    try:
        read = json.loads(facts)
        name, media_type, uploaded_at = read["name"], read["type"], datetime.fromisoformat(read["uploaded_at"])
        if not (isinstance(name, str) and isinstance(media_type, str) and uploaded_at.tzinfo):
            raise TypeError("not what StoredFile.facts gives")  # it would fail in the list of all files
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
        """Return the files of ``owner``, newest first."""

    def find(self, owner: str, file_id: str) -> StoredFile | None:
        """Return one file of ``owner``, or None."""

    def fetch(self, file: StoredFile) -> IO[bytes]:
        """Return the content of a file. Raises FileNotFoundError if it was deleted meanwhile."""

    def delete(self, file: StoredFile) -> None:
        """Delete a file."""

    def delete_all(self, owner: str) -> None:
        """Delete all files of ``owner``."""

    def sizes(self, owner: str) -> list[int]:
        """Return the size in bytes of each file of ``owner``, including those that are not visible yet."""

    def total(self) -> int:
        """Return the bytes of the files of all owners. This reads the whole storage."""

    def sweep(self) -> int:
        """Remove leftovers of crashes and the files of expired sessions. Returns the number of removed files."""

    def prove(self) -> None:
        """Write something. Raises OSError, which says why the storage can't be used."""


def storage() -> Storage:
    """Return the storage of the current app."""
    chosen: Storage = current_app.extensions["upload_storage"]
    return chosen


def life(owner: str, whole: bool) -> float:
    """Return the seconds after which the sweep removes a file; ``whole`` is whether both of its parts are there."""
    if not whole:
        return LEFTOVER_SECONDS
    return absolute_lifetime(current_app).total_seconds() if owner.startswith("session-") else math.inf
