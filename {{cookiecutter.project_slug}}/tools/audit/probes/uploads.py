"""9 Uploads: which files are accepted, where are they stored, and who can download them?"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
import socketserver
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from PIL import Image, PngImagePlugin
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse

from app.security import bodies, uploads
from app.security.csrf import form_view
from app.security.declarations import declared_by
from app.security.findings import Finding
from app.settings import Settings
from app.storage import images, text
from app.storage.turns import turn
from app.visitors import PUBLIC, public
from tools.audit.probes import server
from tools.audit.steps import Fault, probe
from tools.audit.subject import UNSAFE_METHODS, Browser, NoAnswer, NotApplicable, Subject, Unproved

TAKING = ("request.files", "FileField", "MultipleFileField", "FileStorage", "UploadSet", "Dropzone")
JSON = {"Accept": "application/json"}
CLOSED_FIX = "Let app/visitors.py and app/accounts/identity.py decide; @public opens a view to everybody"
# In two halves, so that no virus scanner removes this file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
SECRET_PLACE = b"48.8584 N"


class Attempt(NamedTuple):
    """A file that must not be accepted, and why."""

    what: str
    name: str
    content: bytes
    declared: str


@probe("9.S1")
def types_are_checked(subject: Subject) -> Iterator[str]:
    """Send valid files, and files of a wrong or mismatched type."""
    visitor = _visitor(subject, "FileAllowed", "allowed_file", "ALLOWED_EXTENSIONS", "magic", "filetype")
    other = _new_visitor(subject)  # so that neither of the two reaches the limit of uploads
    png = _png()
    stored = _send(subject, visitor, "a.png", png, "image/png")
    if stored.status_code != 201:
        yield f"A valid image is refused ({stored.status_code})."
    elif SECRET_PLACE in visitor.open(f"/uploads/{stored.get_json()['id']}").get_data():
        yield "An image is returned with the location where it was taken."
    for attempt in (
        Attempt("a script by its extension", "a.php", b"<?php system('id'); ?>", "text/plain"),
        Attempt("a page by its extension", "a.html", b"<script>alert(1)</script>", "text/html"),
        Attempt("a drawing with a script", "a.svg", SVG, "image/svg+xml"),
        Attempt("a program named as an image", "a.png", b"MZ\x90\x00" + b"\0" * 200, "image/png"),
        Attempt("an image named as a text", "a.txt", png, "text/plain"),
        Attempt("an image declared as a page", "a.png", png, "text/html"),
        Attempt("an image without an exact type", "a.png", png, "application/octet-stream"),
        Attempt("a damaged image", "a.png", png[:40], "image/png"),
        Attempt("an image with too many pixels", "a.png", _png((5_100, 5_100), "1"), "image/png"),
        Attempt("a page named as a PDF", "a.pdf", b"<script>alert(1)</script>\n%%EOF\n", "application/pdf"),
        *(Attempt(what, "a.pdf", data, "application/pdf") for what, data in _polyglots().items()),
        Attempt("a text in another encoding", "a.txt", "<b>".encode("utf-16"), "text/plain"),
        Attempt("a text with control characters", "a.txt", b"\x1b]0;evil\x07", "text/plain"),
    ):
        if not 400 <= (status := _send(subject, visitor, *attempt[1:]).status_code) < 500:
            yield f"{attempt.what} answers {status}."
    for attempt in (
        Attempt("a text", "a.txt", "gr\u00fcn".encode(), "text/plain"),
        Attempt("an animation", "a.gif", _animation(), "image/gif"),
        *(Attempt(what, "a.pdf", data, "application/pdf") for what, data in _pdfs().items()),
    ):
        if (status := _send(subject, other, *attempt[1:]).status_code) != 201:
            yield f"{attempt.what} that is valid is refused ({status})."
    photo = _send(subject, other, "a.jpg", _jpeg(), "image/jpeg")
    if photo.status_code != 201 or SECRET_PLACE in other.open(f"/uploads/{photo.get_json()['id']}").get_data():
        yield "A photo is returned with the location where it was taken."
    with subject.instead({"IMAGE_MAX_PIXELS": 500}):  # of which the three frames have 1,200
        if _send(subject, _new_visitor(subject), "a.gif", _animation(), "image/gif").status_code < 400:
            yield "An animation may have any number of frames."
    if not subject.refuses({"UPLOAD_EXTENSIONS": "png,svg"}):
        yield "UPLOAD_EXTENSIONS accepts types without a check."
    with subject.instead({"UPLOAD_EXTENSIONS": "png"}):
        if _send(subject, _new_visitor(subject), "a.txt", b"text", "text/plain").status_code < 400:
            yield "A type that is not in UPLOAD_EXTENSIONS is accepted."


@probe("9.S2")
def names_are_for_people(subject: Subject) -> Iterator[str | Finding]:
    """Read the code, and send names with path traversal, control characters and bidi overrides."""
    yield from subject.static("UP02")
    visitor = _visitor(subject, "secure_filename")
    for name in (
        "../../climbed.txt",
        "..\\..\\climbed.txt",
        "/etc/climbed.txt",
        "climbed\u202etxt.txt",
        "climbed\r\nX-Evil: 1.txt",
        "con.txt",
        "n" * 400 + ".txt",
    ):
        answer = _send(subject, visitor, name, b"harmless", "text/plain")
        shown = str((answer.get_json(silent=True) or {}).get("name", ""))
        if answer.status_code == 201 and (
            re.search(r"[/\\\x00-\x1f\u202e]|\.\.", shown) or len(shown) > 255 or shown == "con.txt"
        ):
            yield f"A file is shown as {shown[:40]!r}."
        if answer.status_code >= 500:
            yield f"The name {name[:20]!r} answers {answer.status_code}."
    told = _send(subject, visitor, "cafe\u0301.txt", b"harmless", "text/plain").get_json(silent=True) or {}
    if told.get("name") != "caf\u00e9.txt":
        yield "File names are not normalized (NFC)."
    if outside := [path.name for path in subject.folder.rglob("*climbed*")]:
        yield f"A file is stored under the client's name: {outside[0]!r}."


@probe("9.S3")
def storage_is_apart(subject: Subject) -> Iterator[str]:
    """Check the stored files, and start with folders inside the app."""
    visitor = _visitor(subject)
    _send(subject, visitor, "a.txt", b"stored", "text/plain")
    folder = _folder(subject)
    if any(
        folder.is_relative_to(place) for place in (subject.package, Path(subject.app.static_folder or subject.package))
    ):
        yield "Files are stored inside the app."
    for path in (folder, *folder.rglob("*")):
        if path.stat().st_mode & (0o077 if path.is_dir() else 0o177):
            yield f"Other users can access stored files ({path.stat().st_mode & 0o777:03o})."
            break
    default = Path(str(Settings.model_fields["UPLOAD_DIR"].default)).resolve()
    if default.is_relative_to(subject.package.resolve()):
        yield "By default, files are stored inside the app."
    open_folder = subject.folder / "open-uploads"
    open_folder.mkdir(mode=0o755, exist_ok=True)
    with subject.instead({"UPLOAD_DIR": str(open_folder)}):
        _send(subject, _new_visitor(subject), "a.txt", b"stored", "text/plain")
    if os.name == "posix" and open_folder.stat().st_mode & 0o077:
        yield "An existing folder stays accessible to other users."
    for place in (subject.package / "uploads", subject.package / "static", subject.package):
        was_there = place.exists()
        if not subject.refuses({"UPLOAD_DIR": str(place)}):
            yield f"The app starts with UPLOAD_DIR={place.name}, which is inside the app."
        if not was_there and place.is_dir():
            place.rmdir()


@probe("9.S4")
def stored_names_are_random(subject: Subject) -> Iterator[str]:
    """Send a file twice, and compare the stored names."""
    visitor = _visitor(subject, "uuid4", "token_hex", "token_urlsafe")
    ids = []
    for _ in range(2):
        random.seed(1)  # the random module is predictable: with the same seed, it would give the same name
        ids.append(str(_send(subject, visitor, "same.txt", b"same", "text/plain").get_json()["id"]))
    if ids[0] == ids[1] or not all(re.fullmatch(r"[0-9a-f]{32,}|[\w-]{22,}", each) for each in ids):
        yield f"A file has the name {ids[0]!r}, which can be guessed."
    if len({each[:8] for each in ids}) < 2 or len({each[-8:] for each in ids}) < 2:
        yield "Two files have similar names: one reveals the other."
    if any("same" in path.name for path in _folder(subject).rglob("*")):
        yield "The file is stored under the client's name."


@probe("9.S5")
def sizes_are_bounded(subject: Subject) -> Iterator[str]:
    """Exceed each limit."""
    app = subject.app
    if not subject.own:
        _files_are_taken(subject)
    for name in ("MAX_CONTENT_LENGTH", "MAX_FORM_MEMORY_SIZE", "MAX_FORM_PARTS"):
        if not app.config.get(name):
            yield f"{name} is not set: one request can fill the memory or the disk."
    if not subject.own:
        if app.config.get("MAX_CONTENT_LENGTH"):
            raise Unproved("MAX_CONTENT_LENGTH limits a request, but no view runs here to prove a quota")
        return
    visitor = _visitor(subject)
    declared = declared_by(app, "uploads.index", "POST", bodies.ACCEPTS, bodies.Accepted())
    most = int(declared.max_bytes or app.config.get("MAX_CONTENT_LENGTH") or 2**20)
    too_large = _send(subject, visitor, "a.txt", b"a" * (most + 1000), "text/plain")
    if too_large.status_code != 413:
        yield f"A file of more than MAX_CONTENT_LENGTH answers {too_large.status_code}."
    if not re.search(r"\d [KMG]i?B", too_large.text):
        yield "A 413 does not state the limit."
    if int(Settings.model_fields["MAX_CONTENT_LENGTH"].default) > 100 * 2**20:
        yield "By default, the size of a request is hardly limited."
    yield from server.proxy_bounds_bodies(subject)
    yield from _declared_sizes_hold(subject)
    yield from _crashes_leave_nothing(subject)
    parts = {f"part{number}": "" for number in range(2000)}
    if (
        answer := visitor.send("/uploads", {**parts, "file": _file("a.txt", b"a", "text/plain")}, headers=JSON)
    ).status_code != 413:
        yield f"A form of 2,000 parts answers {answer.status_code}."
    body = b"csrf_token=" + b"a" * max(600_000, declared.max_form_bytes or 0)
    form = visitor.open("/uploads", method="POST", data=body, content_type="application/x-www-form-urlencoded")
    if form.status_code != 413:
        yield f"A form of {len(body)} bytes is held in memory ({form.status_code})."
    owner = _new_visitor(subject)
    answers = [_send(subject, owner, f"{number}.txt", b"a", "text/plain").status_code for number in range(15)]
    if answers[0] != 201 or answers[-1] != 413:
        yield f"With a quota of 14 files, the first upload answers {answers[0]}, the 15th {answers[-1]}."
    large = _new_visitor(subject)
    answers = [_send(subject, large, "a.txt", b"a" * 900_000, "text/plain").status_code for _ in range(3)]
    if answers[0] != 201 or answers[-1] != 413:
        yield f"With a quota in bytes, the first upload answers {answers[0]}, one over the quota {answers[-1]}."
    yield from _image_work_is_bounded(subject)
    with subject.instead({"UPLOAD_QUOTA_TOTAL_BYTES": 400}):
        if (status := _send(subject, _new_visitor(subject), "a.txt", b"a" * 500, "text/plain").status_code) != 503:
            yield f"Over the quota of all owners together, an upload answers {status}."
    full = shutil.disk_usage(_folder(subject))._replace(free=1000)
    with mock.patch.object(shutil, "disk_usage", return_value=full):
        if (status := _send(subject, visitor, "a.txt", b"a" * 500, "text/plain").status_code) != 503:
            yield f"On a full disk an upload answers {status}."


def _declared_sizes_hold(subject: Subject) -> Iterator[str]:
    """Add a view that accepts more, and one that does not, and send what only the first accepts, and too much."""
    app = subject.make({})
    mark = bodies.accepts(max_form_bytes=200_000)
    for path, view in (("/audit/more", mark(partial(str))), ("/audit/usual", partial(str))):
        app.add_url_rule(path, path, public(view), methods=["POST"])
    for path, size, wanted in (
        ("/audit/more", 190_000, 200),
        ("/audit/more", 210_000, 413),
        ("/audit/usual", 190_000, 413),
    ):
        browser = subject.browser(app)
        form = {"csrf_token": browser.token(), "a": "a" * size}
        if (status := browser.open(path, method="POST", data=form).status_code) != wanted:
            accepted = "200,000" if "more" in path else "the usual"
            yield f"A view that accepts {accepted} bytes of a form answers {status} to {size}."


@probe("9.S6")
def malware_is_refused(subject: Subject) -> Iterator[str]:
    """Send the EICAR test file, and make the scanner fail."""
    if (
        answer := _send(subject, _visitor(subject, "clamd", "pyclamd"), "a.txt", EICAR, "text/plain")
    ).status_code < 400:
        yield f"The EICAR test file is accepted ({answer.status_code})."
    seam = b"a" * (text.CHUNK - 10) + EICAR
    if (answer := _send(subject, _visitor(subject), "a.txt", seam, "text/plain")).status_code < 400:
        yield f"The EICAR test file is accepted when it spans two chunks ({answer.status_code})."
    for reply, wanted in (
        ("stream: OK\0", 201),
        ("stream: Evil FOUND\0", 422),
        ("stream: size limit exceeded ERROR\0", 503),
        ("INSTREAM size limit exceeded. ERROR\0", 422),
        ("drip", 503),
    ):
        with _Scanner(reply) as scanner, subject.instead({"CLAMD_URL": scanner.url}):
            start = time.monotonic()
            # A scanner that answers keeps its full time limit: the machine may be busy.
            with mock.patch.object(uploads, "SCAN_SECONDS", 0.15 if reply == "drip" else uploads.SCAN_SECONDS):
                status = _send(subject, _new_visitor(subject), "a.txt", b"scanned", "text/plain").status_code
            if scanner.received != b"scanned":
                yield "The scanner does not get the whole file."
            if (took := time.monotonic() - start) > 5:
                yield f"A slow scanner blocks an upload for {took:.0f} seconds."
            if status != wanted:
                yield f"When the scanner answers {reply.strip(chr(0))!r}, an upload answers {status}."
    with subject.instead({"CLAMD_URL": "tcp://127.0.0.1:9"}):
        visitor = _new_visitor(subject)
        status = _send(subject, visitor, "a.txt", b"a", "text/plain").status_code
        kept = (visitor.open("/uploads", headers=JSON).get_json(silent=True) or {}).get("files")
    if status != 503 or kept:
        yield f"Without an answer from the scanner, an upload answers {status}{' and is stored' if kept else ''}."


@probe("9.S7")
def downloads_are_data(subject: Subject) -> Iterator[str | Finding]:
    """Open a view for members as a stranger, and download a file as its owner and as another user."""
    if subject.own and subject.member:
        yield from _closed_by_default(subject)
    _visitor(subject, "send_from_directory", "send_file")
    owner, other = _new_visitor(subject), _new_visitor(subject)
    text = str(_send(subject, owner, "p\u00e4ge.txt", b"<script>alert(1)</script>", "text/plain").get_json()["id"])
    picture = str(_send(subject, owner, "a.png", _png(), "image/png").get_json()["id"])
    for path in (f"/uploads/{text}", f"/uploads/{picture}?inline=1"):
        if (status := other.open(path).status_code) != 404:
            yield f"Another user's file answers {status}."
    other.send(f"/uploads/{text}/delete", {})
    answer = owner.open(f"/uploads/{text}?inline=1")
    if answer.status_code != 200:
        yield f"The owner gets {answer.status_code} after another user tried to delete the file."
    wanted = {
        "Content-Type": r"text/plain; charset=utf-8",
        "Content-Disposition": r"attachment;.*filename\*=UTF-8''p%C3%A4ge\.txt",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": r"sandbox; default-src 'none';.* frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": r".*(no-store|private).*",
    }
    for name, value in wanted.items():
        if not re.fullmatch(value, answer.headers.get(name, "")):
            yield f"A download has {name}: {answer.headers.get(name, 'missing')}."
    if not owner.open(f"/uploads/{picture}?inline=1").headers.get("Content-Disposition", "inline").startswith("inline"):
        yield "With ?inline=1, an image is not shown in the browser."
    webp = _send(subject, owner, "a.webp", _png(ending="WEBP"), "image/webp").get_json()["id"]
    if (kind := owner.open(f"/uploads/{webp}").headers.get("Content-Type")) != "image/webp":
        yield f"A WebP image is sent as {kind}."
    yield from _account_goes_meanwhile(subject)
    owner.send(f"/uploads/{picture}/delete", {})
    if owner.open(f"/uploads/{picture}").status_code != 404 or [*_folder(subject).rglob(f"{picture}*")]:
        yield "The owner can't delete a file."
    if owner.open(f"/uploads/{text}", headers={"Range": "bytes=0-3"}).status_code != 206:
        yield "A download can't be resumed."


def _closed_by_default(subject: Subject) -> Iterator[str | Finding]:
    """Ask as a stranger for a view that is public and for one that says nothing, and list those that are public."""
    app = subject.make({})
    for path, view in (("/audit/public", public(partial(str))), ("/audit/closed", form_view(partial(str)))):
        app.add_url_rule(path, path, view, methods=["GET", "POST"])
    stranger, stale = subject.browser(app), {"csrf_token": "x.y.z"}  # with which a form is shown again
    answers = [stranger.open("/audit/public"), stranger.open("/audit/closed")]
    answers.append(stranger.open("/audit/closed", method="POST", data=stale))
    if (found := [answer.status_code for answer in answers]) != [200, 303, 303]:
        evidence = f"A stranger gets a {found[0]} from a view with @public, a {found[1]} and a {found[2]} from another."
        yield Fault(evidence, CLOSED_FIX)
    views = sorted({rule.rule for rule in subject.rules("GET", *UNSAFE_METHODS) if subject.declares(rule, PUBLIC)})
    yield Finding("UP07", "note", f"Open to everybody, by @public: {', '.join(views)}.", CLOSED_FIX)


def _visitor(subject: Subject, *signs: str) -> Browser:
    """Return a browser that may upload. Raises NotApplicable if the app accepts no files.

    ``signs`` are names in the code of a foreign app that suggest that the step is implemented.
    """
    if not subject.own:
        _judge_by_reading(subject, *signs)
    if not subject.takes("/uploads"):
        raise NotApplicable("no route accepts files")
    return subject.member or subject.browser()


def _new_visitor(subject: Subject) -> Browser:
    return subject.new_member() or subject.browser()


def _judge_by_reading(subject: Subject, *signs: str) -> None:
    """Raise what the code of a foreign app shows about a step, since its views never run here."""
    place = _files_are_taken(subject)
    if sign := subject.code_mentions(*signs):
        raise Unproved(f"files are accepted at {place}, and {sign} looks like this step; no view runs here to prove it")
    raise NoAnswer(f"files are accepted at {place}, and nothing in the code looks like this step")


def _files_are_taken(subject: Subject) -> str:
    if place := subject.code_mentions(*TAKING):
        return place
    raise NotApplicable("no code accepts files")


def _folder(subject: Subject) -> Path:
    return Path(subject.app.config["UPLOAD_DIR"]).resolve()


def _file(name: str, content: bytes, declared: str) -> FileStorage:
    return FileStorage(io.BytesIO(content), name, content_type=declared)


def _send(subject: Subject, visitor: Browser, name: str, content: bytes, declared: str) -> TestResponse:
    return visitor.send("/uploads", {"file": _file(name, content, declared)}, headers=JSON)


def _png(size: tuple[int, int] = (20, 10), mode: str = "RGB", ending: str = "PNG") -> bytes:
    place = PngImagePlugin.PngInfo()
    place.add_text("GPS", SECRET_PLACE.decode())
    written = io.BytesIO()
    Image.new(mode, size).save(written, ending, **({"pnginfo": place} if ending == "PNG" else {}))
    return written.getvalue()


def _jpeg() -> bytes:
    image, written = Image.new("RGB", (20, 10)), io.BytesIO()
    exif = image.getexif()
    exif[0x010E] = SECRET_PLACE.decode()  # ImageDescription
    image.save(written, "JPEG", exif=exif)
    return written.getvalue()


def _animation() -> bytes:
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 120, 250)]
    written = io.BytesIO()
    frames[0].save(written, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return written.getvalue()


def _zip(comment: bytes = b"") -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("a.txt", "a")
        archive.comment = comment
    return written.getvalue()


_PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nstream\n", b"\nendstream\nendobj\nstartxref\n9\n%%EOF\n"


def _pdfs() -> dict[str, bytes]:
    """Return PDFs that people have."""
    return {
        "A PDF with an attached archive": _zip().join(_PDF),
        "A PDF with blanks around it": b"\r\n" + b"".join(_PDF) + b" " * 2000,
    }


def _polyglots() -> dict[str, bytes]:
    """Return PDFs that other programs open as another file."""
    whole = b"".join(_PDF)
    return {
        "a PDF behind a program": b"MZ" + whole,
        "a PDF before a page": whole + b"<script>alert(1)</script>",
        "a PDF with an archive at its end": whole + _zip(),
        "a PDF with an archive before a second end": whole + _zip() + b"\n%%EOF\n",
        "a PDF with an attached archive up to its end": _PDF[0] + _zip(comment=_PDF[1]),
    }


def _image_work_is_bounded(subject: Subject) -> Iterator[str]:
    """Send images that are more work than the limits allow, and images while others are processed."""
    large, small, visitor = images.LARGE, images.SMALL, _new_visitor(subject)
    if large.memory + small.memory > 400_000_000:
        yield "Images may take more than 400 MB of memory."
    before = set(_folder(subject).iterdir())
    _send(subject, visitor, "a.txt", b"text", "text/plain")
    owner = next((path.name for path in set(_folder(subject).iterdir()) - before if path.is_dir()), "")
    tight = replace(large, memory=60_000_000, cpu=1)
    many = _jpeg()[:2] + b"\xff\xfe\0\2" * 5000 + _jpeg()[2:]
    with mock.patch.multiple(images, LARGE=tight, SMALL=tight):
        sent = {
            "A JPEG of 5,000 segments": _send(subject, visitor, "a.jpg", many, "image/jpeg"),
            "An image of more memory than its limit": _send(subject, visitor, "a.png", _png((3_000,) * 2), "image/png"),
        }
        (subject.folder / "PIL.py").write_text(_PILLOW)
        found = mock.Mock(origin=str(subject.folder / "PIL/__init__.py"))
        with mock.patch("importlib.util.find_spec", return_value=found):
            sent["An image of more CPU time than its limit"] = _send(subject, visitor, "a.png", _png(), "image/png")
    # A busy machine may run out of time.
    yield from (f"{what} answers {got.status_code}." for what, got in sent.items() if got.status_code not in (422, 503))
    with subject.app.app_context(), contextlib.ExitStack() as held:
        for lane, holder, address in (("one", owner, "192.0.2.1"), ("two", "another owner", visitor.address)):
            held.enter_context(turn(lane, 9, owner=holder, address=address, wait=0, hold=60))
        if (status := _send(subject, visitor, "a.png", _png(), "image/png").status_code) != 503:
            yield f"A visitor may have several images processed at a time ({status})."
        held.enter_context(turn("three", 9, owner="a third owner", address=visitor.address, wait=0, hold=60))
        neighbour = _new_visitor(subject)
        neighbour.address = visitor.address
        if (status := _send(subject, neighbour, "a.png", _png(), "image/png").status_code) != 503:
            yield f"A client may have any number of images processed at a time ({status})."
    with mock.patch.object(images, "SMALL", replace(small, places=0)):
        full = _send(subject, visitor, "a.png", _png(), "image/png")
    if (full.status_code, "Retry-After" in full.headers) != (503, True):
        yield f"Any number of images may wait to be processed ({full.status_code})."


# Replaces Pillow in the program that decodes images: a real image would have to use a second of CPU to reach the limit.
# If the limit is one second, this program fails. Otherwise it accepts the image, and reports a new one of 0 bytes.
_PILLOW = "import os, resource; os.write(2, b'0\\n' * (resource.getrlimit(resource.RLIMIT_CPU)[0] != 1)); os._exit(1)"


class _Crash(BaseException):
    """An exception that no handler catches, like the end of a process."""


def _crashes_leave_nothing(subject: Subject) -> Iterator[str]:
    """Simulate a crash while the metadata is written, which makes a file visible; then sweep."""
    before, visitor = set(_folder(subject).rglob("*.json")), _new_visitor(subject)
    with (
        contextlib.suppress(_Crash),
        mock.patch("os.fsync", side_effect=[None, _Crash]),
        mock.patch("pathlib.Path.unlink"),  # a crashed process cleans up nothing
    ):
        _send(subject, visitor, "a.txt", b"half", "text/plain")
    if set(_folder(subject).rglob("*.json")) != before:
        yield "A crash leaves a visible partial file."
    leftover = _folder(subject) / ("a" * 32) / f"{'b' * 32}.part"
    leftover.parent.mkdir(mode=0o700, exist_ok=True)
    leftover.write_bytes(b"half")
    os.utime(leftover, (1, 1))
    subject.run("uploads", "sweep")
    if leftover.exists():
        yield "The leftovers of a crash are never removed."


def _account_goes_meanwhile(subject: Subject) -> Iterator[str]:
    """Delete an account during an upload to it."""
    if not subject.takes("/account/delete"):
        return
    email, password = subject.new_account()
    ours, window = subject.sign_in(email, password), subject.sign_in(email, password)
    window.seen = window.token()
    save_all, before = uploads.save_all, {path for path in _folder(subject).rglob("*") if path.is_file()}

    def slow(*args: Any) -> Any:
        window.send("/account/delete", {"password": password})
        return save_all(*args)

    with mock.patch.object(uploads, "save_all", slow):
        _send(subject, ours, "a.txt", b"orphan", "text/plain")
    if {path for path in _folder(subject).rglob("*") if path.is_file()} - before:
        yield "An upload stays after its account was deleted."


class _Scanner(socketserver.ThreadingTCPServer):
    """A virus scanner on loopback that sends one answer, or drips: a byte at a time."""

    daemon_threads = True

    def __init__(self, reply: str) -> None:
        super().__init__(("127.0.0.1", 0), _Scan)
        self.reply, self.received = reply, b""
        self.url = f"tcp://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> _Scanner:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Scan(socketserver.StreamRequestHandler):
    server: _Scanner

    def handle(self) -> None:
        """Read the file, then answer."""
        self.rfile.read(10)
        while length := int.from_bytes(self.rfile.read(4), "big"):
            self.server.received += self.rfile.read(length)
        for part in [b"s"] * 100 if self.server.reply == "drip" else [self.server.reply.encode()]:
            with contextlib.suppress(OSError):  # the app has closed the connection
                self.wfile.write(part)
                time.sleep(0.05 if part == b"s" else 0)
