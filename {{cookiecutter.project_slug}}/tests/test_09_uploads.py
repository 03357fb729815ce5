"""Mitigation 9, uploads: attacks by name, by content, by reference and by size."""

from __future__ import annotations

import contextlib
import gc
import getpass
import io
import itertools
import json
import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from jinja2.filters import do_filesizeformat
from PIL import Image
from werkzeug.test import TestResponse

from app import create_app
from app.security import rate_limits, uploads
from app.security.csrf import exempt
from app.security.errors import Refusal
from app.settings import Settings
from app.storage import content, folder, images
from app.storage.clamd import scan
from app.visitors import public
from tests.conftest import (
    HAS_ACCOUNTS,
    ROOT,
    Server,
    browser_like,
    csrf_token,
    free_port,
    new_member,
    on_both_storages,
    post,
    session_cookie,
    wait_for,
)
from tests.fake_clamd import FakeClamd
from tests.hostile_images import HOSTILE, children, worker_memory
from tests.programs import PROGRAMS
from tests.samples import (
    EICAR,
    GOOD,
    HTML,
    JSON,
    PHP,
    TYPES,
    animation,
    download,
    drawing,
    encode,
    pdf,
    pdf_update,
    png_with_text,
    stored,
    upload,
    zip_of,
)
from tests.servers import launch

SECRET = b"not for visitors"


# 9.T1 Path traversal

# The client's name → what is shown. Nothing of it is ever a path.
NAMES = {
    "../../../../etc/passwd.txt": "passwd.txt",
    "..\\..\\windows\\win.txt": "win.txt",
    "/etc/cron.d/job.txt": "job.txt",
    "C:\\boot.txt": "boot.txt",
    "....//....//a.txt": "a.txt",
    "..%2f..%2fa.txt": "%2f..%2fa.txt",
    "a.txt/": None,
    "..": None,
    ".txt": None,
    ".htaccess.txt": "htaccess.txt",
    "a\0.txt": "a.txt",
    "a.php\0.txt": "a.php.txt",
    "a\r\nSet-Cookie: x=1.txt": "aSet-Cookie_ x=1.txt",
    "\x1b[31mred.txt": "[31mred.txt",
    "txt.\u202etxt.exe": None,
    "photo\u202etxt.txt": "phototxt.txt",
    "zero\u200bwidth\ufeff.txt": "zerowidth.txt",
    "CON.txt": "_CON.txt",
    "nul .txt": "_nul.txt",
    "lpt1.tar.txt": "_lpt1.tar.txt",
    "NUL\u200d.txt": "_NUL\u200d.txt",
    "CON" + " " * 200 + "x.txt": "_CON.txt",
    "\u200d.txt": "file.txt",
    "\u200d \u200d.txt": "file.txt",
    "con artists.txt": "con artists.txt",
    "console.txt": "console.txt",
    "a.txt. . .": "a.txt",
    "a.txt::$DATA": None,
    'a:b|c?d*e<f>g"h.txt': "a_b_c_d_e_f_g_h.txt",
    "cafe\u0301.txt": "caf\u00e9.txt",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt",
    "{{7*7}}.txt": "{{7_7}}.txt",
    "-rf.txt": "-rf.txt",
    "~root.txt": "~root.txt",
    "x" * 300 + ".txt": "x" * 196 + ".txt",
    "\u00fc" * 300 + ".txt": "\u00fc" * 98 + ".txt",
}


def upload_named(client: FlaskClient, name: str) -> TestResponse:
    """Send a text under any ``name`` whatever; a client library would mend some of them."""
    head = f"Content-Disposition: form-data; name=file; filename*=UTF-8''{quote(name, safe='')}"
    body = f"--x\r\n{head}\r\nContent-Type: text/plain\r\n\r\na\r\n--x--\r\n".encode()
    headers = {**JSON, "X-CSRFToken": csrf_token(client)}
    return client.post("/uploads", data=body, content_type="multipart/form-data; boundary=x", headers=headers)


def test_9_T4_a_name_of_many_accents_is_cut_before_it_is_normalized(member: FlaskClient, normalized: list[int]) -> None:
    answer = upload_named(member, "a" + "\u0301" * 600 + "\u0316" * 600 + ".txt")
    assert (answer.status_code, answer.get_json()["name"].endswith(".txt")) == (201, True)
    assert 0 < max(normalized) <= 1000


@pytest.mark.parametrize("name", NAMES)
def test_9_T1_a_name_is_never_a_path(app: Flask, member: FlaskClient, tmp_path: Path, name: str) -> None:
    answer = upload_named(member, name)
    if NAMES[name] is None:
        assert answer.status_code == 415
        return
    assert answer.get_json()["name"] == NAMES[name]
    own = ("app.db", folder.TOTAL)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(own)]
    assert sorted(written) == sorted(stored(app))
    for path in written:
        assert re.fullmatch(
            r"(session-)?[0-9a-f]{32}/[0-9a-f]{32}(\.json)?", path.relative_to(app.config["UPLOAD_DIR"]).as_posix()
        )


def test_9_T1_a_name_cannot_split_the_header(member: FlaskClient) -> None:
    where = upload_named(member, 'a"; filename="evil.html\r\nX-Evil: 1\r\n\r\n<b>.txt').headers["Location"]
    headers = download(member, where).headers
    assert "X-Evil" not in headers
    assert headers["Content-Disposition"] == 'attachment; filename="a_; filename=_evil.htmlX-Evil_ 1_b_.txt"'


IDS = [
    "..",
    "../secret.txt",
    "..%2fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "..%5csecret.txt",
    "..%252fsecret.txt",
    "....//secret.txt",
    "%00",
    "a%00",
    "%c0%ae%c0%ae%c0%afsecret.txt",
    "A" * 32,
    "0" * 31,
    "0" * 32,
    "0" * 33,
    "0" * 32 + "%0a",
    "x" * 5000,
]


@pytest.mark.parametrize("file_id", IDS)
def test_9_T1_an_id_leads_nowhere_else(app: Flask, member: FlaskClient, file_id: str) -> None:
    upload(member, "a.txt", b"a")  # so that the owner's directory is there to climb from
    (app.config["UPLOAD_DIR"] / "secret.txt").write_bytes(SECRET)
    (app.config["UPLOAD_DIR"].parent / "secret.txt").write_bytes(SECRET)
    got = download(member, f"/uploads/{file_id}")
    assert got.status_code in (400, 404, 414)
    assert SECRET not in got.data
    assert post(member, f"/uploads/{file_id}/delete").status_code in (400, 404, 414)
    assert len(stored(app)) == 3


@on_both_storages
def test_9_T1_metadata_and_parts_are_no_files(app: Flask, member: FlaskClient) -> None:
    where = upload(member, "a.txt", b"a").headers["Location"]
    for ending in (".json", ".part", ".json.part", "/", "%2f"):
        assert download(member, where + ending).status_code == 404


@on_both_storages
def test_9_T1_nobody_gets_at_another_ones_files(app: Flask, member: FlaskClient) -> None:
    where = upload(member, "a.txt", SECRET).headers["Location"]
    stranger = new_member(app, "mallory@example.com")
    # The same answer as for what never was: nobody learns which ids exist.
    for answer in (download(stranger, where), post(stranger, f"{where}/delete")):
        assert answer.status_code == 404
        assert SECRET not in answer.data
    assert download(member, where).data == SECRET


@on_both_storages
def test_9_T1_ids_can_not_be_guessed(app: Flask, member: FlaskClient) -> None:
    ids = set()
    for _ in range(20):
        random.seed(1)  # who knows the state of Python's own generator must not know the next id
        ids.add(upload(member, "a.txt", b"a").get_json()["id"])
    assert len(ids) == 20
    assert all(re.fullmatch("[0-9a-f]{32}", file_id) for file_id in ids)  # 128 bits
    assert all(len(set(digits)) > 1 for digits in zip(*ids, strict=True)), "a digit that never changes is no secret"


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
def test_9_T1_only_the_server_can_read_and_nobody_can_run(app: Flask, member: FlaskClient) -> None:
    old = os.umask(0)
    try:
        upload(member, "a.txt", b"a")
    finally:
        os.umask(old)
    for path in (app.config["UPLOAD_DIR"], *app.config["UPLOAD_DIR"].rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


@pytest.mark.skipif(os.name == "nt", reason="no such modes")
def test_9_S3_a_folder_that_was_there_is_closed_to_others(app_config: dict[str, object]) -> None:
    place = Path(str(app_config["UPLOAD_DIR"]))
    place.mkdir()
    place.chmod(0o777)
    upload(new_member(create_app(app_config)), "a.txt", b"a")
    assert place.stat().st_mode & 0o777 == 0o700


# 9.T2 Malicious files

GIF_JS = b"GIF89a/*" + b"\0" * 20 + b"*/=1;alert(1)//;"
MACRO = zip_of("word/vbaProject.bin", b"Sub AutoOpen()")
ZIP_BOMB = zip_of("bomb", b"\0" * 10**7)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
WHOLE_PNG = GOOD["drawing.png"]

# What it is → name, content, declared type, status.
REFUSED = {
    "web shell": ("shell.php", PHP, "text/plain", 415),
    "web shell as an image": ("shell.png", PHP, "image/png", 415),
    "web shell behind a double extension": ("shell.jpg.php", GOOD["photo.jpg"], "image/jpeg", 415),
    "web shell behind a magic number": ("shell.gif", b"GIF89a" + PHP, "image/gif", 422),
    "script behind a magic number": ("script.gif", GIF_JS, "image/gif", 422),
    "page": ("page.html", HTML, "text/html", 415),
    "page as an image": ("page.png", HTML, "image/png", 415),
    "page as a PDF": ("page.pdf", HTML, "application/pdf", 415),
    "text declared as a page": ("page.txt", HTML, "text/html", 415),
    "drawing with script": ("a.svg", SVG, "image/svg+xml", 415),
    "drawing with script as an image": ("a.png", SVG, "image/png", 415),
    "program": ("a.exe", b"MZ\x90\0", "application/octet-stream", 415),
    "program as a text": ("a.txt", b"MZ\x90\0", "text/plain", 415),
    "program as a PDF": ("a.pdf", b"MZ\x90\0", "application/pdf", 415),
    "macro": ("a.docm", MACRO, "application/vnd.ms-word.document.macroEnabled.12", 415),
    "macro as a PDF": ("a.pdf", MACRO, "application/pdf", 415),
    "zip bomb as an image": ("a.png", ZIP_BOMB, "image/png", 415),
    "zip bomb as a text": ("a.txt", ZIP_BOMB, "text/plain", 415),
    "PDF cut short": ("a.pdf", pdf()[:-20], "application/pdf", 422),
    "text that is a GIF": ("a.txt", b"GIF89a=1;alert(1)", "text/plain", 415),
    "text that is a PDF": ("a.txt", b"%PDF-1.7 alert(1)", "text/plain", 415),
    "text in UTF-7's clothes": ("a.txt", b"+ADw-script+AD4-\0", "text/plain", 415),
    "text that drives a terminal": ("a.txt", b"\x1b]0;pwned\x07", "text/plain", 415),
    "text that drives a terminal in 8 bits": ("a.txt", "\x9b31m".encode(), "text/plain", 415),
    "text in Latin-1": ("a.txt", "Grüße".encode("latin-1"), "text/plain", 415),
    "text that ends in half a character": ("a.txt", "Grüße €".encode()[:-1], "text/plain", 415),
    "JPEG as a PNG": ("a.png", GOOD["photo.jpg"], "image/png", 415),
    "JPEG declared as a PNG": ("a.jpg", GOOD["photo.jpg"], "image/png", 415),
    "PNG that declares nothing": ("a.png", WHOLE_PNG, "", 415),
    "PNG that declares nothing in particular": ("a.png", WHOLE_PNG, "application/octet-stream", 415),
    "PNG cut short": ("a.png", WHOLE_PNG[:-60], "image/png", 422),
    "PNG with a broken checksum": ("a.png", WHOLE_PNG[:20] + b"\xff" + WHOLE_PNG[21:], "image/png", 422),
    "PNG without a picture": ("a.png", WHOLE_PNG[:8], "image/png", 422),
    "JPEG without a picture": ("a.jpg", b"\xff\xd8\xff\xe0" + PHP, "image/jpeg", 422),
    "WebP without a picture": ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 " + PHP, "image/webp", 422),
    "bitmap as a PNG": ("a.png", b"BM" + b"\0" * 60, "image/png", 415),
    "nothing": ("a.txt", b"", "text/plain", 422),
    "no extension": ("README", b"a", "text/plain", 415),
}


@pytest.mark.parametrize("case", REFUSED)
def test_9_T2_a_file_that_lies_is_refused(app: Flask, member: FlaskClient, case: str) -> None:
    name, data, declared, status = REFUSED[case]
    answer = upload(member, name, data, declared)
    assert answer.status_code == status, answer.text
    assert stored(app) == []


# PDFs as people have them: what printers, mail programs, web servers and editors make of them.
SHEET = zip_of("xl/workbook.xml", b"<workbook/>")


def archived(*contents: bytes) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for number, data in enumerate(contents):
            member = tarfile.TarInfo(str(number))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


WHOLE_PDFS = {
    "blanks behind the end": pdf() + b" " * 1200,
    "80 kB of NUL behind the end": pdf() + b"\0" * 80_000,
    "blank lines behind the end": pdf() + b"\r\n" * 50_000,
    "no line break behind the end": pdf().rstrip(),
    "DOS's end of file": pdf() + b"\x1a",
    "a line behind the end": pdf() + b"Printed on 2025-11-25, Gr\xc3\xbc\xc3\x9fe\n",
    "the end of a mail behind the end": pdf() + b"\r\n--=_NextPart_000_0012--\r\n",
    "the end of a chunked response behind the end": pdf() + b"\r\n0\r\n\r\n",
    "a second end": pdf() + b"%%EOF\n%%EOF\n",
    "line break before the start": b"\n" + pdf(),
    "byte order mark before the start": b"\xef\xbb\xbf" + pdf(),
    "blank lines and a mark before the start": b"\r\n \r\n\xef\xbb\xbf\t" + b"\n" * 900 + pdf(),
    "old line breaks": pdf().replace(b"\n", b"\r"),
    "version 2.0": pdf().replace(b"1.7", b"2.0"),
    "signature": pdf_update(pdf(), b"0" * 100_000),
    "attached spreadsheet": pdf(SHEET),
    "attached spreadsheet, signed": pdf_update(pdf(SHEET), b"0" * 1000),
    "attached spreadsheet, added later": pdf_update(pdf(), SHEET),
    "attached spreadsheet, stored by deflate": pdf(zlib.compress(SHEET, 0)),
    "attached spreadsheet of 200 kB": pdf(zip_of("a", random.Random(1).randbytes(200_000))),  # noqa: S311
    "attached spreadsheet with many sheets": pdf(b"".join(zip_of(f"{n}") for n in range(600))),
    "two attached spreadsheets": pdf_update(pdf_update(pdf(), SHEET), SHEET),
    "attached spreadsheets in an archive": pdf(archived(SHEET, b"notes", SHEET)),
    "attached PDF with a spreadsheet": pdf(pdf(SHEET)),
    "attached page": pdf(HTML),
    "the record of an archive by chance": pdf(b"PK\5\6" + b"\xff" * 100),
}


@pytest.mark.parametrize("case", WHOLE_PDFS)
def test_9_S1_a_pdf_that_people_have_is_taken_and_comes_back_unchanged(member: FlaskClient, case: str) -> None:
    answer = upload(member, "report.pdf", WHOLE_PDFS[case])
    assert answer.status_code == 201, answer.text
    assert download(member, answer.headers["Location"]).data == WHOLE_PDFS[case]


FAKE_END = b"\ntrailer\n<< /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"
# What archive programs open.
ARCHIVES = {
    "archive behind": pdf() + ZIP_BOMB,
    "empty archive behind": pdf() + b"PK\5\6" + b"\0" * 18,
    "archive and NUL behind": pdf() + SHEET + b"\0" * 60_000,
    "archive and end behind": pdf() + SHEET + b"\n%%EOF\n",
    "archive and a whole end behind": pdf() + SHEET + FAKE_END,
    "archive behind an attachment": pdf(b"x" * 200_000) + SHEET + FAKE_END,
    "archive behind, attached archive at the end": pdf_update(pdf() + SHEET, zip_of("decoy")),
    "end in the comment of an archive": pdf() + zip_of(comment=b"\n%%EOF\n"),
    "end in the comment of an attached archive": pdf(b"@").partition(b"@")[0]
    + zip_of(comment=pdf(b"@").partition(b"@")[2]),
}
# What else begins before a PDF, or after it, and the status.
POLYGLOTS = {
    "page behind": (pdf() + HTML, 422),
    "page and NUL behind": (pdf() + HTML + b"\0" * 80_000, 422),
    "web shell behind": (pdf() + PHP, 422),
    "text behind": (pdf() + b"all work and no play\n" * 20, 422),
    "image behind": (pdf() + GOOD["picture.gif"], 422),
    "program behind": (pdf() + b"MZ\x90\0\3", 422),
    "program before": (b"MZ" + pdf(), 415),
    "page before": (HTML + pdf(), 415),
    "page before, on a line of its own": (b"\n<script>alert(1)</script>\n" + pdf(), 415),
    "image before": (b"GIF89a=1;/*" + pdf() + b"*/", 415),
    "blanks before, more than any reader skips": (b"\n" * 1100 + pdf(), 415),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_9_T2_a_pdf_that_archive_programs_open_is_refused(app: Flask, member: FlaskClient, case: str) -> None:
    assert zipfile.is_zipfile(io.BytesIO(ARCHIVES[case]))
    answer = upload(member, "a.pdf", ARCHIVES[case])
    assert (answer.status_code, stored(app)) == (422, []), answer.text


@pytest.mark.parametrize("shift", range(-20, 4))
def test_9_T2_no_block_that_is_read_cuts_the_edge_of_a_stream(shift: int) -> None:
    """Wherever the last 65,557 bytes begin, in which an archive may end: before, in or behind the edge of a stream."""
    behind = len(pdf(b"@").partition(b"@")[2])
    attached = pdf(b"\n" * (65_557 + shift - behind - len(SHEET)) + SHEET)
    assert content.identify(io.BytesIO(attached), "a.pdf", "application/pdf", ("pdf",)).media_type == "application/pdf"
    appended = pdf(b"x").partition(b"endstream")
    outside = b"".join(appended[:2]) + b"\n" * (65_557 + shift - len(SHEET + FAKE_END)) + SHEET + FAKE_END
    with pytest.raises(Refusal):
        content.identify(io.BytesIO(outside), "a.pdf", "application/pdf", ("pdf",))


@pytest.mark.parametrize("case", POLYGLOTS)
def test_9_T2_a_pdf_with_another_file_around_it_is_refused(app: Flask, member: FlaskClient, case: str) -> None:
    data, status = POLYGLOTS[case]
    answer = upload(member, "a.pdf", data)
    assert (answer.status_code, stored(app)) == (status, []), answer.text


@pytest.mark.parametrize("filling", [b"\0", b"e", b">>      ", b"PK\5\6", b">>\nstream\n", b"%%EOF\n"])
def test_9_T4_no_pdf_is_read_more_than_a_few_times(filling: bytes) -> None:
    """However its bytes are chosen: counted are the bytes that are read, since each is looked at once."""

    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    size = 2**22
    stream = Counting(b"%PDF-1.7\n" + filling * (size // len(filling)) + SHEET + b"\n%%EOF" + filling[:1] * 9)
    with contextlib.suppress(Refusal):
        content.identify(stream, "a.pdf", "application/pdf", ("pdf",))
    assert stream.count < 4 * size


@pytest.mark.parametrize("name", GOOD)
def test_9_T2_EICAR_is_refused_in_every_type(app: Flask, member: FlaskClient, name: str) -> None:
    """In files that are good but for it, or another check would do the work of this one."""
    data = pdf(EICAR) if name.endswith(".pdf") else GOOD[name] + b"\n" * 65000 + EICAR
    answer = upload(member, name, data)
    assert (answer.status_code, "EICAR" in answer.get_json()["detail"]) == (422, True)
    assert stored(app) == []


@pytest.mark.parametrize("at", range(65536 - len(EICAR) - 1, 65537, 7))
def test_9_T2_EICAR_hides_in_no_seam(member: FlaskClient, at: int) -> None:
    assert upload(member, "a.txt", b"a" * at + EICAR).status_code == 422


# Images that are more than an image: what is stored must be the picture alone.
HIDING = {
    "comment.png": png_with_text(PHP),
    "appended.png": WHOLE_PNG + PHP,
    "archive.png": WHOLE_PNG + zip_of("x", PHP) + PHP,
    "comment.jpg": encode(drawing(), "jpg", comment=PHP),
    "appended.jpg": GOOD["photo.jpg"] + PHP,
    "shell.php.jpg": GOOD["photo.jpg"] + PHP,
    "comment.gif": encode(drawing(), "gif", comment=PHP),
    "moving.gif": animation("gif") + PHP,
    "appended.webp": GOOD["picture.webp"] + PHP,
    "xmp.webp": encode(drawing(), "webp", xmp=PHP),
    "profile.png": encode(drawing(), "png", icc_profile=PHP),
    "exif.jpg": encode(drawing(), "jpg", exif=b"Exif\0\0" + PHP),
}


@pytest.mark.parametrize("name", HIDING)
def test_9_T2_nothing_hides_in_an_image(app: Flask, member: FlaskClient, name: str) -> None:
    assert PHP in HIDING[name] or name == "profile.png"  # where it is compressed
    answer = upload(member, name, HIDING[name])
    if answer.status_code == 422:  # not taken is fine as well
        assert stored(app) == []
        return
    data = download(member, answer.headers["Location"]).data
    assert PHP not in data
    with Image.open(io.BytesIO(data)) as image:
        assert not {"comment", "exif", "xmp", "icc_profile", "Comment"} & set(image.info)


@on_both_storages
@pytest.mark.parametrize("name", ["page.txt", "drawing.png", "report.pdf"])
def test_9_T2_what_is_taken_is_sent_as_data(member: FlaskClient, name: str) -> None:
    where = upload(member, name, {"page.txt": HTML}.get(name) or GOOD[name]).headers["Location"]
    for query in ({}, {"inline": "1"}):
        answer = download(member, where, query_string=query)
        headers = answer.headers
        assert answer.mimetype == TYPES[name.rpartition(".")[2]]
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        assert headers["Content-Security-Policy"] == policy
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "private, no-store"
        shown = query and name == "drawing.png"
        assert headers["Content-Disposition"].partition(";")[0] == ("inline" if shown else "attachment")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("stream: OK\0", 201),
        ("stream: Eicar-Signature FOUND\0", 422),
        ("stream: Eicar-Signature FOUND\0stream: OK\0", 503),
        ("INSTREAM size limit exceeded. ERROR\0", 422),
        ("INSTREAM size limit exceeded. ERROR", 503),
        ("stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0", 422),
        ("stream: OK", 503),
        ("", 503),
        ("HTTP/1.1 200 OK\r\n\r\n\0", 503),
        ("x" * 100_000, 503),
        ("close", 503),
        ("hang", 503),
        ("drip", 503),
    ],
)
def test_9_T2_the_virus_scanner_has_the_last_word(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, reply: str, status: int
) -> None:
    monkeypatch.setattr(uploads, "SCAN_SECONDS", 0.5)
    with FakeClamd(reply) as scanner:
        app = create_app(app_config | {"CLAMD_URL": scanner.url})
        answer = upload(new_member(app, "mallory@example.com"), "a.png", WHOLE_PNG)
        assert answer.status_code == status, answer.text
        assert len(stored(app)) == (2 if status == 201 else 0)
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert scanner.received == ([] if reply == "close" else [WHOLE_PNG])


def test_9_T2_no_good_verdict_counts_on_a_part_of_a_file() -> None:
    more_than_a_socket_holds = io.BytesIO(bytes(32 * 2**20))
    with FakeClamd("early stream: OK\0") as scanner, pytest.raises(ConnectionError):
        scan(more_than_a_socket_holds, scanner.url, seconds=10)


MALWARE = b"What the only signature of the tests finds."
CLAMD_CONF = """
Foreground yes
DatabaseDirectory {folder}
LocalSocket {folder}/clamd.ctl
TCPSocket {port}
TCPAddr 127.0.0.1
User {user}
StreamMaxLength 200K
MaxFileSize 100K
AlertExceedsMax yes
"""


class Clamd:
    """A real clamd of our own, with one signature and low limits."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.urls = (f"unix://{directory}/clamd.ctl", f"tcp://127.0.0.1:{port}")
        (directory / "own.ndb").write_text(f"Own.Signature:0:*:{MALWARE.hex()}\n")
        conf = directory / "clamd.conf"
        conf.write_text(CLAMD_CONF.format(folder=directory, port=port, user=getpass.getuser()))
        self.command = [str(PROGRAMS["clamd"].path()), "--config-file", str(conf)]
        self.log, self.port = directory / "log", port
        self.start()

    def start(self) -> None:
        self.process = launch(self.command, self.log)
        wait_for(self.port, self.process, self.log)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def clamd() -> Iterator[Clamd]:
    with tempfile.TemporaryDirectory() as place:  # the path of a Unix socket must be short
        server = Clamd(Path(place))
        yield server
        server.stop()


@pytest.mark.fault(
    "ClamAV", "is down", sees="503 for uploads; `/readyz` is 200", ends="with the next upload after its start"
)
def test_9_T2_a_real_clamd_has_the_last_word(
    app_config: dict[str, object], clamd: Clamd, caplog: pytest.LogCaptureFixture
) -> None:
    for number, url in enumerate(clamd.urls):
        app = create_app(app_config | {"CLAMD_URL": url})
        mallory = new_member(app, f"mallory{number}@example.com")
        kept = len(stored(app))
        for text, status, told, logged in (
            (b"harmless", 201, "", "upload_stored"),
            (b"a" * 100_000, 201, "", "upload_stored"),
            (b"a" * 1000 + MALWARE, 422, "found malware", "found=Own.Signature"),
            (b"a" * 110_000, 422, "does not scan a file of this size", "MaxFileSize in clamd.conf"),
            (b"a" * 210_000, 422, "does not scan a file of this size", "StreamMaxLength in clamd.conf"),
            (b"a" * 9_000_000, 422, "does not scan a file of this size", "StreamMaxLength in clamd.conf"),
        ):
            caplog.clear()
            answer = upload(mallory, "a.txt", text)
            assert (answer.status_code, told in answer.text) == (status, True), answer.text
            assert logged in caplog.text
            assert "Own.Signature" not in answer.text
            assert "clamd.conf" not in answer.text
            kept += 2 * (status == 201)
            assert len(stored(app)) == kept
    clamd.stop()
    answer = upload(mallory, "a.txt", b"harmless")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert len(stored(app)) == kept
    assert browser_like(app).get("/readyz").status_code == 200
    clamd.start()
    assert upload(mallory, "a.txt", b"harmless").status_code == 201


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "unix:///nowhere/clamd.sock"])
def test_9_T2_without_the_virus_scanner_nothing_is_taken(app_config: dict[str, object], url: str) -> None:
    app = create_app(app_config | {"CLAMD_URL": url})
    assert upload(new_member(app, "mallory@example.com"), "a.txt", b"a").status_code == 503
    assert stored(app) == []


# 9.T3 SSRF by content


class Listener:
    """A server on loopback that notes whether anybody comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.5)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/x"

    def was_asked(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except TimeoutError:
            return False
        return True


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    yield listening
    listening.socket.close()


# Name → content with an address in it, and whether it is taken.
REFERENCES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "a.svg": (lambda url: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="%s"/></svg>' % url, 415),
    "a.xml": (lambda url: b'<!DOCTYPE a [<!ENTITY x SYSTEM "%s">]><a>&x;</a>' % url, 415),
    "a.m3u8": (lambda url: b"#EXTM3U\n#EXTINF:1,\n%s\n" % url, 415),
    "svg.png": (lambda url: b'<svg><image href="%s"/></svg>' % url, 415),
    "mvg.jpg": (lambda url: b"push graphic-context\nfill 'url(%s)'\npop graphic-context" % url, 415),
    "xml.txt": (lambda url: b'<!DOCTYPE a [<!ENTITY x SYSTEM "%s">]><a>&x;</a>' % url, 201),
    "link.pdf": (lambda url: pdf(b"/A << /S /URI /URI (%s) >> /F << /FS /URL /F (%s) >>" % (url, url)), 201),
    "xmp.png": (lambda url: png_with_text(b'<x:xmpmeta><rdf:li rdf:resource="%s"/></x:xmpmeta>' % url), 201),
    "xmp.jpg": (lambda url: encode(drawing(), "jpg", xmp=b'<x:xmpmeta xmlns:x="%s"/>' % url), 201),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_9_T3_the_server_follows_no_reference(member: FlaskClient, listener: Listener, name: str) -> None:
    make, status = REFERENCES[name]
    declared = {"svg": "image/svg+xml", "xml": "text/xml"}.get(name.rpartition(".")[2])
    answer = upload(member, name, make(listener.url.encode()), declared)
    assert answer.status_code == status
    if status == 201:
        download(member, answer.headers["Location"])
    assert not listener.was_asked()


# 9.T4 Denial of service by size


def png_of(width: int, height: int) -> bytes:
    """A PNG of one colour: a few kilobytes on the wire, gigabytes when decoded. The last rows of a huge one are cut."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 2)
    pixels = b"".join(packer.compress(row) for _ in range(min(height, 10**7 // len(row)))) + packer.flush()
    header = struct.pack("!IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif_of(width: int, height: int, frames: int) -> bytes:
    """A GIF that repeats a frame of one pixel on a large canvas, or on a small one very often."""
    frame = b"!\xf9\4\0\1\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def webp_of(width: int, height: int) -> bytes:
    data = bytearray(animation("webp"))
    data[24:27], data[27:30] = (width - 1).to_bytes(3, "little"), (height - 1).to_bytes(3, "little")
    return bytes(data)


PIXELS = "This image has too many pixels: the maximum is 25 million."
BOMBS = {
    "wide.png": (png_of(200_000, 100_000), PIXELS),
    "photo.png": (png_of(8700, 5800), PIXELS),  # of 50 megapixels
    "largest.png": (png_of(5001, 5000), PIXELS),
    "largest.gif": (gif_of(65535, 65535, 1), PIXELS),
    "largest.webp": (webp_of(16383, 16383), PIXELS),
    "many.gif": (gif_of(250, 250, 999), "The frames of this image have too many pixels: the maximum is 50 million."),
    "endless.gif": (gif_of(10, 10, 200_000), "This animation has too many frames: the maximum is 1000."),
}


@pytest.mark.parametrize("name", BOMBS)
def test_9_T4_a_pixel_bomb_does_not_go_off(app: Flask, member: FlaskClient, name: str) -> None:
    bomb, limit = BOMBS[name]
    answer = upload(member, name, bomb)
    assert (answer.status_code, answer.get_json()["detail"]) == (422, limit)
    assert stored(app) == []


@pytest.mark.parametrize(
    ("setting", "limit", "name", "image"),
    [
        ("IMAGE_MAX_PIXELS", 399, "a.png", png_of(20, 20)),
        ("IMAGE_MAX_PIXELS", 399, "a.gif", gif_of(19, 21, 3)),
        ("IMAGE_MAX_FRAMES", 2, "a.gif", gif_of(20, 20, 3)),
    ],
)
def test_9_S5_in_debug_the_limit_of_an_image_names_the_setting(
    app_config: dict[str, object], setting: str, limit: int, name: str, image: bytes
) -> None:
    app = create_app(app_config | {setting: limit, "FLASK_DEBUG": "1"})
    answer = upload(new_member(app), name, image)
    assert (answer.status_code, f"(Debug: the limit is {setting}.)" in answer.get_json()["detail"]) == (422, True)


def test_9_T4_an_image_of_the_largest_size_is_taken(member: FlaskClient) -> None:
    assert upload(member, "a.png", png_of(5000, 5000)).status_code == 201


# Instead of the time within which an answer is promised, where a test is about something else: the machine may be busy.
PATIENCE = 120


def test_9_T4_an_image_that_is_much_work_is_refused(member: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    monkeypatch.setattr(images, "LARGE", replace(images.LARGE, cpu=1))
    answer = upload(member, "a.gif", HOSTILE["999 frames.gif"]())
    assert (answer.status_code, "too much work" in answer.get_json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "name", ["30,000 scans.jpg", "2,649 valid scans.jpg", "480,000 EXIF segments.jpg", "starts.jpg"]
)
def test_9_T4_a_JPEG_of_many_parts_is_refused_before_it_is_decoded(
    member: FlaskClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(images, "WORKER", Path("nowhere"))
    answer = upload(member, name, HOSTILE[name]())
    assert (answer.status_code, "This JPEG has too many" in answer.get_json()["detail"]) == (422, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't bound the memory of a process, or don't tell")
@pytest.mark.parametrize("name", ["two large frames.gif", "two large frames.webp", "one large frame.webp"])
def test_9_T4_an_image_that_is_much_memory_is_refused(
    member: FlaskClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    with worker_memory(os.getpid()) as peak:
        answer = upload(member, name, HOSTILE[name]())
    assert (answer.status_code, "too much memory" in answer.get_json()["detail"]) == (422, True)
    assert 10**7 < max(peak) < 4 * 10**8


def test_9_T4_two_lanes_take_less_memory_than_was_promised() -> None:
    assert images.LARGE.memory + images.SMALL.memory < 4 * 10**8


def stuck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hold each image for 30 seconds, as a decoder does that loops, or until the file is there that this returns."""
    release, program = tmp_path / "release", tmp_path / "stuck.py"
    program.write_text(
        "import os, runpy, sys, time\n"
        "end = time.monotonic() + 30\n"
        f"while not os.path.exists({str(release)!r}) and time.monotonic() < end:\n    time.sleep(0.02)\n"
        f"runpy.run_path({str(images.WORKER)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(images, "WORKER", program)
    return release


def test_9_T4_an_image_that_takes_long_is_given_up(
    app: Flask, member: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release, others = stuck(monkeypatch, tmp_path), {*children(os.getpid())}  # such as the browser of other tests
    monkeypatch.setattr(images, "ANSWER_SECONDS", images.WORK_SECONDS + 1)
    answer = upload(member, "a.png", WHOLE_PNG)
    assert (answer.status_code, "Retry-After" in answer.headers, stored(app)) == (503, True, [])
    assert "no time to check this image" in answer.text
    assert {*children(os.getpid())} - others == set(), "the decoder goes on"
    release.touch()
    monkeypatch.undo()
    assert upload(member, "a.png", WHOLE_PNG).status_code == 201


class Sender:
    """Somebody who sends an image in a thread, from an address. The thread's answer is the status."""

    def __init__(self, app: Flask, number: int, address: str = "") -> None:
        self.client = new_member(app, f"sender{number}@example.com")
        self.client.environ_base["REMOTE_ADDR"] = address or f"198.51.100.{number}"
        self.client.get("/uploads")  # without accounts, this makes the session an owner

    def send(self, name: str = "a.png", content: bytes = WHOLE_PNG) -> TestResponse:
        return upload(self.client, name, content)

    @property
    def cookie(self) -> str:
        return session_cookie(self.client)

    def at(self, address: str) -> Sender:
        """The same person, in another browser."""
        other = copy(self)
        other.client = browser_like(self.client.application)
        other.client.environ_base["REMOTE_ADDR"] = address
        name = self.client.application.config["SESSION_COOKIE_NAME"]
        other.client.set_cookie(name, self.cookie, domain="localhost", secure=True)
        return other


def in_line(app: Flask) -> int:
    """How many images are decoded or wait."""
    try:
        return len(json.loads((app.config["UPLOAD_DIR"] / folder.TURNS).read_text()))
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def sending(app: Flask, senders: list[Sender], release: Path) -> Iterator[list[Future[TestResponse]]]:
    """Each sends an image that gets stuck until the end of the block."""
    with ThreadPoolExecutor(len(senders)) as pool:
        try:
            under_way = []
            for sender in senders:
                under_way.append(pool.submit(sender.send))
                while in_line(app) < len(under_way) and not under_way[-1].done():
                    time.sleep(0.01)
            yield under_way
        finally:
            release.touch()


def test_9_T4_few_wait_for_a_decoder_and_more_are_refused_at_once(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = images.SMALL.places + images.LARGE.places
    assert places <= 16, "those who wait hold threads: gunicorn has 32"
    monkeypatch.setitem(rate_limits.LIMITS, "register", "100 per minute")
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    senders = [Sender(app, number) for number in range(images.SMALL.places + 1)]
    with sending(app, senders[:-1], stuck(monkeypatch, tmp_path)) as under_way:
        monkeypatch.setattr(images, "ANSWER_SECONDS", 5)
        answer = senders[-1].send()
        monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert answer.get_json()["detail"].startswith("Too many images are being processed.")
        assert senders[-1].send("a.txt", b"a").status_code == 201
        assert not [sent for sent in under_way if sent.done()]
    assert [sent.result().status_code for sent in under_way] == [201] * images.SMALL.places
    assert senders[-1].send().status_code == 201
    assert in_line(app) == 0


def test_9_T4_large_images_leave_small_ones_their_lane(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = replace(images.LARGE, places=images.SMALL.places)
    monkeypatch.setattr(images, "LARGE", places)
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    monkeypatch.setattr(images, "SMALL_BYTES", 0)  # all are large
    senders = [Sender(app, number) for number in range(3)]
    with sending(app, senders[:-1], stuck(monkeypatch, tmp_path)) as under_way:
        monkeypatch.setattr(images, "SMALL_BYTES", 10**6)
        monkeypatch.setattr(images, "ANSWER_SECONDS", 14)
        monkeypatch.setattr(images, "WORKER", Path(images.__file__).with_name("image_worker.py"))
        assert senders[-1].send().status_code == 201
        assert not [sent for sent in under_way if sent.done()]


IPV4, IPV6 = ("198.51.100.9", "198.51.100.9"), ("2001:db8:7::1", "2001:db8:7:1::1")


@pytest.mark.parametrize(
    ("others", "owner", "address", "said"),
    [
        (IPV4, "same", "198.51.100.8", "of yours"),
        (IPV4, "other", "198.51.100.9", "from your network"),
        (IPV4, "other", "198.51.100.8", ""),
        (IPV6, "other", "2001:db8:7:ffff::1", "from your network"),
        (IPV6, "other", "2001:db8:8::1", ""),
    ],
)
def test_9_T4_nobody_holds_the_decoders_against_others(
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    others: tuple[str, str],
    owner: str,
    address: str,
    said: str,
) -> None:
    """An owner has one place, whatever the address, and an address or an IPv6 /48 has two, whoever sends."""
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    senders = [Sender(app, number, other) for number, other in enumerate(others)]
    late = senders[0].at(address) if owner == "same" else Sender(app, 3, address)
    release = stuck(monkeypatch, tmp_path)
    with ThreadPoolExecutor(1) as pool, sending(app, senders, release):
        monkeypatch.setattr(images, "ANSWER_SECONDS", 5 if said else PATIENCE)
        answer = pool.submit(late.send)
        if not said:
            while in_line(app) < 3 and not answer.done():
                time.sleep(0.01)
            release.touch()
        assert answer.result().status_code == (503 if said else 201)
        assert said in answer.result().get_json().get("detail", "")
        assert ("Retry-After" in answer.result().headers) == bool(said)


def test_9_T4_a_lost_ticket_gives_no_turn(app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    senders = [Sender(app, number) for number in range(2)]
    with sending(app, senders[:1], stuck(monkeypatch, tmp_path)):
        monkeypatch.setattr(images, "ANSWER_SECONDS", images.WORK_SECONDS + 1)
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(senders[1].send)
            while in_line(app) < 2:
                time.sleep(0.01)
            (app.config["UPLOAD_DIR"] / folder.TURNS).write_text("[")
            assert "Other images took too long" in late.result().text


@pytest.mark.skipif(os.name != "posix", reason="the lanes are those of a process")
def test_9_T4_the_lanes_are_those_of_the_machine(
    app: Flask, member: FlaskClient, app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of the app holds the lane; then it is killed, and its ticket expires."""
    monkeypatch.setattr(images, "ANSWER_SECONDS", images.WORK_SECONDS + 1)
    hold = (
        "import json, sys, time\nfrom app import create_app\nfrom app.storage.turns import turn\n"
        "app = create_app(json.loads(sys.argv[1]))\n"
        "with app.app_context(), turn('small', 9, owner='b' * 32, address='192.0.2.1', wait=1, hold=5):\n"
        "    print(flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", hold, json.dumps(app_config)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert "Other images took too long" in upload(member, "a.png", WHOLE_PNG).text
        other.kill()
    monkeypatch.setattr(images, "ANSWER_SECONDS", PATIENCE)
    assert upload(member, "a.png", WHOLE_PNG).status_code == 201


def test_9_T4_bombs_leave_others_served(serve: Callable[..., Server], app_config: dict[str, object]) -> None:
    """Four people send a bomb each and many small images behind it, to gunicorn with its usual threads."""
    server, app = serve(RATELIMIT_DEFAULT="1000 per minute"), create_app(app_config)
    people = [Sender(app, number) for number in range(5)]
    cookies = [f"{app.config['SESSION_COOKIE_NAME']}={person.cookie}" for person in people]
    tokens = [csrf_token(person.client) for person in people]
    server.request("/uploads")  # so that nothing is loaded for the first time below

    def send(number: int, name: str, content: bytes) -> tuple[int, str | None]:
        body, kind = multipart(1, content, name)
        headers = {**JSON, "Content-Type": kind, "Referer": f"{server.url}/", "Cookie": cookies[number]}
        headers["X-CSRFToken"] = tokens[number]
        status, told, _ = server.request(
            "/uploads", "POST", body, headers, source=f"127.0.0.{10 + number}", patience=60
        )
        return status, told["Retry-After"]

    bombs = [HOSTILE[name]() for name in ("999 frames.gif", "two large frames.webp", "800,000 chunks.png")]
    with memory_of(server) as grown, ThreadPoolExecutor(80) as pool:
        answers = [
            pool.submit(send, number, f"a.{kind}", bombs[n])
            for number, (kind, n) in enumerate([("gif", 0), ("webp", 1), ("png", 2), ("gif", 0)])
        ]
        time.sleep(1)
        answers += [pool.submit(send, number % 4, "a.jpg", GOOD["photo.jpg"]) for number in range(76)]
        for _ in range(10):
            assert server.request("/login" if HAS_ACCOUNTS else "/")[0] == 200
    assert max(grown) < 4 * 10**8
    got = [answer.result() for answer in answers]
    assert {status for status, _ in got} <= {201, 422, 429, 503}, got
    assert all(later for status, later in got if status == 503)
    assert send(4, "a.jpg", GOOD["photo.jpg"])[0] == 201
    left = [pid for worker in children(server.process.pid) for pid in children(worker)]
    assert left == [], "decoders go on"


@on_both_storages
def test_9_T4_quotas_hold(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"UPLOAD_QUOTA_FILES": 2, "UPLOAD_QUOTA_BYTES": 1000})
    client = new_member(app, "mallory@example.com")
    assert upload(client, "a.txt", b"a" * 1001).status_code == 413
    assert upload(client, "a.txt", b"a" * 600).status_code == 201
    answer = upload(client, "a.txt", b"a" * 401)
    assert answer.status_code == 413
    assert (
        answer.get_json()["detail"] == "With this file you would store more than 1000 Bytes. Please delete some first."
    )
    assert upload(client, "a.txt", b"a" * 400).status_code == 201
    assert (
        upload(client, "a.txt", b"a")
        .get_json()["detail"]
        .startswith("With this file you would have more than 2 files.")
    )
    assert len(stored(app)) == 4


@pytest.mark.fault(
    "Disk", "is nearly full", sees="503 for uploads, before anything is written", ends="when there is room"
)
def test_9_T4_the_disk_is_never_filled(app: Flask, member: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 256 * 2**20}))
        answer = upload(member, "a.txt", b"a")
        assert (answer.status_code, stored(app)) == (503, [])
    assert upload(member, "a.txt", b"a").status_code == 201


@pytest.mark.fault("Disk", "is full", sees="503 for uploads; no half of a file stays", ends="when there is room")
@pytest.mark.parametrize("fails", ["os.fsync", "pathlib.Path.replace"])
def test_9_T4_a_full_disk_leaves_no_half(
    app: Flask, member: FlaskClient, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fails, fail)
        assert upload(member, "a.txt", b"a").status_code == 503
        assert stored(app) == []
    assert upload(member, "a.txt", b"a").status_code == 201


@pytest.mark.fault(
    "Worker", "is killed while it stores a file", sees="nothing: no half of a file is ever shown", ends="at once"
)
@pytest.mark.parametrize("written", [0, 1])
def test_9_T4_a_crash_leaves_nothing_visible(
    app: Flask, member: FlaskClient, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The power fails while the data (0) or the metadata (1) is written: what is on disk then is nobody's file."""

    class PowerCut(BaseException):
        """Nothing in the app may catch it, as nothing runs after a power cut."""

    upload(member, "whole.txt", b"a")
    syncs = itertools.count()

    def sync(_: int) -> None:
        if next(syncs) == written:
            raise PowerCut

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # nobody tidies up after a power cut either
    owner = next(path.name for path in app.config["UPLOAD_DIR"].iterdir() if path.is_dir())
    with app.test_request_context():
        with pytest.raises(PowerCut):
            uploads._store(iter([io.BytesIO(b"half")]), "half.txt", "text/plain", owner)
        assert len(stored(app)) == 2 + written + 1
        assert [file.name for file in folder.listing(owner)] == ["whole.txt"]


def multipart(parts: int, content: bytes = b"a", name: str = "a.txt") -> tuple[bytes, str]:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
    head += f"Content-Type: {TYPES[name.rpartition('.')[2]]}\r\n\r\n".encode()
    return (head + content + b"\r\n") * parts + b"--x--\r\n", "multipart/form-data; boundary=x"


def fields(count: int, size: int) -> tuple[bytes, str]:
    head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    return (head + b"a" * size + b"\r\n") * count + b"--x--\r\n", "multipart/form-data; boundary=x"


def headed(count: int, size: int, end: bytes = b"\r\n") -> tuple[bytes, str]:
    """Parts with ``size`` bytes of headers in short lines; ``end`` is that of their boundary."""
    head = b'--x%sContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n' % end
    lines = b"a\n" * ((size - len(head)) // 2)
    return (head + lines + b"\r\n\r\nhi\r\n") * count + b"--x--\r\n", "multipart/form-data; boundary=x"


@pytest.mark.filterwarnings("ignore:.*Unclosed file")  # that of the first part, which Werkzeug does not close then
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b" \t\r\n", b"\n\r\n", b" " * 8_000 + b"\n"])
@pytest.mark.parametrize("before", [1, 57_100, 65_450, 65_530, 130_000])
def test_9_T4_the_headers_of_a_part_are_bounded(member: FlaskClient, end: bytes, before: int) -> None:
    """Wherever they are in what is read at once. Blanks behind the boundary count as headers."""
    headers = {**JSON, "X-CSRFToken": csrf_token(member)}
    first = multipart(1, b"a" * before)[0].removesuffix(b"--x--\r\n")
    for size, status in ((7_000 if len(end) < 10 else 150, 201), (9_000, 413)):
        body, media_type = headed(1, size, end)
        answer = member.post("/uploads", data=first + body, content_type=media_type, headers=headers)
        assert answer.status_code == status
    assert "The headers of a part of this form are too large: the maximum is 8.0 KiB." in answer.get_json()["detail"]


@pytest.mark.parametrize("end", ["%0D%0A", "%0A", "%0D"])
def test_9_T4_a_boundary_with_a_line_break_is_refused(member: FlaskClient, end: str) -> None:
    """Werkzeug would also find it in the middle of another one."""
    body, headers = headed(1, 150)[0], {**JSON, "X-CSRFToken": csrf_token(member)}
    media_type = f"multipart/form-data; boundary*=utf-8''x{end}--x"
    answer = member.post("/uploads", data=body, content_type=media_type, headers=headers)
    assert (answer.status_code, "contains a line break" in answer.text) == (400, True)


FORM = "application/x-www-form-urlencoded"
BODY, FIELD, PARTS = "This request is too large", "A field of this form is too large", "too many fields and files"
MOST = 10 * 2**20
# What is sent where MAX_CONTENT_LENGTH is MOST → how to make it, what its answer calls too large, the maximum, and the
# limit's name.
OVERSIZED: dict[str, tuple[Callable[[], tuple[bytes, str]], str, str, str]] = {
    "one large file": (lambda: multipart(1, b"a" * MOST), BODY, "10.0 MiB", "MAX_CONTENT_LENGTH"),
    "100 files": (lambda: multipart(100, b"a" * 110_000), BODY, "10.0 MiB", "MAX_CONTENT_LENGTH"),
    "10,000 files": (lambda: multipart(10_000), PARTS, "100", "MAX_FORM_PARTS"),
    "101 fields": (lambda: fields(101, 1), PARTS, "100", "MAX_FORM_PARTS"),
    "101 files of 2 kB": (lambda: multipart(101, b"a" * 2_000), PARTS, "100", "MAX_FORM_PARTS"),
    "99 fields and a large one": (
        lambda: (fields(99, 1)[0][:-7] + fields(1, 140_000)[0], fields(1, 0)[1]),
        FIELD,
        "128.0 KiB",
        "MAX_FORM_MEMORY_SIZE",
    ),
    "a field of 140 kB": (lambda: fields(1, 140_000), FIELD, "128.0 KiB", "MAX_FORM_MEMORY_SIZE"),
    "a field of 9 MB": (lambda: fields(1, 9_000_000), FIELD, "128.0 KiB", "MAX_FORM_MEMORY_SIZE"),
    "a field without an end": (
        lambda: (fields(1, 140_000)[0][:-9], fields(1, 0)[1]),
        FIELD,
        "128.0 KiB",
        "MAX_FORM_MEMORY_SIZE",
    ),
    "101 files with short line ends": (
        lambda: (multipart(101)[0].replace(b"\r\n", b"\n"), multipart(1)[1]),
        PARTS,
        "100",
        "MAX_FORM_PARTS",
    ),
    # If each of them were searched for the end of its headers, this would take a minute.
    "a file of boundaries within lines": (
        lambda: multipart(1, (b"a--x\n" * 1_630 + b"\n\n") * 500),
        PARTS,
        "100",
        "MAX_FORM_PARTS",
    ),
    "100 parts of 60 kB of headers": (
        lambda: headed(100, 60_000),
        "The headers of a part of this form are too large",
        "8.0 KiB",
        "MAX_PART_HEADERS",
    ),
    "100 parts of 60 kB of headers, each behind a boundary within a line": (
        lambda: (headed(49, 60_000)[0].replace(b"--x\r\n", b"a--x a\r\n--x\r\n\r\n"), headed(1, 1)[1]),
        "The headers of a part of this form are too large",
        "8.0 KiB",
        "MAX_PART_HEADERS",
    ),
    "five million fields": (lambda: (b"a&" * 5_000_000, FORM), BODY, "128.0 KiB", "MAX_FORM_MEMORY_SIZE"),
    "deep JSON": (lambda: (b'{"a":' * 1_000_000, "application/json"), BODY, "128.0 KiB", "MAX_FORM_MEMORY_SIZE"),
}


def test_9_T4_oversized_requests_are_cut_and_told_why(serve: Callable[..., Server]) -> None:
    """From anybody: the body is read before it is known whose it is, since the form's token is in it."""
    server = serve(MAX_CONTENT_LENGTH=MOST)
    server.request("/uploads")  # so that nothing is loaded for the first time below
    for case, (make, what, most, _) in OVERSIZED.items():
        body, media_type = make()
        headers = {**JSON, "Content-Type": media_type, "Referer": f"{server.url}/"}
        with memory_of(server) as grown:
            status, _, answer = server.request("/uploads", "POST", body, headers)
        assert (case, status) == (case, 413)
        told = json.loads(answer)["detail"]
        assert what in told, (case, told)
        assert told.endswith(f"the maximum is {most}."), (case, told)
        assert max(grown) < 64 * 2**20, case


# Werkzeug leaves the parts of a form that it refuses to the garbage collector, which closes them with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", OVERSIZED)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_9_S5_in_debug_a_413_names_the_setting(app_config: dict[str, object], case: str, announced: bool) -> None:
    make, what, _, name = OVERSIZED[case]
    body, media_type = make()
    config = app_config | {"FLASK_DEBUG": True, "MAX_CONTENT_LENGTH": MOST}
    client = browser_like(create_app(config), "http://localhost")
    length = {"content_length": len(body)} if announced else {"environ_overrides": {"wsgi.input_terminated": True}}
    answer = client.post("/uploads", input_stream=io.BytesIO(body), content_type=media_type, headers=JSON, **length)
    assert (answer.status_code, what in answer.text) == (413, True), answer.text
    assert re.search(rf"\(Debug: the limit is {name}(; @accepts\(\w+=…\) [\w ]+)?\.\)$", answer.get_json()["detail"])
    gc.collect()


def test_9_S5_a_413_of_other_code_names_no_limit_and_one_of_a_view_its_view(app: Flask) -> None:
    def strict() -> str:
        request.max_content_length = 10
        return str(len(request.get_data()))

    def parse() -> str:
        abort(413)

    app.debug = True
    app.add_url_rule("/tested-strict", view_func=public(exempt("a test")(strict)), methods=["POST"])
    app.add_url_rule("/tested-parse", view_func=public(parse))
    client = browser_like(app)
    assert (
        "the maximum is 10 Bytes. (Debug: the limit is request.max_content_length in strict.)"
        in client.post("/tested-strict", data=b"a" * 11, content_type="application/octet-stream").text
    )
    assert "maximum" not in client.get("/tested-parse").text


@contextlib.contextmanager
def memory_of(server: Server) -> Iterator[list[int]]:
    """Return the bytes by which the server's processes grow, measured until the end of the block."""

    def resident() -> int:
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in table.splitlines()]
        family = {server.process.pid}
        for _ in range(3):  # gunicorn, its workers, and their decoders
            family |= {pid for pid, parent, _ in rows if parent in family}
        return sum(rss for pid, _, rss in rows if pid in family) * 1024

    before, grown, over = resident(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            grown.append(resident() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield grown
    finally:
        over.set()
        watcher.join()


def test_9_T4_an_endless_body_ends(serve_proxied: Callable[..., Server]) -> None:
    """It is refused while it comes: without a bound, nginx would go on writing it to the disk."""
    server, sent, answer = serve_proxied(), 0, b""
    head = f"POST /uploads HTTP/1.1\r\nHost: localhost:{server.port}\r\nReferer: {server.url}/\r\n"
    head += "Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    with server.raw() as connection:
        connection.sendall(head.encode())
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        while not answer and sent <= 2**30:  # more than MAX_CONTENT_LENGTH may ever be
            connection.sendall(b"100000\r\n" + b"a" * 2**20 + b"\r\n")
            sent += 2**20
            with contextlib.suppress(ssl.SSLWantReadError):  # nothing yet
                connection.setblocking(False)
                answer = connection.recv(4096)
            connection.settimeout(10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert server.request("/healthz")[0] == 200


def test_9_T4_a_body_that_is_announced_as_too_large_is_refused_unread(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied()
    with server.raw() as connection:
        connection.sendall(b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_9_T4_what_is_a_little_too_large_is_told_why_through_the_proxy(serve_proxied: Callable[..., Server]) -> None:
    """deploy/nginx.conf lets through what MAX_CONTENT_LENGTH allows, and a bit more, for the app to name it."""
    server = serve_proxied()
    most = int(Settings.model_fields["MAX_CONTENT_LENGTH"].default)
    body, media_type = multipart(1, b"a" * most)
    headers = {**JSON, "Content-Type": media_type, "Referer": f"{server.url}/"}
    status, received, answer = server.request("/uploads", "POST", body, headers)
    assert (status, received["Content-Type"]) == (413, "application/problem+json")
    told = f"This request is too large: the maximum is {do_filesizeformat(most, binary=True)}."
    assert json.loads(answer)["detail"] == told


def test_9_T4_slow_bodies_leave_others_served(serve_proxied: Callable[..., Server], tmp_path: Path) -> None:
    """Half an upload, and then nothing, from many addresses, while gunicorn has two threads."""
    server = serve_proxied(THREADS=2)
    head = (
        f"POST /uploads HTTP/1.1\r\nHost: localhost:{server.port}\r\nReferer: {server.url}/\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.raw(f"127.0.0.{10 + number % 20}")) for number in range(200)]
        for connection in slow:
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")  # so nginx waits for the body
            connection.sendall(b"--x\r\n")
        assert [server.request("/healthz")[0] for _ in range(10)] == [200] * 10
        for connection in slow:
            connection.settimeout(30)  # nginx would wait for 60 unless told otherwise
            with contextlib.suppress(ssl.SSLError, ConnectionError):  # but no TimeoutError
                while connection.recv(4096):
                    pass
