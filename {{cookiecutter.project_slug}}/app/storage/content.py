"""The content of uploaded files: which types are accepted, and how a file's type is verified (9.S1).

The extension, the first bytes and the declared Content-Type must agree. An attacker controls all three, but only a
file that satisfies all of them at once gets the media type with which it is later served. Images are then decoded and
encoded again, so that only their pixels are kept.
Source: OWASP File Upload Cheat Sheet; ASVS 5.0 V5.2.1, V5.2.2, V5.2.6.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO

from PIL import Image, ImageCms, ImageOps

from app.security.errors import Refusal, refuse
from app.storage import pdf
from app.storage.names import extension

log = logging.getLogger(__name__)

CHUNK = 64 * 1024

# Phones and cameras produce photos of up to 24 megapixels by default. Decoded, such a photo takes 100 MB.
MAX_PIXELS = 25_000_000
# All frames of an animation together.
MAX_ANIMATION_PIXELS = 2 * MAX_PIXELS
MAX_FRAMES = 1000
# Pillow's own limit works where the checks below can't: inside decoders, before there is an image.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# The options of each encoder; all others are dropped. WebP is always written lossy, since lossless takes ten times
# as long. The numbers balance time against size.
ENCODING: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 90, "method": 2},
    "GIF": {},
}
NO_METADATA: dict[str, object] = {"comment": b"", "exif": b"", "xmp": b"", "icc_profile": None}

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

# Decoding needs much memory, so each process decodes only one image at a time.
_decoder = threading.Lock()
DECODER_WAIT = 10  # seconds


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


def clean(stream: IO[bytes], file_type: FileType) -> IO[bytes]:
    """Return the content to store: an image encoded again, any other file unchanged. Raises Refusal (422, 503)."""
    if not file_type.image_format:
        return stream
    if not _decoder.acquire(timeout=DECODER_WAIT):
        refuse(503, "Too many images are being processed. Please try again in a moment.", retry_after=DECODER_WAIT)
    try:
        with Image.open(stream, formats=[file_type.image_format]) as image:
            return _redraw(image, file_type.image_format)
    except Refusal:
        raise
    except Exception as error:  # on malicious input, decoders raise almost any exception
        log.info("image refused: %r", error)
        refuse(422, "This image is damaged, or too large to be decoded.")
    finally:
        _decoder.release()


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


def _redraw(image: Image.Image, image_format: str) -> IO[bytes]:
    """Return a new file with only the pixels: without comments, EXIF (which may have a location), XMP and profiles."""
    options = ENCODING[image_format] | NO_METADATA
    if image_format in ("GIF", "WEBP") and getattr(image, "is_animated", False):
        options |= {"save_all": True, "duration": _durations(image)}
        if "loop" in image.info:
            options["loop"] = image.info["loop"]
        if image.has_transparency_data:
            options["disposal"] = 2  # clear each frame before the next, which would otherwise be drawn over it
    else:
        image = _upright_in_srgb(image, image_format)
    result = io.BytesIO()
    image.save(result, image_format, **options)
    return result


def _bound(pixels: int, limit: int) -> None:
    if pixels > limit:
        refuse(422, f"This image has too many pixels: the maximum is {limit // 1_000_000} million.")


def _durations(image: Image.Image) -> list[int]:
    """Decode all frames, within the limits, and return their durations in milliseconds."""
    durations: list[int] = []
    pixels = 0
    while len(durations) < MAX_FRAMES:
        _bound(image.width * image.height, MAX_PIXELS)
        pixels += image.width * image.height
        _bound(pixels, MAX_ANIMATION_PIXELS)
        image.load()
        durations.append(image.info.get("duration", 0))
        try:
            image.seek(len(durations))
        except EOFError:
            image.seek(0)
            return durations
    refuse(422, f"This animation has too many frames: the maximum is {MAX_FRAMES}.")


def _upright_in_srgb(image: Image.Image, image_format: str) -> Image.Image:
    """Apply the EXIF rotation and the colour profile to the pixels, since both will be dropped."""
    _bound(image.width * image.height, MAX_PIXELS)
    ImageOps.exif_transpose(image, in_place=True)
    profile = image.info.get("icc_profile")
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target)
            image = converted or image
        except (ImageCms.PyCMSError, OSError):
            log.info("image with an unusable colour profile")
    if image_format == "JPEG" and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image
