"""kill -9 at random moments, while files are stored and keys rotated: nothing is half there, and nothing is lost.

``make kills`` does this a thousand times, the suite a few times. For mails see tests/accounts/test_mails.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import time
from collections.abc import Callable

import pytest
from dotenv import dotenv_values
from flask import Flask

from app import create_app, paths
from app.security.secret_key import cli, weakness
from app.storage.bucket import Bucket
from tests.conftest import new_member, on_both_storages, post
from tests.samples import download, upload

KILLS = int(os.environ.get("KILLS") or 30)  # of each kind


def kill(work: Callable[[], object], within: float) -> None:
    """Do the work again and again in a child, and kill that at a random moment of the next ``within`` seconds."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            while True:
                work()
        os._exit(1)
    time.sleep(within * secrets.randbelow(1000) / 1000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestKills:
    @on_both_storages
    def test_9_T4_no_half_of_a_file_is_ever_visible(self, app_config: dict[str, object]) -> None:
        app = create_app(app_config | {"UPLOAD_QUOTA_FILES": 10**6, "RATELIMIT_DEFAULT": "9999999 per minute"})
        member, seen, bucket = new_member(app), 0, app.extensions["upload_storage"]
        in_bucket = isinstance(bucket, Bucket)
        kills, within = (KILLS // 3, 1.0) if in_bucket else (KILLS, 0.3)

        def store() -> None:
            text = secrets.token_hex(secrets.randbelow(100_000))
            upload(member, "a.txt", f"{hashlib.sha256(text.encode()).hexdigest()}{text}".encode())

        for _ in range(kills):
            if in_bucket:
                bucket._client.close()  # or the child would use the connections of this process
            kill(store, within)
            for file in member.get("/uploads", headers={"Accept": "application/json"}).get_json()["files"]:
                whole = download(member, f"/uploads/{file['id']}").text
                assert whole[:64] == hashlib.sha256(whole[64:].encode()).hexdigest()
                assert post(member, f"/uploads/{file['id']}/delete").status_code == 303
                seen += 1
        assert seen > kills / 10  # some kills came late enough

    def test_1_S5_no_key_is_lost(self, app: Flask) -> None:
        def rotate(*options: str) -> None:
            cli.main(["rotate", *options], standalone_mode=False)

        cli.main(["new"], standalone_mode=False)
        signing = dotenv_values(paths.ENV_FILE)["SECRET_KEY"]
        for number in range(KILLS):
            if number % 10 == 9:
                rotate("--prune")
            kill(lambda: (rotate("--stage"), rotate()), within=0.03)
            rotate()
            env = dotenv_values(paths.ENV_FILE)
            accepted = [env["SECRET_KEY"] or "", *(env["SECRET_KEY_FALLBACKS"] or "").split(",")]
            assert signing in accepted
            assert [fault for fault in map(weakness, accepted) if fault] == []
            assert [path.name for path in paths.ENV_FILE.parent.glob(".env*")] == [".env"]
            signing = accepted[0]
