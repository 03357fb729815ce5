"""Mitigation 9, uploads: a stranger's file must not run, climb, fill the disk or reach another visitor.

A file becomes visible only after it has proved its type, passed the virus scanner, and found room in its owner's
quota; it is stored outside the app under a random name and goes back to its owner alone, marked as data.
What proves a type is in app/files/content.py, what makes a name fit to be shown in app/files/names.py.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.1, V5.2.2, V5.2.4, V5.2.6, V5.3.1, V5.3.2, V5.4.1-V5.4.3.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click
from flask import Flask, Response, current_app, request, send_file
from flask.cli import AppGroup
from jinja2.filters import do_filesizeformat
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from app.audit.findings import Finding
from app.files import clamd, content
from app.files.names import display_name
from app.security.errors import Refusal, refuse, respond
from app.settings import SettingsError

TITLE = "File uploads"
SUMMARY = "Files are checked for what they are, kept outside the app, and shown to their owner alone."

# The token and what else a form sends; the files of one request. Werkzeug's own bounds are 500 kB and 1,000.
# Its multipart reader holds up to two chunks of 64 KiB against this bound, of files too: less would refuse those.
MAX_FORM_MEMORY_SIZE = 128 * 1024
MAX_FORM_PARTS = 100

# What uploads must leave free on the disk, for the database and the logs beside them.
FREE_DISK_FLOOR = 256 * 2**20
SCAN_SECONDS = 30.0
# How much of a refused body is still read, for the client to hear why.
LINGER_BYTES = 64 * 2**20
LINGER_SECONDS = 10
LEFTOVER_SECONDS = 3600

# Both become part of a path, so nothing else gets there: 128 random bits each.
ID = re.compile(r"[0-9a-f]{32}")
OWNER = re.compile(r"(session-)?[0-9a-f]{32}")

# For pages that show a file itself: it runs nothing, loads nothing, and no other site can embed it (9.S7).
DOWNLOAD_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-store",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A file that may be shown to its owner. ``size`` is in bytes; ``name`` is for people, ``path`` for the server."""

    id: str
    name: str
    size: int
    type: str
    uploaded_at: datetime
    path: Path


@dataclass(frozen=True)
class Quota:
    """What an owner uses, and the bounds. Sizes are in bytes."""

    used_bytes: int
    max_bytes: int
    used_files: int
    max_files: int
    max_file_bytes: int
    extensions: tuple[str, ...]


def init_app(app: Flask) -> None:
    """Make ``UPLOAD_DIR``, and bound what a request may send. Raises SettingsError."""
    app.config["UPLOAD_DIR"] = _make_private_dir(Path(app.config["UPLOAD_DIR"]).resolve(), app)
    app.config.update(MAX_FORM_MEMORY_SIZE=MAX_FORM_MEMORY_SIZE, MAX_FORM_PARTS=MAX_FORM_PARTS)
    # Before every before_request hook, since the check of the CSRF token already reads the body.
    app.url_value_preprocessor(_bound_bodies_held_in_memory)
    app.after_request(_read_the_rest)
    app.register_error_handler(RequestEntityTooLarge, _name_the_limit)
    app.cli.add_command(_commands)


def check(app: Flask) -> Iterator[Finding]:
    """Look at the bounds, at who may read the directory, and at whether it is one."""
    for name in ("MAX_CONTENT_LENGTH", "MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS"):
        if not app.config.get(name):
            yield Finding("UP05", "missing", f"{name} is not set: one request can fill memory or disk.", f"Set {name}.")
    folder = app.config["UPLOAD_DIR"]
    if fault := _misplaced(folder, app):
        yield Finding("UP03", "missing", f"UPLOAD_DIR {fault}.", "Set it to a folder of its own, outside the app.")
    if os.name == "posix" and os.path.isdir(folder) and (mode := folder.stat().st_mode & 0o077):
        yield Finding("UP03", "relaxed", f"Other users of this machine get {mode:03o} on UPLOAD_DIR.", "chmod 700 it.")
    if unknown := set(app.config["UPLOAD_EXTENSIONS"]) - set(content.TYPES):
        yield Finding("UP01", "missing", f"Nothing checks the types {', '.join(sorted(unknown))}.", "Remove them.")


def new_session_owner() -> str:
    """Make the owner for a visitor without an account. Its files end with its session: see ``sweep``."""
    return f"session-{secrets.token_hex(16)}"


def save(file: FileStorage, owner: str) -> StoredFile:
    """Check ``file`` and store it for ``owner``.

    Raises Refusal: 413 too large or quota used up, 415 wrong type, 422 damaged or malicious, 503 not now.
    Then nothing of it is kept.
    """
    name = display_name(file.filename or "")
    size = file.stream.seek(0, os.SEEK_END)
    if not size:
        refuse(422, "This file is empty.")
    if size > current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge
    if shutil.disk_usage(current_app.config["UPLOAD_DIR"]).free - size < FREE_DISK_FLOOR:
        log.error("upload refused: less than %s free in UPLOAD_DIR", do_filesizeformat(FREE_DISK_FLOOR, True))
        refuse(503, "There is no room for uploads at the moment.", retry_after=3600)
    file_type = content.identify(file.stream, name, file.mimetype, current_app.config["UPLOAD_EXTENSIONS"])
    _refuse_malware(file.stream)
    return _store(content.clean(file.stream, file_type), name, file_type.media_type, owner)


def save_all(files: Sequence[FileStorage], owner: str) -> list[StoredFile]:
    """Store all ``files`` or none: who hears of a fault in one of five can mend it and send the five again."""
    stored: list[StoredFile] = []
    for file in files:
        try:
            stored.append(save(file, owner))
        except Exception as error:
            for done in stored:
                delete(owner, done.id)
            if isinstance(error, Refusal) and error.code and len(files) > 1:
                text = f"{display_name(file.filename or '')}: {error.message} None of the files was kept."
                refuse(error.code, text, retry_after=error.retry_after)
            raise
    return stored


def listing(owner: str) -> list[StoredFile]:
    """Give the files of ``owner``, newest first."""
    folder = _folder(owner)
    ids = [path.stem for path in folder.glob("*.json")] if folder.is_dir() else []
    files = [file for file_id in ids if (file := _read(folder, file_id))]
    return sorted(files, key=lambda file: file.uploaded_at, reverse=True)


def find(owner: str, file_id: str) -> StoredFile:
    """Give one file of ``owner``. Raises Refusal (404), whether there is no such file or it is somebody else's."""
    file = _read(_folder(owner), file_id) if ID.fullmatch(file_id) else None
    return file or refuse(404, "There is no such file here. It may have been deleted.")


def delete(owner: str, file_id: str) -> None:
    """Delete one file of ``owner``. Raises Refusal (404)."""
    file = find(owner, file_id)
    file.path.with_suffix(".json").unlink(missing_ok=True)
    # Windows can't delete what is being downloaded. It is out of sight already, and the sweep gets it later.
    with contextlib.suppress(PermissionError):
        file.path.unlink(missing_ok=True)


def delete_all(owner: str) -> None:
    """Delete everything of ``owner``."""
    folder = _folder(owner)
    for _ in range(5):  # an upload that is under way may put a file there meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise OSError(f"the uploads of {owner} can't be deleted")


def quota(owner: str) -> Quota:
    """Give what ``owner`` uses and may use."""
    used, config = _sizes(_folder(owner)), current_app.config
    allowed = config["UPLOAD_EXTENSIONS"]
    return Quota(
        used_bytes=sum(used),
        max_bytes=config["UPLOAD_QUOTA_BYTES"],
        used_files=len(used),
        max_files=config["UPLOAD_QUOTA_FILES"],
        max_file_bytes=config["MAX_CONTENT_LENGTH"],
        extensions=(*allowed, *(alias for alias, ending in content.ALIASES.items() if ending in allowed)),
    )


def send(file: StoredFile, *, inline: bool = False) -> Response:
    """Make the response that gives ``file`` to its owner; ``inline`` shows an image, and nothing else, in the page."""
    attach = not (inline and file.type.startswith("image/"))
    try:
        response = send_file(file.path, file.type, as_attachment=attach, download_name=file.name, etag=file.id)
    except FileNotFoundError:  # deleted in another window since it was found
        refuse(404, "This file has been deleted.")
    response.headers.update(DOWNLOAD_HEADERS)
    return response


def sweep() -> int:
    """Remove what a crash left behind and what no session can reach any more. Gives the number of files removed."""
    removed = 0
    now = time.time()
    for folder in current_app.config["UPLOAD_DIR"].iterdir():
        if not OWNER.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        names = {path.name for path in folder.iterdir() if path.is_file()}
        for name in names:
            file_id = name.removesuffix(".json")
            whole = {file_id, f"{file_id}.json"} <= names
            # An upload needs seconds between its first and its last file; an hour is far from any that is under way.
            life: float = math.inf if whole else LEFTOVER_SECONDS
            if whole and folder.name.startswith("session-"):
                life = current_app.config["SESSION_ABSOLUTE_LIFETIME"]
            with contextlib.suppress(FileNotFoundError):
                if now - (folder / name).stat().st_mtime > life:
                    (folder / name).unlink()
                    removed += 1
        with contextlib.suppress(OSError):
            folder.rmdir()  # only an empty one can be removed
    return removed


_commands = AppGroup("uploads", help="Look after the uploaded files.")


@_commands.command("sweep")
def _sweep_command() -> None:
    """Remove leftovers of crashes, and files of ended sessions. Run it daily."""
    click.echo(f"Removed {sweep()} files.")


def _bound_bodies_held_in_memory(endpoint: str | None, values: dict[str, object] | None) -> None:
    """Only multipart bodies are spooled to disk. Others are parsed whole: 10 MB of ``a&a&a…`` would take a gigabyte."""
    if request.mimetype != "multipart/form-data":
        request.max_content_length = min(MAX_FORM_MEMORY_SIZE, current_app.config["MAX_CONTENT_LENGTH"])


def _name_the_limit(error: RequestEntityTooLarge) -> Response:
    limit = do_filesizeformat(request.max_content_length or 0, binary=True)
    return respond(Refusal(413, f"This is more than fits in one request: {limit}, in at most {MAX_FORM_PARTS} parts."))


def _read_the_rest(response: Response) -> Response:
    """Read what is left of a body that was refused half-way, within bounds, and drop it.

    A client that is still sending sees its connection reset otherwise, and never the answer (RFC 9112, 9.6).
    """
    if request.environ.get("wsgi.input_terminated"):
        body, left, end = request.environ["wsgi.input"], LINGER_BYTES, time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(Exception):  # whatever breaks here, the answer stands
            while left > 0 and time.monotonic() < end and (read := body.read(content.CHUNK)):
                left -= len(read)
    return response


def _misplaced(folder: Path, app: Flask) -> str:
    """Say what is wrong with the place of ``folder``: files in these places would be run, rendered or served to all."""
    for name, place in {"the app": app.root_path, "the static files": app.static_folder or app.root_path}.items():
        if folder.is_relative_to(Path(place).resolve()):
            return f"lies inside {name}"
        if Path(place).resolve().is_relative_to(folder):
            return f"contains {name}"
    if not os.path.isdir(folder):  # which doesn't mind a folder around it that is closed to whoever asks
        return "is no folder" if os.path.exists(folder) else ""
    if os.access(folder, os.R_OK) and any(not _is_ours(path) for path in folder.iterdir()):
        return "holds other files, and would be closed to all others"
    return ""


def _make_private_dir(folder: Path, app: Flask) -> Path:
    fault = _misplaced(folder, app)
    if not fault:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not ours to change on some mounted volumes; the audit tells, and the owners' directories are private.
            with contextlib.suppress(PermissionError):
                folder.chmod(0o700)
        except OSError as error:
            fault = f"can't be made ({error.strerror})"
        if not fault and not os.access(folder, os.W_OK | os.X_OK):
            fault = "can't be written to"
    if fault:
        raise SettingsError(f"UPLOAD_DIR: {fault} (is '{folder}'). Example: UPLOAD_DIR=/srv/uploads")
    return folder


def _is_ours(path: Path) -> bool:
    return bool(OWNER.fullmatch(path.name)) or path.name in ("lost+found", ".gitkeep")


def _folder(owner: str) -> Path:
    if not OWNER.fullmatch(owner):
        raise ValueError("not an owner of uploads")
    folder: Path = current_app.config["UPLOAD_DIR"] / owner
    return folder


def _refuse_malware(stream: IO[bytes]) -> None:
    if not (url := current_app.config["CLAMD_URL"]):
        return
    try:
        found = clamd.scan(stream, url, seconds=SCAN_SECONDS)
    except OSError:
        log.exception("upload refused: the virus scanner gave no verdict")
        refuse(503, "Files can't be checked for viruses at the moment, so none are taken.", retry_after=60)
    if found:
        log.warning("upload refused: the virus scanner found %s", found)
        refuse(422, "The virus scanner found malware in this file.")


def _store(stream: IO[bytes], name: str, media_type: str, owner: str) -> StoredFile:
    """Write the data, claim its place in the quota, and then the metadata, which is what makes the file visible."""
    folder, file_id = _folder(owner), secrets.token_hex(16)
    path, now = folder / file_id, datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_whole(path, stream)
        _refuse_over_quota(folder)
        file = StoredFile(file_id, name, path.stat().st_size, media_type, now, path)
        facts = {"name": name, "type": media_type, "uploaded_at": now.isoformat()}
        _write_whole(path.with_suffix(".json"), io.BytesIO(json.dumps(facts).encode()))
    except Exception as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            log.exception("upload not stored")
            refuse(503, "The file could not be stored. Please try again.", retry_after=60)
        raise
    return file


def _write_whole(path: Path, stream: IO[bytes]) -> None:
    """Write ``path`` so that there is, whenever the power fails, either all of it or nothing."""
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


def _sizes(folder: Path) -> list[int]:
    """Give the bytes of each stored file, those included which are not visible yet."""
    sizes = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # refused or deleted at this moment
                if ID.fullmatch(path.name):
                    sizes.append(path.stat().st_size)
    return sizes


def _refuse_over_quota(folder: Path) -> None:
    """Count after the claim, not before: of two uploads at once, the later one is sure to see both files.

    So the quota holds without a lock, which a crash could leave behind. At its very edge both may be refused.
    """
    sizes = _sizes(folder)
    max_files, max_bytes = current_app.config["UPLOAD_QUOTA_FILES"], current_app.config["UPLOAD_QUOTA_BYTES"]
    if len(sizes) > max_files:
        refuse(413, f"You have the most files that you may keep: {max_files}. Please delete some first.")
    if sum(sizes) > max_bytes:
        limit = do_filesizeformat(max_bytes, binary=True)
        refuse(413, f"With this file you would keep more than {limit}. Please delete some first.")


def _read(folder: Path, file_id: str) -> StoredFile | None:
    """Read the metadata; what is not whole is not there."""
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
