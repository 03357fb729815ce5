"""Reading answers that may never end, such as server-sent events. The audit reads its answers with this as well."""

from __future__ import annotations

import time

from werkzeug.test import TestResponse

MOST = 2**20  # bytes
SECONDS = 2


def read_start(answer: TestResponse) -> TestResponse:
    """Read the first mebibyte of an answer, for two seconds at most, close it, and return it.

    An answer that states its length has an end, and is read whole.
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
