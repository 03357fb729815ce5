"""Files that are two things at once, or not what they are called, and good ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from PIL import Image

from tools.lessons.lab import Lab

TYPES = {"txt": "text/plain", "pdf": "application/pdf", "png": "image/png"}
PDF = b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\ntrailer\n<< /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"


def _zip() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("run.exe", "MZ")
    return written.getvalue()


def _png() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(written, "PNG")
    return written.getvalue()


# Simplest first: the first file that is accepted shows what the fix overlooks.
BAD = {
    "program.pdf": (b"MZ\x90\x00" + bytes(300), "A Windows program is accepted as a PDF."),
    "linux.pdf": (
        b"\x7fELF\x02\x01\x01" + bytes(300),
        "A Linux program is accepted as a PDF. A list of bad files is never complete: require the signature.",
    ),
    "page.pdf": (
        b"<!doctype html><script>alert(1)</script>",
        "A web page is accepted as a PDF: require the signature.",
    ),
    "hidden.pdf": (
        b"MZ\x90\x00" + bytes(300) + b"%PDF-1.7\n%%EOF\n",
        "A program with %PDF somewhere in it is accepted. It has to be at the beginning.",
    ),
    "both.pdf": (
        PDF + _zip(),
        "A PDF with a ZIP archive behind it is accepted: the first bytes are right, and archive programs read the last "
        "ones. See FileType.check.",
    ),
    "cut.pdf": (PDF[:-8], "A PDF without its end is accepted: look at more than the first bytes (FileType.check)."),
    "notes.txt": (_zip(), "A ZIP archive is accepted as a text. Text has no signature: see FileType.check."),
    "report.txt": (PDF, "A PDF is accepted as a text: what has the signature of another type is not a text."),
}
GOOD = {"report.pdf": PDF, "notes.txt": "Grüße, 你好\r\n".encode(), "drawing.png": _png()}


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve() as shop:
        visitor = shop.member()
        for name, (content, fault) in BAD.items():
            answer = visitor.upload(name, TYPES[name[-3:]], content)
            if answer.status == 201:
                yield fault
                break
            if answer.status >= 500:
                yield f"The app fails with {answer.status} on {name}."
        for name, content in GOOD.items():
            answer = visitor.upload(name, TYPES[name[-3:]], content)
            if answer.status != 201:
                yield f"A good file is refused: {name}. The app says: {answer.text}"
