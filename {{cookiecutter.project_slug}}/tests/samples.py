"""Files as people and attackers send them, made by the tools that make them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageDraw, PngImagePlugin
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from tests.conftest import csrf_token
from tests.s3_server import objects

JSON = {"Accept": "application/json"}
# In two halves, or a virus scanner takes this file away.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
PHP = b"<?php system($_GET['c']); ?>"
HTML = b"<!doctype html><script>top.document.title = 'pwned'</script>"
TYPES = {
    "txt": "text/plain",
    "pdf": "application/pdf",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
}
FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF"}


def upload(client: FlaskClient, name: str, content: bytes, declared: str | None = None, **kwargs: Any) -> TestResponse:
    """Send one file as a script would, and ask for JSON. ``declared`` defaults to what the extension means."""
    declared = TYPES.get(name.rpartition(".")[2].lower(), "") if declared is None else declared
    return upload_all(client, [(name, content, declared)], **{"headers": JSON, **kwargs})


def upload_all(client: FlaskClient, files: list[tuple[str, bytes, str]], **kwargs: Any) -> TestResponse:
    parts = [FileStorage(io.BytesIO(content), name, content_type=declared) for name, content, declared in files]
    # Not left to the client, which spools a large body to a file and never closes it.
    boundary, body = encode_multipart({"csrf_token": csrf_token(client), "file": parts})
    return client.post("/uploads", data=body, content_type=f"multipart/form-data; boundary={boundary}", **kwargs)


def download(client: FlaskClient, where: str, **kwargs: Any) -> TestResponse:
    return client.get(where, buffered=True, **kwargs)


def stored(app: Flask) -> list[Path]:
    """The paths or object names of what is stored: for each upload, its data and its metadata."""
    if app.config["UPLOAD_STORAGE"] != "folder":
        return [*map(Path, objects(app.config))]
    own = (".turns", ".total")
    return [path for path in app.config["UPLOAD_DIR"].rglob("*") if path.is_file() and path.name not in own]


def drawing(size: tuple[int, int] = (60, 40), mode: str = "RGB") -> Image.Image:
    """A picture that differs in each corner, so that a wrong turn shows."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1] // 2), fill="red")
    return image.convert(mode)


def encode(image: Image.Image, ending: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, FORMATS[ending], **options)
    return written.getvalue()


def animation(ending: str, frames: int = 4) -> bytes:
    """A red square that walks over a transparent ground, each step slower than the last."""
    steps = []
    for step in range(frames):
        image = Image.new("RGBA", (80, 20))
        ImageDraw.Draw(image).rectangle((step * 20, 0, step * 20 + 19, 19), fill="red")
        steps.append(image)
    durations = [100 * (step + 1) for step in range(frames)]
    return encode(steps[0], ending, save_all=True, append_images=steps[1:], duration=durations, loop=2, disposal=2)


def pdf(body: bytes = b"") -> bytes:
    """A one-page PDF with right offsets; ``body`` is what its page draws, or any other stream."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(body), body),
    ]
    written, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(written))
    return written + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer


def zip_of(name: str = "a.txt", content: bytes = b"a", comment: bytes = b"") -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        archive.comment = comment
    return written.getvalue()


def png_with_text(text: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text.decode("latin-1"))
    return encode(drawing(), "png", pnginfo=info)


def pdf_update(before: bytes, body: bytes) -> bytes:
    """A PDF with an incremental update (a signature, an attachment): one more object behind the first end."""
    start = len(before) + 1
    added = b"\n5 0 obj\n<< /Length %d >>\nstream\n%s\nendstream\nendobj\n" % (len(body), body)
    table = b"xref\n5 1\n%010d 00000 n \ntrailer\n<< /Size 6 /Root 1 0 R /Prev %d >>\n" % (
        start,
        before.rindex(b"xref\n0 "),
    )
    return before + added + table + b"startxref\n%d\n%%%%EOF\n" % (len(before) + len(added))


# One good file a type: name → bytes.
GOOD = {
    "notes.txt": "Grüße, 你好\r\n\tindented\n".encode(),
    "marked.txt": b"\xef\xbb\xbfSaved by Notepad\r\n",
    "report.pdf": pdf(b"BT (Hello) Tj ET"),
    "drawing.png": encode(drawing(), "png"),
    "photo.jpg": encode(drawing(), "jpg"),
    "PHOTO.JPEG": encode(drawing(), "jpeg", progressive=True),
    "picture.webp": encode(drawing(), "webp"),
    "picture.gif": encode(drawing(), "gif"),
}
