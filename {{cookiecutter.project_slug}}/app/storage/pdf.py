"""PDF files: what proves that an upload is a PDF and no other file as well (9.S1).

A browser gets the file as a sandboxed attachment of exactly this type (9.S7), so nothing of it runs on this site. But
it may be opened elsewhere, by a program that finds another format in the same bytes: at the start (a program, a page,
an image) or at the end (a ZIP archive). Therefore a PDF must be the first and the last thing in the file. What its
objects hold is not judged: an attached spreadsheet is a ZIP archive inside a PDF, not behind it.
All this reads only the file's start and end, except that archives and padding are traced back, in linear time.
Source: ISO 32000-2, 7.5.2 and 7.5.5; PDF Reference 1.7, H.3 (where readers look for header and end);
APPNOTE.TXT 6.3.10, 4.3.16 (where archive programs look for a ZIP file).
"""

from __future__ import annotations

import os
import re
from typing import IO

from app.security.errors import refuse

# Readers look for the header in the first 1024 bytes, and for the end in the last 1024.
WINDOW = 1024
CHUNK = 64 * 1024

# What PDF treats as blank, and DOS's end of file. Scanners and mail programs pad files with it.
_BLANK = b"\0\t\n\f\r \x1a"
# Editors and servers put blanks or a byte order mark before the header.
HEADER = re.compile(rb"(?:[\0\t\n\f\r \x1a]|\xef\xbb\xbf)*%PDF-\d")
# Behind the end, a line of text is harmless: a timestamp, a MIME boundary. Without "<" it is no page.
_END = re.compile(rb"%%EOF[\0\t\n\f\r \x1a]*[^\0-\x1f\x7f<]{0,255}\Z")

# A ZIP file ends with a record of 22 bytes and a comment, whose length the record's last two bytes contain.
_ZIP_RECORD = b"PK\x05\x06"
_ZIP_RECORD_SIZE = 22
_ZIP_END = _ZIP_RECORD_SIZE + 0xFFFF
_STREAM_EDGES = re.compile(rb">>[\0\t\n\f\r ]{0,9}stream[\r\n]|endstream")
_LONGEST_EDGE = 18
_EDGES_AND_RECORDS = re.compile(_STREAM_EDGES.pattern + b"|" + _ZIP_RECORD)


def refuse_other_files(stream: IO[bytes]) -> None:
    """Refuse a file (422) that is cut short, goes on after the end of its PDF, or is a ZIP archive too."""
    end = _end_of_content(stream)
    stream.seek(max(end - WINDOW, 0))
    tail = stream.read(end - stream.tell())
    if b"%%EOF" not in tail:
        refuse(422, "This PDF is damaged: its end is missing. Please export or download it again.")
    if not _END.search(tail) or _is_archive(stream):
        refuse(422, "This PDF has another file attached behind its end. Please print it to a new PDF.")


def _end_of_content(stream: IO[bytes]) -> int:
    """Return the offset behind the last byte that is not blank."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(end - CHUNK, 0)
        stream.seek(start)
        if content := stream.read(end - start).rstrip(_BLANK):
            return start + len(content)
        end = start
    return 0


def _is_archive(stream: IO[bytes]) -> bool:
    """Return whether archive programs open this file: they look for the record of a ZIP file near the end.

    A record in a stream belongs to an attachment, unless it declares all the rest of the PDF to be its comment.
    """
    start = max(stream.seek(0, os.SEEK_END) - _ZIP_END, 0)
    stream.seek(start)
    tail = stream.read()
    in_stream = _ZIP_RECORD in tail and _is_in_stream(stream, start)
    for found in _EDGES_AND_RECORDS.finditer(tail):
        if found[0] != _ZIP_RECORD:
            in_stream = found[0] != b"endstream"
            continue
        comment = found.start() + _ZIP_RECORD_SIZE
        if not in_stream or comment + int.from_bytes(tail[comment - 2 : comment], "little") == len(tail):
            return True
    return False


def _is_in_stream(stream: IO[bytes], offset: int) -> bool:
    """Return whether this offset lies in a PDF stream: the last of their edges before it is a beginning."""
    while offset > 0:
        start = max(offset - CHUNK, 0)
        stream.seek(start)
        data = stream.read(offset - start + _LONGEST_EDGE)  # an edge may lie across the offset
        if edges := [edge[0] for edge in _STREAM_EDGES.finditer(data) if edge.start() < offset - start]:
            return edges[-1] != b"endstream"
        offset = start
    return False
