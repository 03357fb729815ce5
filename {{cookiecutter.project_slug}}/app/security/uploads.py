"""Mitigation 9, uploads: a stranger's file must not run, climb, fill the disk or reach another visitor.

A file becomes visible only after it has proved its type, passed the virus scanner, and found room in its owner's
quota. It is stored outside the app under a random name and goes back to its owner alone, marked as data.
What proves a type is in app/storage/content.py, what makes a name fit to be shown in app/storage/names.py, what keeps
the files in app/storage/folder.py.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.1, V5.2.2, V5.2.4, V5.2.6, V5.3.1, V5.3.2, V5.4.1-V5.4.3.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import click
from flask import Flask, Response, current_app, request, send_file
from flask.cli import AppGroup
from jinja2.filters import do_filesizeformat
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from app.security.errors import Refusal, refuse, respond
from app.security.findings import Finding
from app.settings import SettingsError
from app.storage import clamd, content, folder
from app.storage.folder import StoredFile
from app.storage.names import display_name

NUMBER = 9
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

# For pages that show a file itself: it runs nothing, loads nothing, and no other site can embed it (9.S7).
DOWNLOAD_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-store",
}

log = logging.getLogger(__name__)


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
    """Bound what a request may send. Raises SettingsError when files can't be kept in ``UPLOAD_DIR``."""
    app.config["UPLOAD_DIR"] = place = Path(app.config["UPLOAD_DIR"]).resolve()
    if fault := _misplaced(place, app):
        raise SettingsError(f"UPLOAD_DIR: {fault} (is '{place}'). Example: UPLOAD_DIR=/srv/uploads")
    app.config.update(MAX_FORM_MEMORY_SIZE=MAX_FORM_MEMORY_SIZE, MAX_FORM_PARTS=MAX_FORM_PARTS)
    # Before every before_request hook, since the check of the CSRF token already reads the body.
    app.url_value_preprocessor(_bound_bodies_held_in_memory)
    app.after_request(_read_the_rest)
    app.register_error_handler(RequestEntityTooLarge, _name_the_limit)
    app.cli.add_command(_commands)


def check(app: Flask) -> Iterator[Finding]:
    """State who else may read what is stored."""
    place = app.config["UPLOAD_DIR"]
    if os.name == "posix" and os.path.isdir(place) and (mode := place.stat().st_mode & 0o077):
        evidence = f"Other users of this machine get {mode:03o} on UPLOAD_DIR."
        yield Finding("UP03", "relaxed", evidence, f"Run: chmod 700 {place}")


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
    _refuse_on_full_disk(size)
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


def find(owner: str, file_id: str) -> StoredFile:
    """Return one file of ``owner``. Raises Refusal (404), whether there is no such file or it is somebody else's."""
    return folder.find(owner, file_id) or refuse(404, "There is no such file here. It may have been deleted.")


def delete(owner: str, file_id: str) -> None:
    """Delete one file of ``owner``. Raises Refusal (404)."""
    folder.delete(find(owner, file_id))


def quota(owner: str) -> Quota:
    """Give what ``owner`` uses and may use."""
    used, config = folder.sizes(owner), current_app.config
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


_commands = AppGroup("uploads", help="Look after the uploaded files.")


@_commands.command("sweep")
def _sweep_command() -> None:
    """Remove leftovers of crashes, and files of ended sessions. Run it daily."""
    click.echo(f"Removed {folder.sweep()} files.")


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


def _misplaced(place: Path, app: Flask) -> str:
    """Return why files can't be kept in ``place``: in some places they would be run, rendered or served to all."""
    for name, code in {"the app": app.root_path, "the static files": app.static_folder or app.root_path}.items():
        if place.is_relative_to(Path(code).resolve()):
            return f"lies inside {name}"
        if Path(code).resolve().is_relative_to(place):
            return f"contains {name}"
    if not os.path.isdir(place):  # which doesn't mind a folder around it that is closed to whoever asks
        if os.path.exists(place):
            return "is no folder"
        around = next(parent for parent in place.parents if os.path.isdir(parent))
        return "" if os.access(around, os.W_OK | os.X_OK) else "can't be made"
    if os.access(place, os.R_OK):
        with os.scandir(place) as entries:
            if not all(folder.is_ours(entry.name) for entry in entries):
                return "holds other files, and would be closed to all others"
    return "" if os.access(place, os.W_OK | os.X_OK) else "can't be written to"


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


def _refuse_on_full_disk(size: int) -> None:
    try:
        free = shutil.disk_usage(folder.root()).free
    except OSError:
        _not_stored()
    if free - size < FREE_DISK_FLOOR:
        log.error("upload refused: less than %s free in UPLOAD_DIR", do_filesizeformat(FREE_DISK_FLOOR, True))
        refuse(503, "There is no room for uploads at the moment.", retry_after=3600)


def _not_stored() -> NoReturn:
    """Refuse an upload that UPLOAD_DIR did not take. Call it where the exception is handled: its text is logged."""
    log.exception("upload not stored")
    refuse(503, "The file could not be stored. Please try again.", retry_after=60)


def _store(stream: IO[bytes], name: str, media_type: str, owner: str) -> StoredFile:
    try:
        return folder.store(stream, name, media_type, owner, claim=_refuse_over_quota)
    except OSError:
        _not_stored()


def _refuse_over_quota(sizes: list[int]) -> None:
    max_files, max_bytes = current_app.config["UPLOAD_QUOTA_FILES"], current_app.config["UPLOAD_QUOTA_BYTES"]
    if len(sizes) > max_files:
        refuse(413, f"You have the most files that you may keep: {max_files}. Please delete some first.")
    if sum(sizes) > max_bytes:
        limit = do_filesizeformat(max_bytes, binary=True)
        refuse(413, f"With this file you would keep more than {limit}. Please delete some first.")
