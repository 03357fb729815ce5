"""Reading answers that may never end, such as server-sent events. The audit reads its answers with this as well."""

from __future__ import annotations

import time

from werkzeug.test import TestResponse

MOST = 2**20  # bytes
SECONDS = 2


def read_start(answer: TestResponse) -> TestResponse:
    """Read an answer, close it, and return it.

    Without a length, reading stops after the chunk that exceeds one mebibyte or two seconds. A stream that never sends
    its next chunk still blocks.
    """
    until, size, chunks = time.monotonic() + SECONDS, 0, []
    try:
        for chunk in answer.iter_encoded():
            chunks.append(chunk)
            size += len(chunk)
            if answer.content_length is None and (size > MOST or time.monotonic() > until):
                break
    finally:
        answer.close()
    answer.response = chunks
    return answer
