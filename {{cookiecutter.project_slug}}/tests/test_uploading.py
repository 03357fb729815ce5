"""What people do with uploads: send, see, fetch and delete real files."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageChops, ImageCms, ImageStat
from urllib3.filepost import encode_multipart_formdata

from app import create_app
from app.security import uploads
from app.settings import SettingsError
from app.storage import images
from app.storage.stored import storage
from tests.conftest import browser_like, csrf_token, new_member, on_both_storages, post
from tests.hostile_images import LARGEST
from tests.samples import (
    FORMATS,
    GOOD,
    JSON,
    TYPES,
    animation,
    download,
    drawing,
    encode,
    pdf,
    stored,
    upload,
    upload_all,
)


def fetch(client: FlaskClient, name: str, content: bytes) -> bytes:
    """Upload, and give what comes back."""
    answer = upload(client, name, content)
    assert answer.status_code == 201, answer.text
    return download(client, answer.headers["Location"]).data


def names(client: FlaskClient) -> list[str]:
    return [file["name"] for file in client.get("/uploads", headers=JSON).get_json()["files"]]


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures over white, 0 to 255."""
    over_white = [
        Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        for image in (one, other)
    ]
    return max(ImageStat.Stat(ImageChops.difference(*over_white)).mean)


def test_a_form_uploads_one_file(member: FlaskClient) -> None:
    answer = upload_all(member, [("notes.txt", b"hello", "text/plain")])
    assert (answer.status_code, answer.headers["Location"]) == (303, "/uploads")
    page = member.get("/uploads").text
    assert "notes.txt is uploaded." in page
    assert "<bdi>notes.txt</bdi>" in page


@on_both_storages
def test_a_form_uploads_several_files(member: FlaskClient) -> None:
    upload_all(member, [("a.txt", b"a", "text/plain"), ("b.pdf", pdf(), "application/pdf")])
    assert sorted(names(member)) == ["a.txt", "b.pdf"]


@on_both_storages
def test_a_form_with_one_bad_file_keeps_none_and_says_which(member: FlaskClient) -> None:
    answer = upload_all(member, [("a.txt", b"a", "text/plain"), ("b.exe", b"MZ", "application/octet-stream")])
    assert answer.status_code == 415
    assert "b.exe: Files of this type are not accepted. Please send one of: txt, pdf, png" in answer.text
    assert names(member) == []


@on_both_storages
def test_what_can_not_be_deleted_after_a_failure_hides_neither_the_failure_nor_the_others(
    app: Flask, member: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = app.extensions["upload_storage"]
    store, delete = storage.store, storage.delete

    def fails(of: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            if of in (arguments[1:2] or arguments[0].name):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments, **more)

        return called

    monkeypatch.setattr(storage, "store", fails("c.txt", store))
    monkeypatch.setattr(storage, "delete", fails("a.txt", delete))
    answer = upload_all(member, [(f"{name}.txt", b"a", "text/plain") for name in "abc"], headers=JSON)
    assert (answer.status_code, "c.txt: The file could not be stored." in answer.text) == (503, True)
    assert names(member) == ["a.txt"]
    assert "a file of a failed upload is still there: " in caplog.text


def test_a_script_gets_json(member: FlaskClient) -> None:
    answer = upload(member, "notes.txt", b"hello")
    assert answer.status_code == 201
    facts = answer.get_json()
    assert facts == {"id": facts["id"], "name": "notes.txt", "size": 5, "type": "text/plain"}
    assert answer.headers["Location"] == f"/uploads/{facts['id']}"


def test_a_script_gets_json_for_several(member: FlaskClient) -> None:
    answer = upload_all(member, [("a.txt", b"a", "text/plain"), ("b.txt", b"b", "text/plain")], headers=JSON)
    assert answer.status_code == 201
    assert [file["name"] for file in answer.get_json()["files"]] == ["a.txt", "b.txt"]


def test_a_body_of_json_is_no_file(member: FlaskClient) -> None:
    answer = member.post("/uploads", json={"file": "a"}, headers=JSON | {"X-CSRFToken": csrf_token(member)})
    assert answer.status_code == 400
    assert "Please choose a file." in answer.text


@pytest.mark.parametrize("headers", [{}, JSON], ids=["form", "script"])
def test_no_file_is_told(member: FlaskClient, headers: dict[str, str]) -> None:
    answer = post(member, "/uploads", headers=headers)
    assert answer.status_code == 400
    assert "Please choose a file." in answer.text


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_comes_back(member: FlaskClient, name: str) -> None:
    ending = name.rpartition(".")[2].lower()
    answer = upload(member, name, GOOD[name])
    assert answer.status_code == 201, answer.text
    got = download(member, answer.headers["Location"])
    assert got.mimetype == TYPES[ending]
    if ending in FORMATS:
        assert difference(Image.open(io.BytesIO(got.data)), Image.open(io.BytesIO(GOOD[name]))) < 5
    else:
        assert got.data == GOOD[name]


@pytest.mark.parametrize("line", [b"a line\n", b"\r\n", b"-", b"--x"])
def test_a_file_of_many_chunks_comes_back_whole(member: FlaskClient, line: bytes) -> None:
    text = line * (9 * 2**20 // len(line))
    assert fetch(member, "long.txt", text) == text


@pytest.mark.parametrize(
    ("ending", "mode"),
    [("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("jpg", mode) for mode in ("L", "RGB", "CMYK")]
    + [("webp", mode) for mode in ("RGB", "RGBA")]
    + [("gif", mode) for mode in ("L", "P")],
)
def test_images_of_every_mode_keep_their_looks(member: FlaskClient, ending: str, mode: str) -> None:
    image = Image.new("I;16", (60, 40), 30000) if mode == "I;16" else drawing(mode=mode)
    got = Image.open(io.BytesIO(fetch(member, f"picture.{ending}", encode(image, ending))))
    assert got.format == FORMATS[ending]
    assert difference(got, image) < 5


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_images_of_people_are_accepted(
    member: FlaskClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The limits of work and memory are for those who attack."""
    monkeypatch.setattr(images, "ANSWER_SECONDS", 100)  # the machine may be busy
    answer = upload(member, name, LARGEST[name]())
    assert answer.status_code == 201, answer.text


def test_many_images_of_one_request_are_accepted(member: FlaskClient) -> None:
    files = [(f"{number}.png", GOOD["drawing.png"], "image/png") for number in range(50)]
    assert upload_all(member, files).status_code == 303
    assert len(names(member)) == 50


def test_of_several_images_the_damaged_one_is_named(member: FlaskClient) -> None:
    files = [(f"{number}.png", GOOD["drawing.png"][: 60 if number == 1 else None], "image/png") for number in range(3)]
    answer = upload_all(member, files, headers=JSON)
    assert answer.status_code == 422
    assert answer.get_json()["detail"].startswith("1.png: This image is damaged")
    assert names(member) == []


def test_a_turned_photo_stands_upright_and_tells_no_place(member: FlaskClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn clockwise to view
    exif[0x010F] = "Camera of Alice"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    photo = encode(drawing((60, 40)), "jpg", exif=exif, comment=b"at home", quality=95)
    data = fetch(member, "photo.jpg", photo)
    got = Image.open(io.BytesIO(data))
    assert got.size == (40, 60)
    assert got.convert("RGB").getpixel((35, 5)) == pytest.approx((255, 0, 0), abs=8)
    assert not got.getexif()
    assert b"Alice" not in data
    assert b"home" not in data


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_colour_profiles_are_applied_before_they_go(member: FlaskClient, ending: str) -> None:
    # The profile swaps red and green: what it means is the opposite of the bare numbers.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    data = fetch(
        member, f"a.{ending}", encode(Image.new("RGB", (40, 40), (255, 0, 0)), ending, icc_profile=bytes(profile))
    )
    got = Image.open(io.BytesIO(data))
    assert got.convert("RGB").getpixel((20, 20)) == pytest.approx((0, 255, 0), abs=8)
    assert "icc_profile" not in got.info


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animations_go_on_moving(member: FlaskClient, ending: str) -> None:
    sent = Image.open(io.BytesIO(animation(ending)))
    got = Image.open(io.BytesIO(fetch(member, f"a.{ending}", animation(ending))))
    assert (got.n_frames, got.info["loop"]) == (4, 2)  # type: ignore[attr-defined]
    for frame in range(4):
        sent.seek(frame)
        got.seek(frame)
        assert difference(got, sent) < 5
        got.load()
        assert got.info["duration"] == 100 * (frame + 1)


@on_both_storages
def test_download_has_the_name_it_came_with(member: FlaskClient) -> None:
    answer = upload(member, "Übersicht 2026.txt", b"hello")
    header = download(member, answer.headers["Location"]).headers["Content-Disposition"]
    # RFC 6266: the plain name for the old, the encoded one for all others.
    assert header == "attachment; filename=\"Ubersicht 2026.txt\"; filename*=UTF-8''%C3%9Cbersicht%202026.txt"


def test_only_images_are_shown_in_the_page(member: FlaskClient) -> None:
    for name, disposition in (("a.png", "inline"), ("a.txt", "attachment"), ("a.pdf", "attachment")):
        content = {"a.png": GOOD["drawing.png"], "a.txt": b"a", "a.pdf": pdf()}[name]
        where = upload(member, name, content).headers["Location"]
        shown = download(member, where, query_string={"inline": "1"})
        assert shown.headers["Content-Disposition"] == f"{disposition}; filename={name}"
        assert download(member, where).headers["Content-Disposition"] == f"attachment; filename={name}"


@on_both_storages
@pytest.mark.parametrize(
    ("headers", "status", "data", "content_range"),
    [
        ({"Range": "bytes=0-3"}, 206, b"0123", "bytes 0-3/10"),
        ({"Range": "bytes=-2"}, 206, b"89", "bytes 8-9/10"),
        ({"Range": "bytes=90-"}, 416, None, "bytes */10"),
        ({"Range": "bytes=0-3", "If-Range": '"another"'}, 200, b"0123456789", None),
        ({"Range": "lines=0-3"}, 200, b"0123456789", None),
        ({"Range": "bytes=0-1,3-4"}, 200, b"0123456789", None),
    ],
)
def test_downloads_resume(
    member: FlaskClient, headers: dict[str, str], status: int, data: bytes | None, content_range: str | None
) -> None:
    where = upload(member, "a.txt", b"0123456789").headers["Location"]
    got = download(member, where, headers=headers)
    assert (got.status_code, got.headers.get("Content-Range")) == (status, content_range)
    assert data in (None, got.data)


@on_both_storages
def test_what_the_browser_has_is_not_sent_again(member: FlaskClient) -> None:
    where = upload(member, "a.txt", b"secret").headers["Location"]
    etag = download(member, where).headers["ETag"]
    assert download(member, where, headers={"If-None-Match": etag}).status_code == 304
    for part in ({}, {"Range": "bytes=0-1"}):
        answer = download(member, where, headers={"If-Match": '"of another file"'} | part)
        assert (answer.status_code, answer.mimetype, b"secret" in answer.data) == (412, "text/html", False)
    for match in ("*", etag):
        assert download(member, where, headers={"If-Match": match}).data == b"secret"


@on_both_storages
def test_delete_by_form_and_by_script(member: FlaskClient, app: Flask) -> None:
    for headers, status in (({}, 303), (JSON, 204)):
        where = upload(member, "a.txt", b"a").headers["Location"]
        assert post(member, f"{where}/delete", headers=headers).status_code == status
        assert download(member, where).status_code == 404
    assert stored(app) == []


@on_both_storages
def test_the_page_shows_what_is_used(app_config: dict[str, object]) -> None:
    limits = {"UPLOAD_QUOTA_BYTES": 4096, "UPLOAD_QUOTA_FILES": 7, "MAX_CONTENT_LENGTH": 2000}
    app = create_app(app_config | limits | {"UPLOAD_EXTENSIONS": "txt,jpg"})
    with app.test_request_context():
        owner = uploads.new_session_owner()
        uploads.save(file_storage("a.txt", b"x" * 1000, "text/plain"), owner)
        assert uploads.quota(storage().listing(owner)) == {
            "used_bytes": 1000,
            "max_bytes": 4096,
            "used_files": 1,
            "max_files": 7,
            "max_file_bytes": 2000,
            "extensions": ("txt", "jpg", "jpeg"),
        }


def file_storage(name: str, content: bytes, declared: str) -> Any:
    from werkzeug.datastructures import FileStorage

    return FileStorage(io.BytesIO(content), name, content_type=declared)


@on_both_storages
def test_delete_all_leaves_other_owners_alone(app: Flask) -> None:
    with app.test_request_context():
        one, other = uploads.new_session_owner(), uploads.new_session_owner()
        for owner in (one, other):
            uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)
        storage().delete_all(one)
        storage().delete_all(one)  # nothing there any more
        assert (storage().listing(one), len(storage().listing(other))) == ([], 1)


def test_the_sweep_goes_on_past_what_is_no_upload(app: Flask, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", Path(app.config["UPLOAD_DIR"])
    outside.mkdir()
    folder.mkdir()
    (outside / "old").write_bytes(b"")
    os.utime(outside / "old", (1, 1))
    (folder / ("a" * 32)).symlink_to(outside)
    (folder / ("b" * 32)).write_bytes(b"")
    (folder / ("c" * 32) / "folder").mkdir(parents=True)
    assert app.test_cli_runner().invoke(args=["uploads", "sweep"]).output == "Removed 0 files.\n"
    assert (outside / "old").exists()


def test_the_sweep_goes_on_where_an_account_is_deleted_meanwhile(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = [Path(app.config["UPLOAD_DIR"], letter * 32) for letter in "abc"]
    for owner in owners:
        owner.mkdir(parents=True)
        (owner / ("d" * 32)).touch()
        os.utime(owner / ("d" * 32), (1, 1))
    is_folder = Path.is_dir

    def and_then_it_is_deleted(path: Path) -> bool:
        found = is_folder(path)
        if path == owners[1]:
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(Path, "is_dir", and_then_it_is_deleted)
    assert app.test_cli_runner().invoke(args=["uploads", "sweep"]).output == "Removed 2 files.\n"


def test_the_sweep_takes_leftovers_and_nothing_else(app: Flask) -> None:
    root: Path = app.config["UPLOAD_DIR"]
    account, visitor, gone = "a" * 32, f"session-{'b' * 32}", f"session-{'c' * 32}"
    with app.test_request_context():
        *kept, ended = [
            root / owner / uploads.save(file_storage("a.txt", b"a", "text/plain"), owner).id
            for owner in (account, visitor, gone)
        ]
    leftovers = [root / account / f"{'d' * 32}{ending}" for ending in (".part", "", ".json.part")]
    fresh = root / account / f"{'e' * 32}.part"
    foreign = root / "lost+found" / "old"
    foreign.parent.mkdir()
    for path in (*leftovers, fresh, foreign):
        path.touch()
    (root / account / f"{'f' * 32}.json").touch()
    leftovers.append(root / account / f"{'f' * 32}.json")
    two_hours_ago, yesterday = time.time() - 7200, time.time() - 86400
    for path in (*leftovers, foreign, kept[0]):
        os.utime(path, (yesterday, yesterday))
    os.utime(kept[1], (two_hours_ago, two_hours_ago))
    for path in (ended, ended.with_suffix(".json")):
        os.utime(path, (yesterday, yesterday))

    told = app.test_cli_runner().invoke(args=["uploads", "sweep"]).output

    assert told == "Removed 6 files.\n"
    assert not [path for path in (*leftovers, ended, ended.parent) if path.exists()]
    assert all(path.exists() for path in (*kept, fresh, foreign))


@pytest.mark.parametrize(
    ("setting", "value", "fault"),
    [
        ("UPLOAD_EXTENSIONS", "png,svg", "there is no check for svg"),
        ("UPLOAD_EXTENSIONS", "PNG", "there is no check for PNG"),
        ("UPLOAD_DIR", "app/uploads", "lies inside the app"),
        ("UPLOAD_DIR", "app/static", "lies inside the app"),
        ("UPLOAD_DIR", "app", "lies inside the app"),
        ("UPLOAD_DIR", ".", "contains the app"),
        ("UPLOAD_DIR", "/", "contains the app"),
        ("UPLOAD_DIR", "tests", "contains other files"),
        ("UPLOAD_DIR", "wsgi.py", "is not a folder"),
    ],
)
def test_wrong_settings_stop_the_start(app_config: dict[str, object], setting: str, value: str, fault: str) -> None:
    where = str(Path(uploads.__file__).parents[2] / value) if setting == "UPLOAD_DIR" else value
    with pytest.raises(SettingsError, match=re.escape(fault)) as told:
        create_app(app_config | {setting: where})
    assert f"{setting}: " in told.value.message


def test_fewer_types_can_be_taken(app_config: dict[str, object]) -> None:
    with create_app(app_config | {"UPLOAD_EXTENSIONS": "png"}).test_request_context():
        owner = uploads.new_session_owner()
        uploads.save(file_storage("a.png", GOOD["drawing.png"], "image/png"), owner)
        with pytest.raises(Exception, match="Please send one of: png"):
            uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)


def test_a_folder_that_others_can_open_is_a_fact_until_the_first_upload_closes_it(
    app_config: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "uploads").mkdir(mode=0o755)
    app = create_app(app_config)
    assert [(fact.id, fact.severity) for fact in uploads.check(app)] == [("UP03", "relaxed")]
    assert upload(new_member(app), "a.txt", b"a").status_code == 201
    assert list(uploads.check(app)) == []


@on_both_storages
def test_parallel_uploads_never_pass_the_quota(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"UPLOAD_QUOTA_FILES": 3})
    owner = uploads.new_session_owner()

    def save(_: int) -> bool:
        with app.test_request_context():
            try:
                uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)
            except Exception:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(save, range(40)))
    with app.test_request_context():
        assert len(storage().listing(owner)) == accepted <= 3
        while len(storage().listing(owner)) < 3:  # near the limit, a race may refuse them all; then retry
            uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)


def test_another_visitor_sees_an_empty_list(app: Flask, member: FlaskClient) -> None:
    upload(member, "a.txt", b"a")
    assert "a.txt" not in browser_like(app).get("/uploads").text


def test_a_file_is_whole_wherever_its_end_is_read(member: FlaskClient) -> None:
    """Werkzeug reads 64 KiB at a time, and took a line break for a part of a file whose boundary ended there."""
    token = csrf_token(member)
    frame, _ = encode_multipart_formdata({"csrf_token": token, "file": ("a.txt", "")}, boundary="x" * 32)
    for end in range(-8, 9):  # of the last boundary, without what follows it
        content = b"a" * (2**16 + end + len(b"--\r\n") - len(frame))
        fields = {"csrf_token": token, "file": ("a.txt", content)}
        body, kind = encode_multipart_formdata(fields, boundary="x" * 32)
        answer = member.post("/uploads", data=body, content_type=kind, headers=JSON)
        assert answer.status_code == 201
        assert download(member, f"/uploads/{answer.get_json()['id']}").data == content, end
