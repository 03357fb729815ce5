"""An upload of 10 MB beside writing the same bytes and reading them once: ``python storing.py FOLDER ROUNDS``.

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
from werkzeug.test import encode_multipart

SIZE = 10_000_000  # bytes
TEXT = (b"A line of a text, as people send them: \xc3\xa4 \xe2\x82\xac.\n" * (SIZE // 40))[:SIZE].rpartition(b"\n")[0]


def upload(browser: contender.Browser, token: str) -> None:
    from werkzeug.datastructures import FileStorage

    form = {"csrf_token": token, "file": FileStorage(BytesIO(TEXT), "a.txt", content_type="text/plain")}
    boundary, body = encode_multipart(form)
    content_type = f"multipart/form-data; boundary={boundary}"
    start = time.process_time()
    answer = browser.client.post(
        "/uploads",
        base_url=contender.ORIGIN,
        headers={"Origin": contender.ORIGIN},
        data=body,
        content_type=content_type,
    )
    taken["upload"].append((time.process_time() - start) * 1000)
    if answer.status_code != 303:
        raise SystemExit(f"An upload answers {answer.status}")


def write_and_read(place: Path) -> None:
    start = time.process_time()
    with (place / "plain").open("wb") as file:
        file.write(TEXT)
        os.fsync(file.fileno())
    (place / "plain").read_bytes()
    taken["plain"].append((time.process_time() - start) * 1000)


taken: dict[str, list[float]] = {"upload": [], "plain": []}


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
        for _ in range(rounds + 1):
            upload(browser, browser.token("/uploads"))
            write_and_read(Path(place))
    print(json.dumps({name: values[1:] for name, values in taken.items()}))  # the first one imports and compiles


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
