"""The storage of uploaded files: a folder for each owner, and in it two files for each upload (9.S3, 9.S4).

The data file has a random name. A ``.json`` file next to it has the display name, the type and the time. It is written
last and makes the upload visible: a crash leaves no visible partial file, and ``sweep`` removes its leftovers.
Source: OWASP File Upload Cheat Sheet, "File Storage Location"; ASVS 5.0 V5.3.1, V5.3.2.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from flask import current_app

from app import paths
from app.security.cookies import absolute_lifetime

# The file of turns.py: who decodes an image, and who waits.
TURNS = ".turns"

LEFTOVER_SECONDS = 3600

# Both become part of a path, so no other form is allowed: 128 random bits each.
ID = re.compile(r"[0-9a-f]{32}")
OWNER = re.compile(r"(session-)?[0-9a-f]{32}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A file that may be sent to its owner. ``size`` is in bytes, ``name`` for display only, ``path`` on the server."""

    id: str
    name: str
    size: int
    type: str
    uploaded_at: datetime
    path: Path


def root() -> Path:
    """Return ``UPLOAD_DIR``. Create it if necessary, and deny other users of this machine access to it."""
    folder: Path = current_app.config["UPLOAD_DIR"]
    paths.make_private_folder(folder)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        # Some mounted volumes don't allow it. The audit reports that, and the owners' folders are private anyway.
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)
    return folder


def store(
    stream: IO[bytes], name: str, media_type: str, owner: str, *, check_quota: Callable[[list[int]], None]
) -> StoredFile:
    """Write the data, then the metadata, which makes the file visible. If this raises, nothing is kept.

    ``check_quota`` gets the sizes of all files of ``owner``, including this one, and raises if they exceed the quota.
    It is called after the data is written: of two concurrent uploads, the later one always sees both files. So the
    quota holds without a lock, which a crash could leave behind. Close to the limit, both may be refused.
    """
    root()  # made if it is not there
    folder, file_id = _folder(owner), secrets.token_hex(16)
    path, now = folder / file_id, datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_whole(path, stream)
        check_quota(sizes(owner))
        file = StoredFile(file_id, name, path.stat().st_size, media_type, now, path)
        facts = {"name": name, "type": media_type, "uploaded_at": now.isoformat()}
        _write_whole(path.with_suffix(".json"), io.BytesIO(json.dumps(facts).encode()))
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return file


def listing(owner: str) -> list[StoredFile]:
    """Return the files of ``owner``, newest first."""
    folder = _folder(owner)
    ids = [path.stem for path in folder.glob("*.json")] if folder.is_dir() else []
    files = [file for file_id in ids if (file := _read(folder, file_id))]
    return sorted(files, key=lambda file: file.uploaded_at, reverse=True)


def find(owner: str, file_id: str) -> StoredFile | None:
    """Return one file of ``owner``, or None."""
    return _read(_folder(owner), file_id) if ID.fullmatch(file_id) else None


def delete(file: StoredFile) -> None:
    """Delete a file."""
    file.path.with_suffix(".json").unlink(missing_ok=True)
    # Windows can't delete a file during a download. It is already invisible, and the sweep removes it later.
    with contextlib.suppress(PermissionError):
        file.path.unlink(missing_ok=True)


def delete_all(owner: str) -> None:
    """Delete all files of ``owner``."""
    folder = _folder(owner)
    for _ in range(5):  # an upload in progress may add a file meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise OSError(f"the uploads of {owner} can't be deleted")


def sizes(owner: str) -> list[int]:
    """Return the size in bytes of each file of ``owner``, including those that are not visible yet."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(_folder(owner)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # refused or deleted at this moment
                if ID.fullmatch(entry.name):
                    found.append(entry.stat().st_size)
    return found


def sweep() -> int:
    """Remove leftovers of crashes and the files of expired sessions. Returns the number of removed files."""
    removed = 0
    now = time.time()
    for folder in root().iterdir():
        if not OWNER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        names = {path.name for path in folder.iterdir() if path.is_file()}
        for name in names:
            file_id = name.removesuffix(".json")
            whole = {file_id, f"{file_id}.json"} <= names
            # An upload takes seconds from its first to its last file, so after an hour it is not in progress any more.
            life: float = math.inf if whole else LEFTOVER_SECONDS
            if whole and folder.name.startswith("session-"):
                life = absolute_lifetime(current_app).total_seconds()
            with contextlib.suppress(FileNotFoundError):
                if now - (folder / name).stat().st_mtime > life:
                    (folder / name).unlink()
                    removed += 1
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails unless it is empty
    return removed


def is_ours(name: str) -> bool:
    """Return whether an entry of ``UPLOAD_DIR`` is from this package, or is common on volumes (``lost+found``)."""
    return bool(OWNER.fullmatch(name)) or name in (TURNS, "lost+found", ".gitkeep")


def _folder(owner: str) -> Path:
    if not OWNER.fullmatch(owner):
        raise ValueError("not an owner of uploads")
    folder: Path = current_app.config["UPLOAD_DIR"] / owner
    return folder


def _write_whole(path: Path, stream: IO[bytes]) -> None:
    """Write ``path`` atomically: after a power failure there is either the whole file or none."""
    part = path.with_name(f"{path.name}.part")
    stream.seek(0)
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            shutil.copyfileobj(stream, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _read(folder: Path, file_id: str) -> StoredFile | None:
    """Return the file with its metadata; None if it is missing or incomplete."""
    path = folder / file_id
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
        uploaded_at = datetime.fromisoformat(facts["uploaded_at"])
        return StoredFile(file_id, facts["name"], path.stat().st_size, facts["type"], uploaded_at, path)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        log.exception("unreadable metadata of an upload")
        return None
