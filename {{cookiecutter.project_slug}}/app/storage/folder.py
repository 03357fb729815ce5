"""The storage of uploaded files: a folder for each owner, and in it two files for each upload (9.S3, 9.S4).

The data file has a random name. A ``.json`` file next to it has the display name, the type and the time. It is written
last and makes the upload visible: a crash leaves no visible partial file, and ``sweep`` removes its leftovers.
Source: OWASP File Upload Cheat Sheet, "File Storage Location"; ASVS 5.0 V5.3.1, V5.3.2.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from flask import current_app

from app import paths
from app.storage.stored import ID, OWNER, StoredFile, from_facts, life

if os.name == "posix":
    import fcntl

# The files of turns.py (who decodes an image, and who waits) and of total.py (how many bytes are stored).
TURNS, TOTAL = ".turns", ".total"

State = TypeVar("State")

_door = threading.Lock()  # for Windows, which has no flock


def root() -> Path:
    """Return ``UPLOAD_DIR``. Create it if necessary, and deny other users of this machine access to it."""
    folder: Path = current_app.config["UPLOAD_DIR"]
    paths.make_private_folder(folder)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        # Some mounted volumes don't allow it. The audit reports that, and the owners' folders are private anyway.
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)
    return folder


def temporary() -> IO[bytes]:
    """Open a file without a name, on the disk of the uploads: the system's folder for them may be in memory."""
    return tempfile.TemporaryFile(dir=root())


@contextlib.contextmanager
def locked(name: str, parse: Callable[[Any], State], empty: Callable[[], State]) -> Iterator[State]:
    """Yield what ``parse`` makes of the JSON in a file of ``UPLOAD_DIR``, and write it if the block has changed it.

    Until then, no other thread can read it (on Windows, none of this process). ``empty`` replaces what is damaged.
    """
    flags = os.O_RDWR | os.O_CREAT
    with _door, open(os.open(root() / name, flags, 0o600), "r+") as file:
        if os.name == "posix":
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        before = file.read()
        try:
            state = parse(json.loads(before))
        except (ValueError, TypeError):  # a new file, or a crash while it was written
            state = empty()
        yield state
        if (after := json.dumps(state, default=asdict)) != before:
            file.seek(0)
            file.truncate()
            file.write(after)


def store(
    stream: IO[bytes], name: str, media_type: str, owner: str, *, check_quota: Callable[[list[int]], None]
) -> StoredFile:
    """See ``stored.Storage`` for this function and the public ones below."""
    root()  # made if it is not there
    folder, file_id = _folder(owner), secrets.token_hex(16)
    path, now = folder / file_id, datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_whole(path, stream)
        check_quota(sizes(owner))
        file = StoredFile(file_id, owner, name, path.stat().st_size, media_type, now)
        _write_whole(path.with_suffix(".json"), io.BytesIO(file.facts()))
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return file


def listing(owner: str) -> list[StoredFile]:
    folder = _folder(owner)
    ids = [path.stem for path in folder.glob("*.json")] if folder.is_dir() else []
    return [file for file_id in ids if (file := _read(owner, file_id))]


def find(owner: str, file_id: str) -> StoredFile | None:
    return _read(owner, file_id) if ID.fullmatch(file_id) else None


def fetch(file: StoredFile, _start: int, _stop: int) -> IO[bytes]:
    return (_folder(file.owner) / file.id).open("rb")


def delete(file: StoredFile) -> None:
    path = _folder(file.owner) / file.id
    path.with_suffix(".json").unlink(missing_ok=True)
    # Windows can't delete a file during a download. It is already invisible, and the sweep removes it later.
    with contextlib.suppress(PermissionError):
        path.unlink(missing_ok=True)


def delete_all(owner: str) -> None:
    folder = _folder(owner)
    for _ in range(5):  # an upload in progress may add a file meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise OSError(f"the uploads of {owner} can't be deleted")


def sizes(owner: str) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(_folder(owner)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # refused or deleted at this moment
                if ID.fullmatch(entry.name):
                    found.append(entry.stat().st_size)
    return found


def total() -> int:
    return sum(sum(sizes(path.name)) for path in root().iterdir() if OWNER.fullmatch(path.name) and path.is_dir())


def sweep() -> int:
    removed = 0
    now = time.time()
    for folder in root().iterdir():
        if not OWNER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            names = {path.name for path in folder.iterdir() if path.is_file()}
        except FileNotFoundError:  # deleted with its account meanwhile
            continue
        for name in names:
            file_id = name.removesuffix(".json")
            whole = {file_id, f"{file_id}.json"} <= names
            with contextlib.suppress(FileNotFoundError):
                if now - (folder / name).stat().st_mtime > life(folder.name, whole):
                    (folder / name).unlink()
                    removed += 1
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails unless it is empty
    return removed


def prove() -> None:
    with temporary() as probe:
        probe.write(b"ready")


def is_ours(name: str) -> bool:
    """Return whether an entry of ``UPLOAD_DIR`` is from this package, or is common on volumes (``lost+found``)."""
    return bool(OWNER.fullmatch(name)) or name in (TURNS, TOTAL, "lost+found", ".gitkeep")


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


def _read(owner: str, file_id: str) -> StoredFile | None:
    """Return the file with its metadata; None if it is missing or incomplete."""
    path = _folder(owner) / file_id
    try:
        return from_facts(file_id, owner, path.stat().st_size, path.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return None
