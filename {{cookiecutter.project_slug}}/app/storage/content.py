"""The content of uploaded files: which types are accepted, and how a file's type is verified (9.S1).

The extension, the first bytes and the declared Content-Type must agree. An attacker controls all three, but only a
file that satisfies all of them at once gets the media type with which it is later served. Images are then decoded and
encoded again, so that only their pixels are kept.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.1, V5.2.2, V5.2.6.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from app.security.errors import refuse
from app.storage import images, pdf, text
from app.storage.names import extension

log = logging.getLogger(__name__)

HEAD = 1024  # bytes, in which signatures are looked for

# In two halves, so that no virus scanner mistakes this file for the test file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass(frozen=True)
class FileType:
    """An entry of the allow-list: with which media type a file is served, and what proves that it has this type.

    ``signature`` are its first bytes; None is for text, which has none. ``image_format`` is the name of Pillow's
    decoder. ``check`` reads the file and raises Refusal. ``also_declared`` are other types that browsers send for it.
    """

    media_type: str
    signature: re.Pattern[bytes] | None
    image_format: str = ""
    check: Callable[[IO[bytes]], None] | None = None
    also_declared: tuple[str, ...] = ()


# By extension. To accept another type, add a row.
TYPES = {
    "txt": FileType("text/plain", None, check=text.refuse_other_content),
    "pdf": FileType("application/pdf", pdf.HEADER, check=pdf.refuse_other_files),
    "png": FileType("image/png", re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    "jpg": FileType("image/jpeg", re.compile(rb"\xff\xd8\xff"), "JPEG"),
    "webp": FileType("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
    "gif": FileType("image/gif", re.compile(rb"GIF8[79]a"), "GIF"),
}
ALIASES = {"jpeg": "jpg"}


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
    if declared not in (file_type.media_type, *file_type.also_declared):
        refuse(415, f"The file was sent as {declared or 'no type'!r}, but its name says {file_type.media_type}.")
    stream.seek(0)
    head = stream.read(HEAD)
    signed = [kind for kind in TYPES.values() if kind.signature and kind.signature.match(head)]
    if not (file_type in signed if file_type.signature else signed == []):
        refuse(415, f"The content of this file is not {file_type.media_type}, as its name says.")
    if file_type.check:
        file_type.check(stream)
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


def _refuse_eicar(stream: IO[bytes]) -> None:
    seam = b""
    for chunk in text.chunks(stream):
        if EICAR in seam + chunk:
            message = "This file is the EICAR test for virus scanners. It is not accepted."
            refuse(422, message, event="upload_validation", found="EICAR")
        seam = chunk[1 - len(EICAR) :]
