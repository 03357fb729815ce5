"""Logging: one line per record, with the request id and without secrets (5.S3), and the security events.

Attackers write to the log through paths and headers. They must not forge a line or control a terminal, and nobody may
read secrets in the log. Source: OWASP Logging Cheat Sheet; ASVS 5.0 V16.2.5, V16.3.1, V16.3.3, V16.3.4, V16.4.1.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from flask import Flask, current_app, has_request_context, request

from app.events import EVENTS
from app.redaction import REDACTED, is_secret, method_of, redact, redact_path, route_of, secrets_of
from app.security.networks import client_address
from app.visitors import digest, visitors

# Set by the guard in errors.init_app for the whole request, including its teardown.
request_id: ContextVar[str] = ContextVar("request_id", default="-")

HANDLER_NAME = "app"
MAX_FIELD = 300  # characters of a field of an event
EVENT_FIELDS = "security_event"  # the attribute of a record that has the fields of an event

# Control characters, line separators, bidi overrides (they reorder the displayed text), lone surrogates (unencodable).
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TERMINAL_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_PLAIN = re.compile(r"[\w./:<>@~+-]+", re.ASCII)

_security = logging.getLogger("security")


def security_event(name: str, *, account: str | None = None, **fields: object) -> None:
    """Log a security event: a ``name`` of ``app/events.py``, and ``fields`` that say more, such as the id of a file.

    ``account`` is the e-mail address, or another name, of the account concerned; by default that of the visitor. The
    log has a keyed digest of it, the same in all events. The network of the client, the method and the route are added,
    and the request id to every line. A field with a name like ``password`` or ``token`` is redacted, a long one is cut.
    As text, a line has ``event=… name=value …``, where all but plain values are quoted as in JSON. As JSON, it has
    these fields beside the message.
    """
    event = {"event": name}
    if account is None and has_request_context():
        with contextlib.suppress(Exception):  # without a database nobody knows the visitor, and the event still counts
            account = visitors().account_name()
    if account is not None:
        event["account"] = digest(account)[:16]
    if has_request_context():
        route = route_of(request.url_rule) if request.url_rule else redact_path(request.path)
        event |= {"network": client_address(), "method": method_of(request.method), "route": route}
    for field, value in fields.items():
        event.setdefault(field, REDACTED if is_secret(field) else redact(str(value)))
    event = {field: value[:MAX_FIELD] for field, value in event.items()}
    level, _ = EVENTS.get(name, (logging.WARNING, ""))
    if current_app and "metrics" in current_app.extensions:
        current_app.extensions["metrics"].events.labels(name).inc()
    _security.log(level, "%s", as_text(event), extra={EVENT_FIELDS: event}, stacklevel=2)


def as_text(fields: Mapping[str, object]) -> str:
    """Return ``name=value …``, where all but plain values are quoted as in JSON."""
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


class LineFormatter(logging.Formatter):
    """Formats a record as one line of text or JSON, and redacts ``secrets`` wherever they appear.

    With ``for_people``, which is for debug, a traceback in a text has its lines.
    """

    def __init__(self, log_format: str, secrets: Collection[str], *, for_people: bool = False) -> None:
        super().__init__()
        self.as_json = log_format == "json"
        self.secrets = secrets
        self.for_people = for_people

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line ending."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get(),
            "message": redact(_TERMINAL_COLOURS.sub("", _message(record)), self.secrets),
        }
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info), self.secrets)
        if self.as_json:
            for name, value in getattr(record, EVENT_FIELDS, {}).items():
                fields.setdefault(name, redact(value, self.secrets) if isinstance(value, str) else value)
            return json.dumps(fields)
        traceback = fields.pop("exception", "").split("\n") if self.for_people else []
        return "\n".join(map(_escaped, [" ".join(fields.values()), *traceback]))


def _escaped(line: str) -> str:
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a log call with wrong arguments must still be logged
        return str(record.msg)


def init_app(app: Flask) -> None:
    """Log the app, its libraries and gunicorn's worker to standard error, in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.name = HANDLER_NAME
    secrets = set(secrets_of(app.config))
    handler.setFormatter(LineFormatter(app.config["LOG_FORMAT"], secrets, for_people=app.debug))

    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for old in [old for old in root.handlers if old.name == HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)

    # gunicorn's loggers don't propagate their records, and its access log would show reset links.
    for name in ("gunicorn.error", "gunicorn.access"):
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers = [handler]
