"""The sizes of requests (9.S5, a part of mitigation 9): each body, each part of a form, and what is parsed in memory.

The settings bound every request, ``@accepts`` one view's. A 413 names the limit that was hit. What is left of a refused
body is read, so that the client gets its answer.
Source: OWASP File Upload Cheat Sheet; RFC 9112; ASVS 5.0 V5.2.1.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from flask import Flask, Response, current_app, has_request_context, request
from jinja2.filters import do_filesizeformat
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from app.security.declarations import Declared, declare, declared, declared_by
from app.security.errors import Refusal, respond
from app.security.findings import Finding
from app.settings import LARGEST_BODY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# The limits of a form's fields and of its parts; Werkzeug's defaults are 500 kB and 1,000. Werkzeug's multipart parser
# also counts up to two 64 KiB chunks of a file against the first, so a lower limit would refuse files.
MAX_FORM_MEMORY_SIZE = 128 * 1024
MAX_FORM_PARTS = 100
# In bytes, for one part. Werkzeug keeps an object for each line, which takes up to 48 times as much memory.
MAX_PART_HEADERS = 8 * 1024

# How much of a refused body is still read, so that the client receives the error response.
LINGER_BYTES = 64 * 2**20
LINGER_SECONDS = 10
CHUNK = 64 * 1024  # bytes

# What a view may declare → the setting that counts otherwise.
DOORS = {"max_bytes": "MAX_CONTENT_LENGTH", "max_form_bytes": "MAX_FORM_MEMORY_SIZE"}
# The name of a declaration: the sizes that a view accepts.
ACCEPTS = "accepts"

EMPTY_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")  # the end of a part's headers, as Werkzeug finds it


@dataclass(frozen=True)
class Accepted:
    """The sizes in bytes that a view accepts; None for those of the settings."""

    max_bytes: int | None = None
    max_form_bytes: int | None = None


def accepts(*, max_bytes: int | None = None, max_form_bytes: int | None = None) -> Callable[[Declared], Declared]:
    """Let a view accept larger requests than the settings do, or only smaller ones; sizes are in bytes.

    ``max_bytes`` is for a whole request with files, or of a type that Flask doesn't parse; the setting is
    ``MAX_CONTENT_LENGTH``. ``max_form_bytes`` is for what is parsed in memory: one field of a form with files, and a
    whole form without files or a whole JSON body; the default is 128 KiB. Parsing can take 100 times as much memory,
    so keep it small on views for everybody; less than 128 KiB would refuse files (see MAX_FORM_MEMORY_SIZE).

    It accepts the same targets as ``csrf.exempt``. Raises ValueError for a size that is not from 1 to LARGEST_BODY.
    """
    given = [size for size in (max_bytes, max_form_bytes) if size is not None]
    if not given or not all(0 < size <= LARGEST_BODY for size in given):
        raise ValueError(f"accepts needs max_bytes or max_form_bytes, each from 1 to {LARGEST_BODY}.")
    return lambda target: declare(target, ACCEPTS, Accepted(max_bytes, max_form_bytes))


def init_app(app: Flask) -> None:
    """Limit the size of requests."""
    app.config.update(MAX_FORM_MEMORY_SIZE=MAX_FORM_MEMORY_SIZE, MAX_FORM_PARTS=MAX_FORM_PARTS)
    # This runs before all before_request hooks, since the CSRF check already reads the body.
    app.url_value_preprocessor(_bound_body)
    app.after_request(_read_the_rest)
    app.register_error_handler(RequestEntityTooLarge, _name_the_limit)


def check(app: Flask) -> Iterator[Finding]:
    """Report views that accept more than the setting, and so maybe more than the proxy in front."""
    for rule in app.url_map.iter_rules():
        sizes = {
            declared_by(app, rule.endpoint, method, ACCEPTS, Accepted()).max_bytes for method in rule.methods or ()
        }
        if (most := max(size or 0 for size in sizes or {0})) > max_body(app):
            evidence = f"{rule.rule} accepts requests of up to {in_units(most)}, more than MAX_CONTENT_LENGTH."
            yield Finding(
                "UP05", "note", evidence, "Set client_max_body_size of the proxy (deploy/nginx.conf) to more."
            )


def max_body(app: Flask | None = None) -> int:
    """Return the maximum size of a body, in bytes: that of this request's view, or of ``app``.

    None, by which Flask means no limit, is the most that we allow.
    """
    limit: int | None = None if app else _accepted().max_bytes
    limit = limit or (app or current_app).config["MAX_CONTENT_LENGTH"]
    return LARGEST_BODY if limit is None else limit


def too_large(message: str, setting: str) -> Refusal:
    """Return the refusal (413) by a limit; in debug it names the setting too."""
    return Refusal(413, f"{message} (Debug: the limit is {setting}.)" if current_app.debug else message)


def door(name: str, limit: int | None) -> str:
    """Return what sets a ``limit`` that may come from this argument of ``accepts``; '' if it comes from elsewhere."""
    if getattr(_accepted(), name):
        return f"@accepts({name}={limit}) of {request.endpoint}" if getattr(_accepted(), name) == limit else ""
    setting = DOORS[name]
    return f"{setting}; @accepts({name}=…) sets another for a view" if current_app.config[setting] == limit else ""


def in_units(size: int | None) -> str:
    """Return a size in bytes as people read it: ``10.0 MiB``."""
    return do_filesizeformat(size or 0, binary=True)


def _bound_body(endpoint: str | None, values: dict[str, object] | None) -> None:
    """Limit each body, and more so those parsed in memory, all but multipart: 10 MB of ``a&a&a…`` take a gigabyte."""
    view, asked = _accepted(), request._get_current_object()  # type: ignore[attr-defined] # looked up once, not 9 times
    in_memory = view.max_form_bytes or current_app.config["MAX_FORM_MEMORY_SIZE"] or MAX_FORM_MEMORY_SIZE
    asked.form_data_parser_class = _Parser
    asked.max_form_memory_size = in_memory
    asked.max_content_length = max_body()
    is_parsed = asked.is_json or asked.mimetype == "application/x-www-form-urlencoded"
    if is_parsed or (asked.mimetype != "multipart/form-data" and not view.max_bytes):
        asked.max_content_length = min(in_memory, asked.max_content_length)


def _accepted() -> Accepted:
    sizes: Accepted = declared(ACCEPTS, default=Accepted()) if has_request_context() else Accepted()
    return sizes


class _Parser(FormDataParser):
    """Parses a form, and names the limit of its parts that was hit: Werkzeug raises the same error for all limits."""

    def parse(self, stream: IO[bytes], mimetype: str, content_length: int | None, options: Any = None) -> Any:
        """Return the stream, the fields and the files. Raises Refusal (400, 413)."""
        boundary = (options or {}).get("boundary", "").encode(errors="replace")
        if b"\n" in boundary or b"\r" in boundary:  # Werkzeug would find it where _Counted does not
            raise Refusal(400, "The boundary of this form contains a line break.")
        counted = _Counted(stream, b"--" + boundary, self.max_form_parts)
        try:
            return stream, *super().parse(counted, mimetype, content_length, options)[1:]  # type: ignore[arg-type]
        except RequestEntityTooLarge:
            if _is_body_too_large():
                raise
        text = f"A field of this form is too large: the maximum is {in_units(self.max_form_memory_size)}."
        raise too_large(text, door("max_form_bytes", self.max_form_memory_size))


class _Counted:
    """A stream that bounds a form's parts and their headers, and never ends a read within or after a boundary.

    Werkzeug (3.1.9) takes the line break before such a boundary for a part of the file, which gets a byte more.
    """

    def __init__(self, stream: IO[bytes], boundary: bytes, max_parts: int | None) -> None:
        self.stream, self.boundary, self.max_parts = stream, boundary, max_parts
        self.last, self.count = b"", 0
        # A boundary counts anywhere in a line: no file may contain it (RFC 2046). Blanks behind it count as headers:
        # there may be any number of them.
        self.part = re.compile(re.escape(boundary) + rb"(?=\s)([^\S\n\r]*(?:\r\n|\n|\r)?)")

    def read(self, size: int = -1) -> bytes:
        """Return what the stream returns, and a few bytes more if a boundary is at its end. Raises Refusal (413)."""
        data = self.stream.read(size)
        if self.boundary in data[-len(self.boundary) - 4 :]:
            data += self.stream.read(4)
        seen = self.last + data  # boundaries and headers may span two reads
        self.count += len(self.part.findall(seen)) - len(self.part.findall(self.last))
        if self.max_parts is not None and self.count > self.max_parts:
            text = f"This form has too many fields and files: the maximum is {self.max_parts}."
            raise too_large(text, "MAX_FORM_PARTS")
        if self._has_long_headers(seen):
            text = f"The headers of a part of this form are too large: the maximum is {in_units(MAX_PART_HEADERS)}."
            raise too_large(text, "MAX_PART_HEADERS")
        self.last = seen[-len(self.boundary) - MAX_PART_HEADERS :]
        return data

    def _has_long_headers(self, seen: bytes) -> bool:
        """Return whether a part has too long headers. Parts before the same empty line share one search for it."""
        end = None
        for part in self.part.finditer(seen):
            if end is None or end.start() < part.end():
                most = part.start(1) + MAX_PART_HEADERS
                if not (end := EMPTY_LINE.search(seen, part.end(), most)):
                    return len(seen) >= most
        return False


def _is_body_too_large() -> bool:
    """Return whether the announced size of the body is over its limit, or the body has reached it."""
    length, most = request.content_length, request.max_content_length
    if length is None:  # chunked: a LimitedStream ends at the limit
        return bool(getattr(request.stream, "is_exhausted", False))
    return most is not None and length > most


def _name_the_limit(error: RequestEntityTooLarge) -> Response:
    """Return the response that names the limit of a body.

    What other code raises, such as ``abort(413)``, is answered without a limit.
    """
    limit = request.max_content_length
    if not _is_body_too_large():
        return respond(error)
    doors = (door(name, limit) for name in DOORS)
    setting = next(filter(None, doors), f"request.max_content_length in {request.endpoint}")
    return respond(too_large(f"This request is too large: the maximum is {in_units(limit)}.", setting))


def _read_the_rest(response: Response) -> Response:
    read_the_rest(request.environ)
    return response


def read_the_rest(environ: WSGIEnvironment) -> None:
    """Read and discard the rest of a refused body, within limits.

    Otherwise a client that is still sending sees a connection reset and never the response (RFC 9112, 9.6).
    """
    if environ.get("wsgi.input_terminated"):
        body, left, end = environ["wsgi.input"], LINGER_BYTES, time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(Exception):  # a failure here must not change the response
            while left > 0 and time.monotonic() < end and (read := body.read(CHUNK)):
                left -= len(read)
