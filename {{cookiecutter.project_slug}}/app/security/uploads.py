"""Mitigation 9, uploads: an uploaded file must not run, traverse paths, fill the disk or reach another visitor.

A file becomes visible only after its type is verified, the virus scanner has passed it, and it fits into its owner's
quota. It is stored outside the app under a random name, and sent only to its owner, as data.
app/storage/content.py verifies types, app/storage/images.py encodes images again, app/storage/names.py sanitizes names,
app/storage/folder.py or app/storage/bucket.py stores the files, and bodies.py limits the sizes of requests.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V1.3.4, V3.2.1, V3.5.8, V5.2.1, V5.2.2, V5.2.4, V5.2.6, V5.3.1,
V5.3.2, V5.4.1-V5.4.3, V8.2.2, V16.5.2, V16.5.3.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

import click
from flask import Flask, Response, current_app, request, send_file
from flask.cli import AppGroup
from werkzeug.datastructures import FileStorage
from werkzeug.wsgi import wrap_file

from app.breaker import Breaker
from app.logs import security_event
from app.security.bodies import door, in_units, max_body, too_large
from app.security.errors import Refusal, refuse, respond
from app.security.findings import Finding
from app.security.headers import CSP_OF_LAST_RESORT
from app.security.networks import client_address
from app.settings import LOOPBACK_HOSTS, SettingsError
from app.storage import clamd, content, folder, images, total
from app.storage.bucket import Bucket
from app.storage.names import display_name
from app.storage.stored import Storage, StorageError, StoredFile, storage

NUMBER = 9
TITLE = "File uploads"
SUMMARY = "Files must prove their type, are stored outside the app, and are available only to their owner."

# The disk space that uploads must leave free for the database and the logs.
FREE_DISK_FLOOR = 256 * 2**20
SCAN_SECONDS = 30.0
_scanner = Breaker(threads=4, patient=4, patience=10)

# For responses that contain a file: it can run and load nothing, and no site can embed or frame it (9.S7).
DOWNLOAD_HEADERS = {
    "Content-Security-Policy": f"sandbox; {CSP_OF_LAST_RESORT}",
    "Cache-Control": "private, no-store",
}

log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Choose where files are stored. Raises SettingsError if ``UPLOAD_DIR`` or the settings of the bucket are wrong."""
    app.config["UPLOAD_DIR"] = place = Path(app.config["UPLOAD_DIR"]).resolve()
    if fault := _misplaced(place, app):
        raise SettingsError(f"UPLOAD_DIR: {fault} (is '{place}'). Example: UPLOAD_DIR=/srv/uploads")
    app.extensions["upload_storage"] = folder if app.config["UPLOAD_STORAGE"] == "folder" else _bucket(app)
    app.register_error_handler(StorageError, _answer_without_storage)
    app.cli.add_command(_commands)


def _bucket(app: Flask) -> Storage:
    try:
        return Bucket(app.config)
    except ImportError as error:
        fix = "pip install --require-hashes -r requirements-s3.txt"
        raise SettingsError(f"UPLOAD_STORAGE: a bucket needs boto3. Run: {fix}") from error
    except ValueError as error:
        raise SettingsError(f"UPLOAD_STORAGE: {error}") from error


def _answer_without_storage(error: Exception) -> Response:
    """Return a 503, with one line in the log."""
    log.error("uploads: %s", error)
    message = "The files can't be reached at the moment. Please try again in a few minutes."
    return respond(Refusal(503, message, retry_after=60, event=None))


def check(app: Flask) -> Iterator[Finding]:
    """Report storage that others can read, and a system that bounds no memory."""
    if sys.platform in ("darwin", "win32"):
        evidence = "This system doesn't limit the memory of the process that decodes images, only its time."
        yield Finding("UP05", "note", evidence, "Serve the app on Linux.")
    threads, places = os.environ.get("THREADS", ""), images.SMALL.places + images.LARGE.places
    if threads.isdecimal() and int(threads) < 2 * places:
        evidence = f"{places} requests may wait for images, and a worker serves only {threads} at a time (THREADS)."
        yield Finding("UP05", "note", evidence, f"Set THREADS to {2 * places} or more.")
    url = urlsplit(app.config["AWS_ENDPOINT_URL_S3"] if app.config["UPLOAD_STORAGE"] != "folder" else "")
    if url.scheme == "http" and url.hostname not in (*LOOPBACK_HOSTS, "::1"):
        evidence = f"Files go to {url.hostname} unencrypted: AWS_ENDPOINT_URL_S3 is http."
        yield Finding("UP03", "relaxed", evidence, "Use https in AWS_ENDPOINT_URL_S3.")
    place = app.config["UPLOAD_DIR"]
    if os.name == "posix" and os.path.isdir(place) and (mode := place.stat().st_mode & 0o077):
        evidence = f"Other users of this machine have access to UPLOAD_DIR (permission bits {mode:03o})."
        yield Finding("UP03", "relaxed", evidence, f"Run: chmod 700 {place}")


def new_session_owner() -> str:
    """Return a new owner id for a visitor without an account. The sweep deletes its files after the session."""
    return f"session-{secrets.token_hex(16)}"


def save(file: FileStorage, owner: str) -> StoredFile:
    """Check ``file``, store it for ``owner``, and return it.

    Raises Refusal: 413 too large or over quota, 415 wrong type, 422 damaged, malicious or over a limit of the virus
    scanner, 503 temporarily unavailable. A refused file leaves nothing behind.
    """
    return save_all([file], owner)[0]


def save_all(files: Sequence[FileStorage], owner: str) -> list[StoredFile]:
    """Store all ``files`` or none, and return them: after an error in one, the user can fix it and send all again."""
    types, stored = [], list[StoredFile]()
    try:
        for file in files:
            with _named(file, files):
                types.append(_identify(file))
        streams = [file.stream for file in files]
        # The widest network that one customer may have: two of its addresses could hold all places of a lane.
        network = client_address(48) or client_address()
        cleaned = content.clean([*zip(streams, types, strict=True)], owner, network)
        for file, file_type in zip(files, types, strict=True):
            with _named(file, files):
                stored.append(_store(cleaned, display_name(file.filename or ""), file_type.media_type, owner))
    except Exception:
        discard(stored)
        raise
    return stored


@contextlib.contextmanager
def _named(file: FileStorage, files: Sequence[FileStorage]) -> Iterator[None]:
    """Say in a refusal which of several ``files`` it is about."""
    try:
        yield
    except Refusal as error:
        if error.code and len(files) > 1:
            text = f"{display_name(file.filename or '')}: {error.message} None of the files was kept."
            refuse(error.code, text, retry_after=error.retry_after, event=error.event, **error.fields)
        raise


def _identify(file: FileStorage) -> content.FileType:
    """Return the type of a file that may be stored. Raises Refusal."""
    size = file.stream.seek(0, os.SEEK_END)
    if not size:
        refuse(422, "This file is empty.")
    if size > max_body():
        text = f"This file is too large: the maximum is {in_units(max_body())}."
        raise too_large(text, door("max_bytes", max_body()))
    if storage() is folder:  # a bucket uses no disk of this machine
        _refuse_on_full_disk(size)
    name = display_name(file.filename or "")
    file_type = content.identify(file.stream, name, file.mimetype, current_app.config["UPLOAD_EXTENSIONS"])
    _refuse_malware(file.stream)
    return file_type


def find(owner: str, file_id: str) -> StoredFile:
    """Return one file of ``owner``. Raises Refusal (404) if there is none, or if it belongs to another owner."""
    message = "There is no such file here. It may have been deleted."
    return storage().find(owner, file_id) or refuse(404, message, event="authz_fail", file=file_id)


def delete(owner: str, file_id: str) -> None:
    """Delete one file of ``owner``. Raises Refusal (404)."""
    storage().delete(find(owner, file_id))
    security_event("upload_delete", file=file_id)


def discard(files: Sequence[StoredFile]) -> None:
    """Delete the ``files`` of a request that has failed. The log names those that can't be deleted now."""
    for file in files:
        try:
            storage().delete(file)
        except OSError as error:
            log.error("a file of a failed upload is still there: %s of %s (%s)", file.id, file.owner, error)
        else:
            security_event("upload_delete", file=file.id)


def quota(files: Sequence[StoredFile]) -> dict[str, Any]:
    """Return the space that the ``files`` of an owner use, and the limits, for a page. Sizes are in bytes."""
    config = current_app.config
    allowed = config["UPLOAD_EXTENSIONS"]
    return {
        "used_bytes": sum(file.size for file in files),
        "max_bytes": config["UPLOAD_QUOTA_BYTES"],
        "used_files": len(files),
        "max_files": config["UPLOAD_QUOTA_FILES"],
        "max_file_bytes": max_body(),
        "extensions": (*allowed, *(alias for alias, ending in content.ALIASES.items() if ending in allowed)),
    }


def send(file: StoredFile, *, inline: bool = False) -> Response:
    """Return the response that sends ``file`` to its owner. With ``inline``, the browser shows it if it is an image.

    The storage is asked only for the part that the request asks for, since a bucket has to copy it. Raises Refusal
    (404 if the file has been deleted, 412 if ``If-Match`` names another one) and RequestedRangeNotSatisfiable (416).
    """
    response = send_file(
        io.BytesIO(),
        file.type,
        as_attachment=not (inline and file.type.startswith("image/")),
        download_name=file.name,
        conditional=False,
        etag=file.id,
        last_modified=file.uploaded_at,
    )
    response.content_length = file.size
    if request.if_match and not (request.if_match.star_tag or request.if_match.is_strong(file.id)):
        refuse(412, "This is not the version of the file that the request asks for.")
    asked = request.environ | {"HTTP_IF_MATCH": ""}  # checked above: Werkzeug (3.1.9) reads * as an ETag
    if not re.fullmatch("(?i)bytes=[^,]*", request.headers.get("Range", "")):
        asked.pop("HTTP_RANGE", None)  # RFC 9110: ignore other units; several ranges may be ignored too
    response.make_conditional(asked, accept_ranges=True, complete_length=file.size)
    response.headers.update(DOWNLOAD_HEADERS)
    if request.method == "HEAD" or response.status_code == 304:
        return response
    part = response.content_range
    try:
        stream = storage().fetch(file, part.start or 0, part.stop or file.size)
    except FileNotFoundError:  # deleted in another window since it was found
        refuse(404, "This file has been deleted.")
    response.response = wrap_file(request.environ, stream)
    response.make_conditional(asked, accept_ranges=True, complete_length=file.size)  # cuts the part out
    return response


_commands = AppGroup("uploads", help="Maintain the uploaded files.")


@_commands.command("sweep")
def _sweep_command() -> None:
    """Remove leftovers of crashes and the files of expired sessions. Run it daily."""
    try:
        removed = storage().sweep()
        total.measure()
    except StorageError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Removed {removed} files.")


def _misplaced(place: Path, app: Flask) -> str:
    """Return why files can't be stored in ``place``, else ''. Inside the app they could be run, rendered or served."""
    for name, code in {"the app": app.root_path, "the static files": app.static_folder or app.root_path}.items():
        if place.is_relative_to(Path(code).resolve()):
            return f"lies inside {name}"
        if Path(code).resolve().is_relative_to(place):
            return f"contains {name}"
    if not os.path.isdir(place):  # unlike Path.is_dir, raises nothing if a parent folder is not accessible
        if os.path.exists(place):
            return "is not a folder"
        around = next(parent for parent in place.parents if os.path.isdir(parent))
        return "" if os.access(around, os.W_OK | os.X_OK) else "can't be created"
    if os.access(place, os.R_OK):
        with os.scandir(place) as entries:
            if not all(folder.is_ours(entry.name) for entry in entries):
                return "contains other files, and access to it would be restricted"
    return "" if os.access(place, os.W_OK | os.X_OK) else "can't be written to"


def _refuse_malware(stream: IO[bytes]) -> None:
    if not (url := current_app.config["CLAMD_URL"]):
        return
    try:
        with _scanner.attempt(OSError):
            found = clamd.scan(stream, url, seconds=SCAN_SECONDS)
    except OSError as error:
        log.error("upload refused: the virus scanner gave no verdict: %s", error)
        refuse(503, "Files can't be scanned for viruses at the moment, so none are accepted.", retry_after=60)
    if found and found.startswith(clamd.OVER_LIMIT):
        limit = found.removeprefix(clamd.OVER_LIMIT)
        message = "The virus scanner does not scan a file of this size or complexity, so it is not accepted."
        refuse(422, message, limit=f"{limit} in clamd.conf")
    if found:
        refuse(422, "The virus scanner found malware in this file.", event="upload_validation", found=found)


def _refuse_on_full_disk(size: int) -> None:
    try:
        free = shutil.disk_usage(folder.root()).free
    except OSError:
        _not_stored()
    if free - size < FREE_DISK_FLOOR:
        log.error("upload refused: less than %s free in UPLOAD_DIR", in_units(FREE_DISK_FLOOR))
        refuse(503, "There is no room for uploads at the moment.", retry_after=3600)


def _not_stored() -> NoReturn:
    """Refuse an upload that could not be written. Call it in an exception handler: it logs the exception."""
    log.exception("upload not stored")
    refuse(503, "The file could not be stored. Please try again.", retry_after=60)


def _store(streams: Iterator[IO[bytes]], name: str, media_type: str, owner: str) -> StoredFile:
    try:
        stream = next(streams)
        with total.claimed(stream.seek(0, os.SEEK_END)):
            file = storage().store(stream, name, media_type, owner, check_quota=_refuse_over_quota)
    except StorageError:  # has its own error handler
        raise
    except OSError:
        _not_stored()
    security_event("upload_stored", file=file.id, type=file.type, size=file.size)
    return file


def _refuse_over_quota(sizes: list[int]) -> None:
    max_files, max_bytes = current_app.config["UPLOAD_QUOTA_FILES"], current_app.config["UPLOAD_QUOTA_BYTES"]
    if len(sizes) > max_files:
        message = f"With this file you would have more than {max_files} files. Please delete some first."
        raise too_large(message, "UPLOAD_QUOTA_FILES")
    if sum(sizes) > max_bytes:
        message = f"With this file you would store more than {in_units(max_bytes)}. Please delete some first."
        raise too_large(message, "UPLOAD_QUOTA_BYTES")
