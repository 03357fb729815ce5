"""Every setting: its name, type, default and meaning.

The values come from the mapping given to ``create_app``, else from the environment, else from the file ``.env``
beside this package. A wrong value stops the start: a security setting with a typo in it must not become a default.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import click
from limits import parse_many
from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

from app import paths
from app.accounts.settings import AccountSettings  # % if cookiecutter.accounts
from app.security.secret_key import weakness
from app.storage.content import TYPES

LOOPBACK_HOSTS = ("localhost", "127.0.0.1")


class SettingsError(click.ClickException):
    """The app must not start with these settings. The message names each, its fault and its fix."""

    exit_code = 2


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(
    AccountSettings,  # % if cookiecutter.accounts
    BaseSettings,
):
    """The settings, under their environment names. Times are in seconds, sizes in bytes, lists split by commas."""

    model_config = SettingsConfigDict(extra="forbid", case_sensitive=True, frozen=True, env_ignore_empty=True)

    FLASK_DEBUG: bool = Field(
        default=False,
        description="Development on this machine only: allows http, shows a banner. Refused by wsgi.py.",
        examples=["1"],
    )
    TESTING: bool = Field(default=False, description="Flask's own switch for tests; relaxes nothing here.")

    # 1 Secret key
    SECRET_KEY: str = Field(
        default="",
        validate_default=True,
        repr=False,
        description="Signs sessions and CSRF tokens. Make one with: python -m app.security.secret_key new",
        examples=["(make one with: python -m app.security.secret_key new)"],
    )
    SECRET_KEY_FALLBACKS: CommaList = Field(
        default=(),
        repr=False,
        description="Former keys, newest first, still accepted. Filled by: python -m app.security.secret_key rotate",
        examples=["(written by: python -m app.security.secret_key rotate)"],
    )

    # 4 Session cookies
    PERMANENT_SESSION_LIFETIME: int = Field(
        default=3600,
        ge=60,
        le=86400,
        description="Seconds without a request after which a session ends.",
        examples=["3600"],
    )
    SESSION_ABSOLUTE_LIFETIME: int = Field(
        default=43200,
        ge=60,
        le=604800,
        description="Seconds after which a session ends, used or not.",
        examples=["43200"],
    )
    SESSION_COOKIE_SAMESITE: Literal["Lax", "Strict"] = Field(
        default="Lax",
        description="When other sites' links and forms carry the cookie. None is not on offer.",
        examples=["Lax"],
    )

    SESSION_COOKIE_DOMAIN: None = Field(
        default=None, description="Stays unset: browsers drop a __Host- cookie that has a domain.", examples=[""]
    )
    SESSION_COOKIE_PATH: Literal["/"] = Field(
        default="/", description="Stays /: browsers drop a __Host- cookie with another path.", examples=["/"]
    )

    # 3 and 6 CSP and headers
    CSP_REPORT_ONLY: bool = Field(
        default=False, description="Report what the policy would block instead of blocking it.", examples=["0"]
    )
    HSTS_PRELOAD: bool = Field(
        default=False, description="Ask browsers to ship this domain as https-only. Hard to undo.", examples=["0"]
    )

    # 8 Rate limits
    RATELIMIT_STORAGE_URI: str = Field(
        default="memory://",
        repr=False,
        pattern=r"^(memory://$|rediss?://|unix://)",
        description="Where counters live. memory:// counts per process: use Redis with more than one worker.",
        examples=["redis://localhost:6379/0"],
    )
    RATELIMIT_DEFAULT: str = Field(
        default="120 per minute; 2000 per hour",
        description="The limit of every route that has no stricter one.",
        examples=["120 per minute; 2000 per hour"],
    )

    # 9 Uploads
    UPLOAD_DIR: Path = Field(
        default=paths.INSTANCE / "uploads",
        description="Where uploads are kept: outside the app.",
        examples=["/srv/uploads"],
    )
    UPLOAD_EXTENSIONS: CommaList = Field(
        default=("txt", "pdf", "png", "jpg", "webp", "gif"),
        min_length=1,
        description="The file types taken, out of: txt, pdf, png, jpg, webp, gif.",
        examples=["png,jpg"],
    )
    UPLOAD_QUOTA_BYTES: int = Field(
        default=100 * 2**20, ge=1, description="Bytes one owner may keep.", examples=["104857600"]
    )
    UPLOAD_QUOTA_FILES: int = Field(default=100, ge=1, description="Files one owner may keep.", examples=["100"])
    MAX_CONTENT_LENGTH: int = Field(
        default=10 * 2**20,
        ge=1024,
        le=2**30,
        description="Bytes that one upload may send; other requests: 128 KiB.",
        examples=["10485760"],
    )
    CLAMD_URL: str = Field(
        default="",
        pattern=r"^(tcp://[^/:]+:\d+|unix:///.+|)$",
        description="A ClamAV daemon that must pass each upload. While it is unreachable, uploads are refused.",
        examples=["tcp://clamav:3310", "unix:///run/clamav/clamd.ctl"],
    )

    # 10 URLs
    TRUSTED_HOSTS: CommaList = Field(
        default=LOOPBACK_HOSTS,
        min_length=1,
        description="The host names this app answers to; other Host headers get a 400.",
        examples=["www.example.com,example.com"],
    )
    SERVER_NAME: str = Field(
        default="",
        description="The host in absolute URLs and in the redirect to https. Default: the first trusted host.",
        examples=["www.example.com"],
    )
    TRUSTED_PROXY_HOPS: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How many proxies of yours stand before the app; their X-Forwarded-For and -Proto are believed.",
        examples=["1"],
    )
    ALLOWED_REDIRECT_HOSTS: CommaList = Field(
        default=(),
        description="Other sites that /redirect may lead to, through a page that says so.",
        examples=["docs.example.com"],
    )

    LOG_FORMAT: Literal["text", "json"] = Field(default="text", description="How log lines look.", examples=["json"])

    @field_validator("SECRET_KEY", "SECRET_KEY_FALLBACKS")
    @classmethod
    def _keys_cannot_be_guessed(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for key in [value] if isinstance(value, str) else value:
            if fault := weakness(key):
                raise ValueError(fault)
        return value

    @field_validator("RATELIMIT_DEFAULT")
    @classmethod
    def _limit_can_be_read(cls, value: str) -> str:
        if not all(limit.amount for limit in parse_many(value)):
            raise ValueError("a limit of 0 answers nobody")
        return value

    @field_validator("UPLOAD_EXTENSIONS")
    @classmethod
    def _extensions_have_checks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(TYPES):
            raise ValueError(f"nothing checks the types {', '.join(sorted(unknown))}, only {', '.join(TYPES)}")
        return value

    @field_validator("CLAMD_URL")
    @classmethod
    def _scanner_can_be_reached(cls, value: str) -> str:
        if value.startswith("unix:") and not hasattr(socket, "AF_UNIX"):
            raise ValueError("this system has no Unix sockets")
        if urlsplit(value).port == 0:  # raises ValueError itself over 65535
            raise ValueError("there is no port 0")
        return value

    @field_validator("RATELIMIT_STORAGE_URI")
    @classmethod
    def _storage_can_be_read(cls, value: str) -> str:
        if value != "memory://":
            parse_url(value)  # type: ignore[no-untyped-call]
        return value

    @field_validator("TRUSTED_HOSTS", "ALLOWED_REDIRECT_HOSTS")
    @classmethod
    def _hosts_are_bare(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _is_bare_host(host):
                raise ValueError(f"{host!r} is not a bare host name")
        return tuple(host.lower() for host in hosts)

    @field_validator("SERVER_NAME")
    @classmethod
    def _server_name_is_a_host(cls, value: str) -> str:
        try:
            parts = urlsplit(f"//{value}")
            port_is_fine = parts.port is None or parts.port > 0
        except ValueError:
            port_is_fine = False
        if value and not (port_is_fine and _is_bare_host(value.removesuffix(f":{parts.port}"))):
            raise ValueError(f"{value!r} is not a host name, with or without a port")
        return value.lower()


def _is_bare_host(host: str) -> bool:
    """A name or IPv4 address alone: no scheme, port, path, user or wildcard; Werkzeug can't match IPv6 addresses."""
    try:
        parts = urlsplit(f"//{host}")
        return (
            bool(parts.hostname)
            and host.isascii()
            and parts.netloc == host
            and parts.port is None
            and not host.startswith(".")
            and not set(host) & set("@*/\\ []")
        )
    except ValueError:
        return False


def load_settings(config: Mapping[str, object] | None = None) -> Settings:
    """Read and check all settings; raise SettingsError that tells every fault at once."""
    try:
        return Settings(_env_file=paths.ENV_FILE, _env_file_encoding="utf-8", **(config or {}))  # type: ignore[call-arg,arg-type]
    except ValidationError as error:
        faults = [_in_words(fault) for fault in error.errors(include_url=False)]
    intro = "The app cannot start: fix these settings in the environment or in .env."
    raise SettingsError("\n  ".join([intro, *faults]))


def _in_words(fault: ErrorDetails) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "?"
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name}: is not a setting of this app (a typo?). See app/settings.py for those there are."
    # The value of a secret must not reach a terminal or a log.
    value = f" (is {fault['input']!r})" if field.repr else ""
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}{value}. Example: {name}={(field.examples or [''])[0]}"
