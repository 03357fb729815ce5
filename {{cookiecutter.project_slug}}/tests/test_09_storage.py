"""Mitigation 9, uploads: attacks and faults that depend on where files are stored, with a real S3 server."""

from __future__ import annotations

import base64
import errno
import http.server
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import create_app
from app.security import uploads
from app.security.errors import Refusal, refuse
from app.settings import SettingsError
from app.storage import bucket, folder, total
from app.storage.stored import StoredFile, storage
from tests.conftest import KEY, browser_like, new_member, on_both_storages, post
from tests.relay import Relay
from tests.s3_server import S3, SECRET, client_of, objects, own_s3
from tests.samples import JSON, download, stored, upload
from tests.test_09_uploads import IDS, NAMES, upload_named
from tests.test_uploading import file_storage, names

__all__ = ("own_s3",)

READYZ = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def in_bucket(app_config: dict[str, object], s3_server: S3) -> dict[str, object]:
    return app_config | s3_server.settings()


def put(config: dict[str, Any], key: str, content: bytes = b"") -> None:
    prefix = config["UPLOAD_STORAGE"].removeprefix("s3://uploads/")
    client = client_of(config)
    client.put_object(Bucket="uploads", Key=f"{prefix}/{key}", Body=content)
    client.close()


# Attacks


def test_9_T1_no_name_of_an_object_is_chosen_by_a_visitor(in_bucket: dict[str, object]) -> None:
    member = new_member(create_app(in_bucket))
    told = [upload_named(member, name).get_json().get("name") for name in [*NAMES][::4]]
    assert told == [NAMES[name] for name in [*NAMES][::4]]
    assert names(member) == [*filter(None, reversed(told))]
    for key in objects(in_bucket):
        assert re.fullmatch(r"(session-)?[0-9a-f]{32}/[0-9a-f]{32}(\.[A-Za-z0-9_-]+)?", key), key


def test_9_T1_an_id_leads_to_no_other_object(in_bucket: dict[str, object]) -> None:
    app = create_app(in_bucket)
    member = new_member(app)
    upload(member, "a.txt", b"a")
    (data,) = (key for key in objects(in_bucket) if "." not in key)
    owner, _, file_id = data.partition("/")
    for key in ("secret.txt", f"{owner}/secret.txt", f"{'0' * 32}/{'0' * 32}", f"{owner}/{'1' * 32}"):
        put(in_bucket, key, b"of another")
    for attempt in (*IDS, "1" * 32, "secret.txt", file_id[:31], f"{file_id}.", "..%2f" + "0" * 32 + "%2f" + "0" * 32):
        got = download(member, f"/uploads/{attempt}")
        assert (got.status_code in (400, 404, 414), b"of another" in got.data) == (True, False), attempt
        assert post(member, f"/uploads/{attempt}/delete").status_code in (400, 404, 414)
    assert len(objects(in_bucket)) == 6


@pytest.mark.fault(
    "Uploads",
    "of all owners reach `UPLOAD_QUOTA_TOTAL_BYTES`",
    sees="503 for uploads, which says that the visitor's own files are not the reason",
    ends="at the first measurement after a deletion: at most every ten minutes",
)
@on_both_storages
def test_9_T4_all_owners_together_have_a_quota(
    app_config: dict[str, object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 1000, "UPLOAD_QUOTA_FILES": 2}
    app = create_app(config)
    one, other = new_member(app, "one@example.com"), new_member(app, "other@example.com")
    where = upload(one, "a.txt", b"a" * 600).headers["Location"]
    assert upload(one, "a.txt", b"a").status_code == 201
    for _ in range(5):
        assert upload(one, "a.txt", b"a" * 300).status_code == 413  # over its own quota: not counted here
    answer = upload(other, "a.txt", b"a" * 400)
    assert (answer.status_code, answer.headers["Retry-After"], len(stored(app))) == (503, "3600", 4)
    assert answer.get_json()["detail"].startswith("The files of all visitors together have reached the limit")
    assert "UPLOAD_QUOTA_TOTAL_BYTES" in caplog.text
    assert "UPLOAD_QUOTA_TOTAL_BYTES" not in answer.text
    assert upload(other, "a.txt", b"a" * 399).status_code == 201
    other.application = create_app(config)  # a restart, or another worker
    assert upload(other, "a.txt", b"a").status_code == 503
    # What is deleted is free after the next measurement, which uploads cause at most every ten minutes.
    post(one, f"{where}/delete")
    assert upload(other, "a.txt", b"a" * 600).status_code == 503
    monkeypatch.setattr(total, "MEASURE_SECONDS", -1)
    assert upload(other, "a.txt", b"a" * 601).status_code == 503
    assert upload(other, "a.txt", b"a" * 600).status_code == 201
    monkeypatch.undo()


@on_both_storages
def test_9_T4_the_quota_of_all_owners_does_not_read_their_files_for_each_upload(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 1000})
    member, measured, chosen = new_member(app), [], app.extensions["upload_storage"]
    measure = chosen.total
    monkeypatch.setattr(chosen, "total", lambda: measured.append(1) or measure())
    assert [upload(member, "a.txt", b"a" * 250).status_code for _ in range(6)] == [201] * 4 + [503] * 2
    assert len(measured) == 1
    for content in ("", "{", "[]", '{"bytes": 1, "measured": 1, "other": 1}'):  # a crash while it was written
        (app.config["UPLOAD_DIR"] / folder.TOTAL).write_text(content)
        assert upload(member, "a.txt", b"a" * 250).status_code == 503
    assert len(measured) == 5
    assert app.test_cli_runner().invoke(args=["uploads", "sweep"]).exit_code == 0
    assert len(measured) == 6


@on_both_storages
def test_9_T4_before_the_first_measure_has_ended_no_upload_passes_the_quota(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor after it: a process that is killed while it measures leaves no count of nothing."""
    app = create_app(app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 1000})
    member, chosen = new_member(app), app.extensions["upload_storage"]
    assert upload(member, "a.txt", b"a" * 900).status_code == 201
    (app.config["UPLOAD_DIR"] / folder.TOTAL).unlink()
    other, measure, meanwhile = new_member(app, "other@example.com"), chosen.total, list[int]()

    def measured() -> int:
        if not meanwhile:
            meanwhile.append(0)
            meanwhile.append(upload(other, "a.txt", b"a" * 200).status_code)
        return measure()

    monkeypatch.setattr(chosen, "total", measured)
    assert upload(member, "a.txt", b"a" * 200).status_code == 503
    assert meanwhile[1:] == [503]
    assert upload(member, "a.txt", b"a" * 100).status_code == 201
    (app.config["UPLOAD_DIR"] / folder.TOTAL).unlink()
    monkeypatch.setattr(chosen, "total", lambda: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        upload(member, "a.txt", b"a")
    monkeypatch.undo()
    assert upload(member, "a.txt", b"a").status_code == 503


@on_both_storages
def test_9_T4_parallel_uploads_of_many_owners_never_pass_the_quota_of_all(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 100})

    def save(_: int) -> bool:
        with app.test_request_context():
            try:
                uploads.save(file_storage("a.txt", b"a" * 30, "text/plain"), uploads.new_session_owner())
            except Exception:
                return False
            return True

    with app.app_context():
        total.measure()  # what is stored during a measurement may be counted twice
    with ThreadPoolExecutor(6) as pool:
        accepted = sum(pool.map(save, range(18)))
    assert (accepted, len(stored(app))) == (3, 6)


@on_both_storages
def test_9_T4_a_measure_forgets_no_upload_that_is_being_stored(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep may look at the storage before the file is there, and measures may overlap."""
    app = create_app(app_config | {"UPLOAD_QUOTA_TOTAL_BYTES": 100})
    chosen = app.extensions["upload_storage"]
    store, measure, owner = chosen.store, chosen.total, uploads.new_session_owner()

    def save(size: int) -> int:
        with app.test_request_context():
            try:
                uploads.save(file_storage("a.txt", b"a" * size, "text/plain"), owner)
            except Refusal as refusal:
                return refusal.code or 0
            return 201

    def measured_and(then: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            with monkeypatch.context() as once:
                once.setattr(chosen, "store", store)
                once.setattr(chosen, "total", measure)
                total.measure()
                return then(*args, **kwargs)

        return ask

    def fails(*_: object, **__: object) -> None:
        refuse(413, "over the quota of its owner")

    def leaves_no_room(*args: Any, **kwargs: Any) -> Any:
        assert save(40) == 503  # the file of this upload is not there yet, but its bytes are claimed
        return store(*args, **kwargs)

    def loses_the_count(*args: Any, **kwargs: Any) -> Any:
        (app.config["UPLOAD_DIR"] / folder.TOTAL).write_text("")
        return measured_and(store)(*args, **kwargs)

    def looks_early() -> int:
        seen = measure()
        measured_and(lambda: None)()
        assert save(20) == 201
        return int(seen)

    assert save(10) == 201
    with app.app_context():
        chosen.delete_all(owner)
        monkeypatch.setattr(chosen, "total", looks_early)
        total.measure()
    monkeypatch.setattr(chosen, "total", measure)
    assert save(81) == 503
    for stores, size, status in (
        (measured_and(fails), 60, 413),
        (measured_and(leaves_no_room), 41, 201),
        (loses_the_count, 19, 201),
        (store, 21, 503),
    ):
        monkeypatch.setattr(chosen, "store", stores)
        assert save(size) == status
    monkeypatch.undo()


def test_9_T4_another_storage_is_measured_before_its_first_upload(
    app_config: dict[str, object], in_bucket: dict[str, object]
) -> None:
    quota = {"UPLOAD_QUOTA_TOTAL_BYTES": 100}
    member = new_member(create_app(app_config | quota))
    for config, accepted in ((app_config, 201), (in_bucket, 201), (app_config, 503), (in_bucket, 503)):
        member.application = create_app(config | quota)
        assert upload(member, "a.txt", b"a" * 60).status_code == accepted


# Faults in the middle of an upload


@pytest.fixture
def relay(s3_server: S3) -> Iterator[Relay]:
    opened = Relay(s3_server.port)
    yield opened
    opened.close()


@pytest.mark.fault(
    "S3 bucket",
    "goes down during an upload",
    sees="503; no half of a file is ever shown",
    ends="with the next request after its start",
)
def test_9_T4_an_upload_that_is_cut_is_invisible_wherever_that_is(
    app_config: dict[str, object], s3_server: S3, relay: Relay
) -> None:
    """In its data, in its metadata or between them. Another machine never sees it."""
    config = app_config | s3_server.settings(relay.port)
    straight = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3_server.port}"}
    member = new_member(create_app(config))
    upload(member, "whole.txt", b"whole")
    witness, reached = create_app(config | straight), 0
    for bytes_until_the_cut in (0, 300, 20_000, 60_000, *range(100_500, 110_000, 500)):
        relay.left = bytes_until_the_cut
        answer = upload(member, "half.txt", b"a" * 100_000)
        relay.left = sys.maxsize
        through_the_relay, member.application = member.application, witness
        seen = names(member)
        member.application = through_the_relay
        if answer.status_code == 201:
            assert seen == ["half.txt", "whole.txt"]
            break
        assert (answer.status_code, answer.headers["Retry-After"], seen) == (503, "60", ["whole.txt"])
        reached = max(reached, len(objects(config | straight)))
    assert answer.status_code == 201
    assert reached > 2  # some were cut after their data was there


def test_9_T4_what_a_crash_leaves_in_a_bucket_is_swept(
    in_bucket: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(in_bucket)
    account, visitor = "a" * 32, f"session-{'b' * 32}"
    with app.test_request_context():
        for owner in (account, visitor):
            uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)
    for key in (f"{account}/{'d' * 32}", f"{account}/{'e' * 32}.e30", "foreign", f"{account}/foreign"):
        put(in_bucket, key)
    # Hours later → how many objects go.
    for hours, gone in ((0, 0), (2, 2), (13, 2), (10_000, 0)):
        now = time.time() + hours * 3600
        monkeypatch.setattr(bucket, "time", SimpleNamespace(time=lambda now=now: now))
        told = app.test_cli_runner().invoke(args=["uploads", "sweep"]).output
        assert told == f"Removed {gone} files.\n"
    with app.app_context():
        assert (len(storage().listing(account)), storage().listing(visitor)) == (1, [])
    assert sorted(key for key in objects(in_bucket) if "foreign" in key) == [f"{account}/foreign", "foreign"]


def test_facts_that_cannot_be_read_hide_a_file_and_nothing_else(
    in_bucket: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    app, owner = create_app(in_bucket), "a" * 32
    with app.test_request_context():
        whole = uploads.save(file_storage("a.txt", b"a", "text/plain"), owner)
        whole_facts = {"name": "a", "type": "text/plain", "uploaded_at": "2026-01-01T00:00:00+00:00"}
        changes = ({"name": 1}, {"type": None}, {"uploaded_at": "2026-01-01"})  # the last one has no time zone
        wrong = [base64.urlsafe_b64encode(json.dumps(whole_facts | change).encode()).decode() for change in changes]
        broken = ("x", "e30", "_w", "W10")  # no base64, {}, no UTF-8, []
        for number, facts in enumerate([*broken, *(text.rstrip("=") for text in wrong)]):
            put(in_bucket, f"{owner}/{number:032x}")
            put(in_bucket, f"{owner}/{number:032x}.{facts}")
        assert storage().listing(owner) == [whole]
    assert caplog.text.count("unreadable metadata of an upload") == 7


# Faults of the bucket


# The wrong setting → the fix that the log names.
FAULTS = {
    "bucket": ({"UPLOAD_STORAGE": "s3://elsewhere"}, "create the bucket, or correct UPLOAD_STORAGE"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "Wrong-" + SECRET}, "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "rights": ({"AWS_ACCESS_KEY_ID": "test:stranger"}, "allow s3:ListBucket"),
    "address": ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "check the network and AWS_ENDPOINT_URL_S3"),
}


@pytest.mark.fault(
    "S3 bucket",
    "is absent, or refuses the app",
    sees="503 for uploads and downloads; all else works, and `/readyz` is 200",
    ends="after the fix, which the log names",
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bucket_that_cannot_be_used_is_told(
    in_bucket: dict[str, object], caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    settings, fix = FAULTS[fault]
    app = create_app(in_bucket | settings | {"READYZ_TOKEN": KEY})
    answer = browser_like(app).get("/readyz", headers=READYZ)
    assert (answer.status_code, answer.get_json()["parts"]["uploads"]) == (200, "degraded")
    assert fix in caplog.text
    caplog.clear()
    member = new_member(app)
    answer = upload(member, "a.txt", b"a")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    lines = [line for line in lines if "Mail " not in line]
    assert (len(lines), fix in lines[0]) == (1, True), lines
    swept = app.test_cli_runner().invoke(args=["uploads", "sweep"])
    assert (swept.exit_code, fix in swept.output) == (1, True)
    for told in (caplog.text, answer.text, swept.output):
        assert SECRET not in told
    assert [member.get(path).status_code for path in ("/", "/healthz")] == [200, 200]


@pytest.mark.fault(
    "S3 bucket", "is down", sees="503 for uploads and downloads", ends="with the next request after its start"
)
def test_an_outage_of_the_bucket_is_a_503_and_heals(
    app_config: dict[str, object], own_s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(app_config | own_s3.settings())
    member = new_member(app)
    where = upload(member, "a.txt", b"a").headers["Location"]
    asked: dict[str, Callable[[], Any]] = {
        "upload": lambda: upload(member, "b.txt", b"b"),
        "list": lambda: member.get("/uploads", headers=JSON),
        "download": lambda: download(member, where),
        "delete": lambda: post(member, f"{where}/delete", headers=JSON),
    }
    own_s3.kill()
    for what, ask in asked.items():
        caplog.clear()
        answer = ask()
        assert (what, answer.status_code, answer.headers.get("Retry-After")) == (what, 503, "60")
        lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [line.getMessage() for line in lines if line.exc_info] == []
        assert len(lines) == 1
    own_s3.start()
    assert names(member) == ["a.txt"]
    assert {what: ask().status_code for what, ask in asked.items()} == {
        "upload": 201,
        "list": 200,
        "download": 200,
        "delete": 204,
    }


def test_a_file_that_is_deleted_during_its_download_is_gone(
    in_bucket: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(in_bucket)
    member = new_member(app)
    where = upload(member, "a.txt", b"a").headers["Location"]
    chosen = app.extensions["upload_storage"]
    find = chosen.find

    def find_and_delete(owner: str, file_id: str) -> StoredFile | None:
        found: StoredFile | None = find(owner, file_id)
        assert found
        chosen.delete(found)
        return found

    monkeypatch.setattr(chosen, "find", find_and_delete)
    assert download(member, where).status_code == 404


class NotS3(http.server.BaseHTTPRequestHandler):
    """Answers each request with ``answer``: a status, a body and headers."""

    answer: tuple[int, bytes, dict[str, str]]
    requests: list[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(self.command)
        status, body, headers = self.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    do_GET = do_POST = do_HEAD = do_PUT  # noqa: N815 - the base class's names


ANSWERS = {
    "a page": (200, b"<html></html>", {}),
    "a page that is no XML": (200, b"hello", {}),
    "nothing": (200, b"", {}),
    "an error without a code": (403, b"<Error><Message>told nobody</Message></Error>", {}),
    "https, please": (301, b"", {"Location": "http://127.0.0.1:1/"}),
    "elsewhere": (307, b"<Error><Code>TemporaryRedirect</Code></Error>", {"Location": "http://127.0.0.1:1/"}),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_server_that_does_not_talk_s3_is_told(
    in_bucket: dict[str, object], caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    handler = type("Handler", (NotS3,), {"answer": ANSWERS[answer], "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}"}
        member = new_member(create_app(in_bucket | address | {"READYZ_TOKEN": KEY}))
        parts = browser_like(member.application).get("/readyz", headers=READYZ).get_json()["parts"]
        caplog.clear()
        handler.requests.clear()
        asked: list[Any] = [upload(member, "a.txt", b"a"), member.get("/uploads", headers=JSON)]
        server.shutdown()
        thread.join()
    assert parts["uploads"] == "degraded"
    assert len(handler.requests) <= 4  # boto3 may repeat each of the two
    assert [(got.status_code, got.headers.get("Retry-After")) for got in asked] == [(503, "60")] * 2
    assert caplog.text.count("check the network and AWS_ENDPOINT_URL_S3") == 2
    assert [record for record in caplog.records if record.exc_info] == []
    assert "told nobody" not in caplog.text


@pytest.mark.fault(
    "Disk",
    "of `UPLOAD_DIR` is full, and the files are in a bucket",
    sees="503 for downloads",
    ends="when there is room",
)
def test_a_download_without_room_for_its_copy_is_a_503(
    in_bucket: dict[str, object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = new_member(create_app(in_bucket))
    where = upload(member, "a.txt", b"a").headers["Location"]

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    caplog.clear()
    answer = download(member, where)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "60")
    assert f"UPLOAD_DIR has no room for a download: {os.strerror(errno.ENOSPC)}" in caplog.text


def test_only_a_download_copies_an_object(in_bucket: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(in_bucket)
    member, copies, chosen = new_member(app), [], app.extensions["upload_storage"]
    where = upload(member, "a.txt", b"0123456789").headers["Location"]
    fetch = chosen.fetch
    monkeypatch.setattr(chosen, "fetch", lambda *asked: copies.append(1) or fetch(*asked))
    whole = download(member, where)
    for method, headers, status, size, copied in (
        ("GET", {}, 200, 10, 1),
        ("HEAD", {}, 200, 0, 0),
        ("GET", {"If-None-Match": whole.headers["ETag"]}, 304, 0, 0),
        ("GET", {"If-Modified-Since": whole.headers["Last-Modified"]}, 304, 0, 0),
        ("GET", {"Range": "bytes=2-3"}, 206, 2, 1),
        ("HEAD", {"Range": "bytes=2-3"}, 206, 0, 0),
    ):
        copies.clear()
        answer = member.open(where, method=method, headers=headers, buffered=True)
        assert (answer.status_code, len(answer.data), len(copies)) == (status, size, copied), (method, headers)
        if status == 200:
            assert {*answer.headers.keys()} == {*whole.headers.keys()}
            for name in ("Content-Length", "Content-Type", "Content-Disposition", "ETag", "Accept-Ranges"):
                assert answer.headers[name] == whole.headers[name]
    copies.clear()
    assert (download(member, where, headers={"Range": "bytes=50-"}).status_code, copies) == (416, [])


def test_only_the_part_that_is_asked_for_leaves_the_bucket(
    app_config: dict[str, object], s3_server: S3, relay: Relay
) -> None:
    content = os.urandom(3_000_000).hex().encode()
    member = new_member(create_app(app_config | s3_server.settings(relay.port)))
    where = upload(member, "a.txt", content).headers["Location"]
    size = len(content)
    for asked, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=4000000-4099999", 4_000_000, 4_100_000),
        ("bytes=-5", size - 5, size),
        (f"bytes={size - 100_000}-", size - 100_000, size),
    ):
        relay.answered = 0
        got = download(member, where, headers={"Range": asked})
        assert (got.status_code, got.data) == (206, content[start:stop])
        assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        assert relay.answered < stop - start + 10_000  # headers, and the answer that says that the file is there
    relay.answered = 0
    assert download(member, where).data == content
    assert relay.answered > size


def test_a_server_that_ignores_ranges_is_told(in_bucket: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(in_bucket)
    member = new_member(app)
    where = upload(member, "a.txt", b"0123456789").headers["Location"]
    events = app.extensions["upload_storage"]._client.meta.events
    events.register("provide-client-params.s3.GetObject", lambda params, **_: {**params, "Range": ""})
    caplog.clear()
    got = download(member, where, headers={"Range": "bytes=2-3"})
    assert (got.status_code, got.headers["Retry-After"]) == (503, "60")
    assert "check the network and AWS_ENDPOINT_URL_S3" in caplog.text


def test_the_page_of_uploads_asks_the_bucket_once(app_config: dict[str, object], s3_server: S3, relay: Relay) -> None:
    member = new_member(create_app(app_config | s3_server.settings(relay.port)))
    upload(member, "a.txt", b"a")
    before = relay.answers
    assert member.get("/uploads").status_code == 200
    assert relay.answers == before + 1


def test_the_log_keeps_what_to_do_about_a_bucket(
    in_bucket: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    """The names of some errors look like those of secrets, and redaction takes what follows such a name."""
    member = new_member(create_app(in_bucket | {"AWS_SECRET_ACCESS_KEY": "Wrong-" + SECRET}))
    upload(member, "a.txt", b"a")
    assert "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in capfd.readouterr().err


# Settings


@pytest.mark.parametrize("absent", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_a_key_stops_the_start(in_bucket: dict[str, object], absent: str) -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together"):
        create_app(in_bucket | {absent: ""})


@pytest.mark.parametrize(
    "value",
    ["s3://", "s3://Bucket", "s3://key:secret@bucket", "s3://bucket/a?b", "s3://bucket//a", "gs://bucket", "/srv"],
)
def test_a_storage_of_another_form_stops_the_start(app_config: dict[str, object], value: str) -> None:
    with pytest.raises(SettingsError, match=r"UPLOAD_STORAGE: .*Example: UPLOAD_STORAGE=s3://") as told:
        create_app(app_config | {"UPLOAD_STORAGE": value})
    assert "secret" not in told.value.message


@pytest.mark.parametrize(
    "value", ["ftp://a", "https://key:secret@s3.example.com", "https://s3.example.com/bucket", "s3"]
)
def test_an_address_of_another_form_stops_the_start(app_config: dict[str, object], value: str) -> None:
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL_S3: "):
        create_app(app_config | {"UPLOAD_STORAGE": "s3://bucket", "AWS_ENDPOINT_URL_S3": value})


def test_a_start_without_boto3_names_what_to_install(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    create_app(app_config)
    with pytest.raises(SettingsError, match=r"pip install --require-hashes -r requirements-s3\.txt"):
        create_app(app_config | {"UPLOAD_STORAGE": "s3://bucket", "AWS_DEFAULT_REGION": "eu-central-1"})


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("http://s3.example.com", True),
        ("http://localhost:9000", False),
        ("http://127.0.0.1:9000", False),
        ("https://s3.example.com", False),
        ("", False),
    ],
)
def test_9_S3_files_that_go_to_a_bucket_unencrypted_are_a_fact(
    app_config: dict[str, object], endpoint: str, found: bool
) -> None:
    settings = {"UPLOAD_STORAGE": "s3://bucket", "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ENDPOINT_URL_S3": endpoint}
    facts = [fact for fact in uploads.check(create_app(app_config | settings)) if fact.id == "UP03"]
    assert [fact.severity for fact in facts] == ["relaxed"] * found


def test_a_bucket_needs_no_room_on_this_machine(in_bucket: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    assert upload(new_member(create_app(in_bucket)), "a.txt", b"a").status_code == 201


def test_two_machines_see_the_files_of_each_other(in_bucket: dict[str, object], tmp_path: Path) -> None:
    """Each has its own UPLOAD_DIR. See also test_several_machines.py."""
    one, two = (create_app(in_bucket | {"UPLOAD_DIR": str(tmp_path / name)}) for name in ("one", "two"))
    member = new_member(one)
    where = upload(member, "a.txt", b"a").headers["Location"]
    member.application = two
    assert (names(member), download(member, where).data) == (["a.txt"], b"a")
    assert post(member, f"{where}/delete", headers=JSON).status_code == 204
    member.application = one
    assert (names(member), download(member, where).status_code) == ([], 404)
