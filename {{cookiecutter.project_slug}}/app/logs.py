"""Logging: one line per record, with the request id and without secrets (5.S3).

Attackers write to the log through paths and headers. They must not forge a line or control a terminal, and nobody may
read secrets in the log. Source: OWASP Logging Cheat Sheet; ASVS 5.0 V16.2.5, V16.3.4, V16.4.1.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import urlsplit

from flask import Flask

# Set by the guard in errors.init_app for the whole request, including its teardown.
request_id: ContextVar[str] = ContextVar("request_id", default="-")

REDACTED = "[redacted]"
HANDLER_NAME = "app"

# Control characters, line separators, bidi overrides (they reorder the displayed text), lone surrogates (unencodable).
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TERMINAL_COLOURS = re.compile(r"\x1b\[[\d;]*m")

_SENSITIVE = (
    # The whole header, because its value contains spaces.
    (re.compile(r"(?i)((?:cookie|authorization)[\"']?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|[^\r\n]+)"), rf"\1{REDACTED}"),
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api[_-]?key|credential)[\w-]*[\"']?\s*[:=]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s&;,\"')}\]]+)"
        ),
        rf"\1{REDACTED}",
    ),
    # The password in scheme://user:password@host.
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{REDACTED}@"),
    # Values signed by itsdangerous (payload.time.signature): session cookies, CSRF tokens, reset links.
    (re.compile(r"[\w-]+\.[\w-]{6,7}\.(?:[\w-]{86}|[\w-]{43}|[\w-]{27})(?![\w-])"), REDACTED),
)


class LineFormatter(logging.Formatter):
    """Formats a record as one line of text or JSON, and redacts ``secrets`` wherever they appear."""

    def __init__(self, log_format: str, secrets: list[str]) -> None:
        super().__init__()
        self.as_json = log_format == "json"
        # Longest first: a secret that contains a shorter one must be redacted as a whole.
        self.secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line ending."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get(),
            "message": self._redact(_TERMINAL_COLOURS.sub("", _message(record))),
        }
        if record.exc_info:
            fields["exception"] = self._redact(self.formatException(record.exc_info))
        if self.as_json:
            return json.dumps(fields)
        return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), " ".join(fields.values()))

    def _redact(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        for pattern, replacement in _SENSITIVE:
            text = pattern.sub(replacement, text)
        return text


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a log call with wrong arguments must still be logged
        return str(record.msg)


def _secrets(config: Mapping[str, object]) -> list[str]:
    """Return the values of the settings that must never appear in a log."""
    named = ("SECRET_KEY", "READYZ_TOKEN", "MAIL_PASSWORD")
    values = [*map(config.get, named), *config.get("SECRET_KEY_FALLBACKS", ())]  # type: ignore[misc]
    for name in ("RATELIMIT_STORAGE_URI", "DATABASE_URL"):
        values.append(urlsplit(str(config.get(name, ""))).password)
    return [value for value in values if isinstance(value, str) and value]


def init_app(app: Flask) -> None:
    """Log the app, its libraries and gunicorn's worker to standard error, in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.name = HANDLER_NAME
    handler.setFormatter(LineFormatter(app.config["LOG_FORMAT"], _secrets(app.config)))

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
