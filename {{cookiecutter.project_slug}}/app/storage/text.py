"""Text files: valid UTF-8 without control characters, which could control a terminal (9.S1)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO

from app.security.errors import refuse

CHUNK = 64 * 1024  # bytes

# All but tab, line breaks and form feed.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")


def refuse_other_content(stream: IO[bytes]) -> None:
    """Refuse (415) a file that is not a text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        if any(_CONTROLS.search(decoder.decode(chunk)) for chunk in chunks(stream)):
            refuse(415, "This is not a text file: it contains control characters.")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        refuse(415, "This is not a UTF-8 text file. Please save it with UTF-8 encoding.")


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield all of a file."""
    stream.seek(0)
    while chunk := stream.read(CHUNK):
        yield chunk
