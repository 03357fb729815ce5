"""What the headers of an image say about the work to decode it, read before any decoder sees them (9.T4).

Whoever lies in a header fails later: ``image_worker.py`` has limits that don't depend on what is read here.
Source: ITU-T T.81, annex B (JPEG); W3C PNG, 11.2.2; RFC 9649 (WebP).
"""

from __future__ import annotations

import re
from typing import IO

from app.security.errors import refuse

# Photos have up to 200 segments, with a large colour profile and XMP; decoders need quadratic time for the metadata.
MAX_SEGMENTS = 500
# Each scan of a progressive JPEG visits all pixels again. Encoders write about 10.
MAX_SCANS = 100

_CHUNK = 8 * 1024
# 0xFF, followed by neither the stuffing of entropy-coded data (0), a restart marker nor a fill byte.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START, _END, _SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def still_pixels(stream: IO[bytes], image_format: str) -> int | None:
    """Return the number of pixels of a still image; None for one that is animated or that says no size.

    Raises Refusal (422) for a JPEG of more parts than an encoder writes.
    """
    if image_format == "JPEG":
        return _jpeg(stream)
    stream.seek(0)
    head = stream.read(_CHUNK)
    if image_format == "PNG" and head[12:16] == b"IHDR":
        if b"acTL" in head:  # which comes before the pixels
            return None
        return int.from_bytes(head[16:20]) * int.from_bytes(head[20:24])
    if image_format != "WEBP" or len(head) < 30:
        return None  # the header of a GIF doesn't say whether it is animated
    if head[12:16] == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return None if head[20] & 2 else width * height
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height


def _jpeg(stream: IO[bytes]) -> int | None:
    pixels, segments, scans, at = None, 0, 0, 0
    while found := _next_marker(stream, at):
        at, marker = found
        if marker == _END:
            break
        segments, scans = segments + 1, scans + (marker == _SCAN)
        for what, count, most in (("segments", segments, MAX_SEGMENTS), ("scans", scans, MAX_SCANS)):
            if count > most:
                refuse(422, f"This JPEG has too many {what}: the maximum is {most}.")
        if marker in (_START, _TEMPORARY):
            continue
        stream.seek(at)
        segment = stream.read(7)
        if marker in _FRAMES and pixels is None:
            pixels = int.from_bytes(segment[3:5]) * int.from_bytes(segment[5:7])
        at += int.from_bytes(segment[:2])
    return pixels


def _next_marker(stream: IO[bytes], at: int) -> tuple[int, int] | None:
    """Return the position behind the next marker, and its code."""
    stream.seek(at)
    data = b""
    while chunk := stream.read(_CHUNK):
        data += chunk
        if found := _MARKER.search(data):
            return at + found.end(), found[1][0]
        kept = data[-1:] if data.endswith(b"\xff") else b""
        at, data = at + len(data) - len(kept), kept
    return None
