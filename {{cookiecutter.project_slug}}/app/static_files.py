"""Static files: a link to one has a digest of its content, so browsers keep the file until it changes.

``url_for("static", filename=…)`` adds the digest, also for the static files of a blueprint. Without it, or with that of
another version, a browser asks each time whether its copy is still the newest.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, request
from werkzeug.security import safe_join

from app.security.declarations import static_folder

DIGEST = "v"  # the argument with the digest
KEPT = "public, max-age=31536000, immutable"  # a year; RFC 9111, RFC 8246


def init_app(app: Flask) -> None:
    """Add the digest to links, and let browsers keep what they load by them."""
    app.url_defaults(_add_digest)
    app.after_request(_keep)


def _add_digest(endpoint: str, values: dict[str, Any]) -> None:
    if digest := _digest(endpoint, values.get("filename")):
        values.setdefault(DIGEST, digest)


def _keep(response: Response) -> Response:
    if response.status_code in (200, 206, 304):
        digest = _digest(request.endpoint, (request.view_args or {}).get("filename"))
        if digest and request.args.getlist(DIGEST) == [digest]:
            response.headers["Cache-Control"] = KEPT
    return response


def _digest(endpoint: str | None, name: str | None) -> str | None:
    """Return the digest of a static file; None for what is not one, or is not there."""
    folder = static_folder(current_app, endpoint)
    path = safe_join(folder, name) if folder and name else None
    if path is None:
        return None
    try:
        stat = os.stat(path)
        return _digest_of(path, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return None


@lru_cache(1024)  # files
def _digest_of(path: str, _changed: int, _size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
