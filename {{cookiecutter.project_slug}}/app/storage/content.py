"""The content of uploaded files: which types are accepted, and how a file's type is verified (9.S1).

The extension, the first bytes and the declared Content-Type must agree. An attacker controls all three, but only a
file that satisfies all of them at once gets the media type with which it is later served. Images are then decoded and
encoded again, so that only their pixels are kept.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.1, V5.2.2, V5.2.6.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from app.security.errors import refuse
from app.storage import images, pdf
from app.storage.names import extension

log = logging.getLogger(__name__)

CHUNK = 64 * 1024

# In two halves, so that no virus scanner mistakes this file for the test file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass(frozen=True)
class FileType:
    """An entry of the allow-list: the media type, the first bytes, and for images the name of Pillow's decoder."""

    media_type: str
    signature: re.Pattern[bytes]
    image_format: str = ""


# By extension. Text has no signature, so it comes last: it is any content without another type's signature.
TYPES = {
    "pdf": FileType("application/pdf", re.compile(rb"%PDF-\d")),
    "png": FileType("image/png", re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    "jpg": FileType("image/jpeg", re.compile(rb"\xff\xd8\xff"), "JPEG"),
    "webp": FileType("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
    "gif": FileType("image/gif", re.compile(rb"GIF8[79]a"), "GIF"),
    "txt": FileType("text/plain", re.compile(rb"")),
}
ALIASES = {"jpeg": "jpg"}

# Control characters, except those common in text (tab, line breaks, form feed): escapes could control a terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")


def identify(stream: IO[bytes], name: str, declared: str, allowed: Collection[str]) -> FileType:
    """Return the type of a file. Raises Refusal (415, 422) unless ``name``, ``declared`` and the content agree.

    ``declared`` is the Content-Type of the part. Browsers declare all types that are accepted here correctly, so a
    missing type and ``application/octet-stream`` are refused too.
    ``allowed`` are the extensions that this app accepts (``UPLOAD_EXTENSIONS``).
    """
    ending = ALIASES.get(extension(name), extension(name))
    if ending not in allowed:
        refuse(415, f"Files of this type are not accepted. Please send one of: {', '.join(allowed)}.")
    file_type = TYPES[ending]
    if declared != file_type.media_type:
        refuse(415, f"The file was sent as {declared or 'no type'!r}, but its name says {file_type.media_type}.")
    stream.seek(0)
    head = stream.read(pdf.WINDOW)
    if ending == "pdf":
        head = pdf.without_blanks(head)
    if next(kind for kind in TYPES.values() if kind.signature.match(head)) is not file_type:
        refuse(415, f"The content of this file is not {file_type.media_type}, as its name says.")
    if ending == "txt":
        _require_text(stream)
    if ending == "pdf":
        pdf.refuse_other_files(stream)
    _refuse_eicar(stream)
    return file_type


def clean(files: Sequence[tuple[IO[bytes], FileType]], owner: str, address: str) -> Iterator[IO[bytes]]:
    """Yield the content to store for each file: an image encoded again, any other file unchanged.

    ``owner`` and ``address`` are whose images these are. Raises Refusal (422, 503) where the refused file would come.
    """
    redrawn = images.redraw(
        [(stream, kind.image_format) for stream, kind in files if kind.image_format], owner, address
    )
    for stream, kind in files:
        yield next(redrawn) if kind.image_format else stream


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    stream.seek(0)
    while chunk := stream.read(CHUNK):
        yield chunk


def _require_text(stream: IO[bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        if any(_CONTROLS.search(decoder.decode(chunk)) for chunk in _chunks(stream)):
            refuse(415, "This is not a text file: it contains control characters.")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        refuse(415, "This is not a UTF-8 text file. Please save it with UTF-8 encoding.")


def _refuse_eicar(stream: IO[bytes]) -> None:
    seam = b""
    for chunk in _chunks(stream):
        if EICAR in seam + chunk:
            message = "This file is the EICAR test for virus scanners. It is not accepted."
            refuse(422, message, event="upload_validation", found="EICAR")
        seam = chunk[1 - len(EICAR) :]
