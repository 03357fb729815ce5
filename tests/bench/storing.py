"""An upload of 10 MB beside one to Flask alone, and writing the same bytes: ``python storing.py FOLDER ROUNDS``.

Runs in the environment of a generated app, and prints the CPU milliseconds of each round as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import contender
from flask import request
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

SIZE = 10_000_000  # bytes
TEXT = (b"A line of a text, as people send them: \xc3\xa4 \xe2\x82\xac.\n" * (SIZE // 40))[:SIZE].rpartition(b"\n")[0]


def upload(name: str, client: FlaskClient, token: str) -> None:
    """Send the text, and count the time for ``name``."""
    form = {"csrf_token": token, "file": FileStorage(BytesIO(TEXT), "a.txt", content_type="text/plain")}
    boundary, body = encode_multipart(form)
    content_type = f"multipart/form-data; boundary={boundary}"
    start = time.process_time()
    answer = client.post(
        "/uploads",
        base_url=contender.ORIGIN,
        headers={"Origin": contender.ORIGIN},
        data=body,
        content_type=content_type,
    )
    taken[name].append((time.process_time() - start) * 1000)
    if answer.status_code != 303:
        raise SystemExit(f"An upload answers {answer.status}")


def alone(place: Path) -> FlaskClient:
    """Return a client of a view that stores a file, and does nothing else."""
    app = contender.Flask("alone")

    @app.post("/uploads")
    def store() -> tuple[str, int]:
        request.files["file"].save(place / "alone")
        return "", 303

    return app.test_client()


def write_and_read(place: Path) -> None:
    start = time.process_time()
    with (place / "plain").open("wb") as file:
        file.write(TEXT)
        os.fsync(file.fileno())
    (place / "plain").read_bytes()
    taken["plain"].append((time.process_time() - start) * 1000)


taken: dict[str, list[float]] = {"upload": [], "alone": [], "plain": []}


def main(folder: Path, rounds: int) -> None:
    """Take turns, and print the milliseconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        large = {"MAX_CONTENT_LENGTH": 2 * SIZE, "UPLOAD_QUOTA_BYTES": 100 * SIZE, "UPLOAD_QUOTA_FILES": 1000}
        app = contender.whole(folder, "", Path(place), **large)
        from app.security.rate_limits import limiter

        limiter.enabled = False
        logging.disable(logging.CRITICAL)
        browser = contender.Browser(app)
        if browser.has_accounts:
            browser.sign_in()
        flask_alone = alone(Path(place))
        for _ in range(rounds + 1):
            upload("upload", browser.client, browser.token("/uploads"))
            upload("alone", flask_alone, "")
            write_and_read(Path(place))
    print(json.dumps({name: values[1:] for name, values in taken.items()}))  # the first one imports and compiles


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
