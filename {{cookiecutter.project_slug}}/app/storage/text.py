"""Text files: valid UTF-8 without control characters, which could control a terminal (9.S1)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO

from app.security.errors import refuse

CHUNK = 64 * 1024  # bytes

# Control characters except tab, line breaks and form feed. The pattern matches U+0080 to U+009F in UTF-8, except the
# line break U+0085.
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\f\r"))
_MORE_CONTROLS = re.compile(rb"\xc2[\x80-\x84\x86-\x9f]")


def refuse_other_content(stream: IO[bytes]) -> None:
    """Refuse (415) a file that is not a text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        last = b""
        for chunk in chunks(stream):
            decoder.decode(chunk)
            # The bytes are searched, because searching the decoded text takes much longer.
            if len(chunk.translate(None, _CONTROLS)) < len(chunk) or _MORE_CONTROLS.search(last + chunk):
                refuse(415, "This is not a text file: it contains control characters.")
            last = chunk[-1:]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        refuse(415, "This is not a UTF-8 text file. Please save it with UTF-8 encoding.")


def chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield all of a file."""
    stream.seek(0)
    while chunk := stream.read(CHUNK):
        yield chunk
