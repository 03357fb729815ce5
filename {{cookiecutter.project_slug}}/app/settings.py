"""All settings: their names, types, defaults and descriptions.

A value comes from the mapping passed to ``create_app``, else from the environment, else from the file ``.env``
next to this package. An invalid value stops the start: a typo in a security setting must not fall back to the default.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import click
from limits import parse_many
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import paths
from app.accounts.settings import AccountSettings  # % if cookiecutter.accounts
from app.security.secret_key import weakness
from app.storage.content import TYPES

LOOPBACK_HOSTS = ("localhost", "127.0.0.1")
LARGEST_BODY = 2**30


class SettingsError(click.ClickException):
    """The app must not start with these settings. The message names each invalid one, its fault and its fix."""

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
    """The settings, under their environment names. Times are in seconds, sizes in bytes, lists comma-separated."""

    model_config = SettingsConfigDict(extra="forbid", case_sensitive=True, frozen=True, env_ignore_empty=True)

    FLASK_DEBUG: bool = Field(
        default=False,
        description="For development on your own machine only: allows http, shows a banner. wsgi.py refuses it.",
        examples=["1"],
    )
    TESTING: bool = Field(default=False, description="Flask's own flag for tests; it relaxes nothing here.")

    # 1 Secret key
    SECRET_KEY: str = Field(
        default="",
        validate_default=True,
        repr=False,
        description="Signs sessions and CSRF tokens. Make one with: python -m app.security.secret_key new",
        examples=["(make one with: python -m app.security.secret_key new)"],
    )
    SECRET_KEY_NEXT: str = Field(
        default="",
        repr=False,
        description="Accepted, but does not sign yet. Set by: python -m app.security.secret_key rotate --stage",
        examples=["(written by: python -m app.security.secret_key rotate --stage)"],
    )
    SECRET_KEY_FALLBACKS: CommaList = Field(
        default=(),
        repr=False,
        description="Former keys, newest first, still accepted. Set by: python -m app.security.secret_key rotate",
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
        description="Seconds after which a session ends, whether used or not.",
        examples=["43200"],
    )
    SESSION_COOKIE_SAMESITE: Literal["Lax", "Strict"] = Field(
        default="Lax",
        description="The cookie's SameSite attribute: Lax or Strict. None would weaken it and is refused.",
        examples=["Lax"],
    )

    SESSION_COOKIE_DOMAIN: None = Field(
        default=None, description="Must stay unset: browsers reject a __Host- cookie with a domain.", examples=[""]
    )
    SESSION_COOKIE_PATH: Literal["/"] = Field(
        default="/", description="Must stay /: browsers reject a __Host- cookie with another path.", examples=["/"]
    )

    # 3 and 6 CSP and headers
    CSP_REPORT_ONLY: bool = Field(
        default=False, description="Report what the policy would block instead of blocking it.", examples=["0"]
    )
    HSTS_PRELOAD: bool = Field(
        default=False,
        description="Add preload to HSTS: browsers may then list this domain as https-only. Hard to undo.",
        examples=["0"],
    )

    # 8 Rate limits
    RATELIMIT_STORAGE_URI: str = Field(
        default="memory://",
        repr=False,
        pattern=r"^(memory://$|rediss?://|unix://|redis\+sentinel://|redis\+cluster://)",
        description="Where requests are counted. memory:// counts per process; more than one worker needs Redis.",
        examples=["redis://localhost:6379/0"],
    )
    RATELIMIT_DEFAULT: str = Field(
        default="120 per minute; 2000 per hour",
        description="The limit of each route without a stricter one.",
        examples=["120 per minute; 2000 per hour"],
    )

    # 9 Uploads
    UPLOAD_DIR: Path = Field(
        default=paths.INSTANCE / "uploads",
        description="The folder of the uploaded files, outside the app. With a bucket, only for temporary files.",
        examples=["/srv/uploads"],
    )
    UPLOAD_STORAGE: str = Field(
        default="folder",
        repr=False,  # somebody may put a password into it
        pattern=r"^(folder|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?)$",
        description="Where uploads are stored: 'folder' for UPLOAD_DIR, or an S3 bucket with or without a prefix.",
        examples=["s3://bucket/uploads"],
    )
    # All programs for S3 use these names. Without a key, boto3 uses the role of the machine or the container.
    AWS_ENDPOINT_URL_S3: str = Field(
        default="",
        pattern=r"^(https?://[^/?#@\s]+/?|)$",
        description="The address of an S3 server that is not Amazon's.",
        examples=["https://s3.example.com"],
    )
    AWS_DEFAULT_REGION: str = Field(default="", description="The region of the bucket.", examples=["eu-central-1"])
    AWS_ACCESS_KEY_ID: str = Field(
        default="", repr=False, description="The key for the bucket.", examples=["(of your S3 server)"]
    )
    AWS_SECRET_ACCESS_KEY: str = Field(
        default="", repr=False, description="The secret of that key.", examples=["(of your S3 server)"]
    )
    AWS_SESSION_TOKEN: str = Field(
        default="", repr=False, description="The session token of a temporary key.", examples=["(of your S3 server)"]
    )
    UPLOAD_EXTENSIONS: CommaList = Field(
        default=tuple(TYPES),
        min_length=1,
        description="The accepted file types, out of the rows of TYPES in app/storage/content.py.",
        examples=["png,jpg"],
    )
    UPLOAD_QUOTA_BYTES: int = Field(
        default=100 * 2**20, ge=1, description="Bytes that one owner may store.", examples=["104857600"]
    )
    UPLOAD_QUOTA_FILES: int = Field(default=100, ge=1, description="Files that one owner may store.", examples=["100"])
    UPLOAD_QUOTA_TOTAL_BYTES: int = Field(
        default=100 * 2**30,
        ge=1,
        description="Bytes that all owners together may store. For how exact that is, see app/storage/total.py.",
        examples=["107374182400"],
    )
    MAX_CONTENT_LENGTH: int = Field(
        default=10 * 2**20,
        ge=1024,
        le=LARGEST_BODY,
        description="Maximum bytes of an upload request; other requests may send 128 KiB.",
        examples=["10485760"],
    )
    # Phones and cameras produce photos of up to 24 megapixels by default. Decoded, such a photo takes 100 MB.
    IMAGE_MAX_PIXELS: int = Field(
        default=25_000_000,
        ge=1,
        le=200_000_000,
        description="Pixels of an image; the frames of an animation may have twice as many together.",
        examples=["25000000"],
    )
    IMAGE_MAX_FRAMES: int = Field(
        default=1000, ge=1, le=10_000, description="Frames of an animation.", examples=["1000"]
    )
    CLAMD_URL: str = Field(
        default="",
        pattern=r"^(tcp://[^/:]+:\d+|unix:///.+|)$",
        description="A ClamAV daemon that scans each upload. While it is unreachable, uploads are refused.",
        examples=["tcp://clamav:3310", "unix:///run/clamav/clamd.ctl"],
    )

    # 10 URLs
    TRUSTED_HOSTS: CommaList = Field(
        default=LOOPBACK_HOSTS,
        min_length=1,
        description="The host names of this app. A request with another Host header gets a 400.",
        examples=["www.example.com,example.com"],
    )
    SERVER_NAME: str = Field(
        default="",
        description="The host in absolute URLs and in the redirect to https. Default: the first trusted host.",
        examples=["www.example.com"],
    )
    APPLICATION_ROOT: Literal["/"] = Field(
        default="/",
        description="Must stay /: give the app a host of its own. Its __Host- cookies count for all paths of a host.",
        examples=["/"],
    )
    TRUSTED_PROXY_HOPS: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How many of your proxies are in front of the app. Their X-Forwarded-For and -Proto are trusted.",
        examples=["1"],
    )
    REQUEST_ID_HEADER: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9-]*$",
        description="The header in which your proxy gives each request its id. It must overwrite that of the client.",
        examples=["X-Request-ID"],
    )
    ALLOWED_REDIRECT_HOSTS: CommaList = Field(
        default=(),
        description="Other sites that /redirect may lead to, after a page that names the target.",
        examples=["docs.example.com"],
    )

    READYZ_TOKEN: str = Field(
        default="",
        repr=False,
        description="Who sends it to /readyz (Authorization: Bearer …) learns which part is down. Unset: nobody does.",
        examples=["(make one with: openssl rand -hex 32)"],
    )
    METRICS_TOKEN: str = Field(
        default="", repr=False, description="The same for /metrics, for Prometheus.", examples=["(as READYZ_TOKEN)"]
    )
    ACCESS_LOG: bool = Field(
        default=False,
        description="Log each request: its route, status, duration, network and account, and nothing that was sent.",
        examples=["1"],
    )
    LOG_FORMAT: Literal["text", "json"] = Field(default="text", description="Format of log lines.", examples=["json"])

    @field_validator("*", mode="before")
    @classmethod
    def _as_flask_documents_it(cls, value: object, field: ValidationInfo) -> object:
        """Accept Flask's own types: a timedelta for seconds, and None where the default is empty anyway."""
        if isinstance(value, timedelta):
            return value.total_seconds()
        default = cls.model_fields[str(field.field_name)].default
        return default if value is None and default in ("", (), "/") else value

    @field_validator("SECRET_KEY", "SECRET_KEY_FALLBACKS")
    @classmethod
    def _keys_cannot_be_guessed(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for key in [value] if isinstance(value, str) else value:
            if fault := weakness(key):
                raise ValueError(fault)
        return value

    @field_validator("SECRET_KEY_NEXT", "READYZ_TOKEN", "METRICS_TOKEN")
    @classmethod
    def _if_set_it_cannot_be_guessed(cls, value: str) -> str:
        if value and (fault := weakness(value)):
            raise ValueError(fault)
        return value

    @field_validator("RATELIMIT_DEFAULT")
    @classmethod
    def _limit_can_be_read(cls, value: str) -> str:
        if not all(limit.amount for limit in parse_many(value)):
            raise ValueError("a limit of 0 refuses every request")
        return value

    @field_validator("UPLOAD_EXTENSIONS")
    @classmethod
    def _extensions_have_checks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(TYPES):
            raise ValueError(f"there is no check for {', '.join(sorted(unknown))}, only for {', '.join(TYPES)}")
        return value

    @field_validator("CLAMD_URL")
    @classmethod
    def _scanner_can_be_reached(cls, value: str) -> str:
        if value.startswith("unix:") and not hasattr(socket, "AF_UNIX"):
            raise ValueError("this system has no Unix sockets")
        if urlsplit(value).port == 0:  # urlsplit itself raises ValueError over 65535
            raise ValueError("there is no port 0")
        return value

    @field_validator("RATELIMIT_STORAGE_URI")
    @classmethod
    def _storage_can_be_read(cls, value: str) -> str:
        if value == "memory://":
            return value
        # The faults below quote what seems to be a port or a database, and would be a part of the password.
        if re.search("[^!-~]|[/?#].*@", value.partition("://")[2]):
            raise ValueError("what stands before its @ must be percent-encoded, for example / as %2F")
        if value.startswith("redis+"):
            url = urlsplit(value)
            hosts = [urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")]
            needs_name, has_name = url.scheme == "redis+sentinel", bool(url.path.strip("/"))
            if url.query or needs_name != has_name or not all(host.hostname and host.port for host in hosts):
                forms = "redis+sentinel://host:port,host:port/name or redis+cluster://host:port,host:port"
                raise ValueError(f"it must have the form {forms}")
            return value
        from redis import Redis, RedisError  # here, because redis-py is a tenth of a start

        database = urlsplit(value).path.strip("/")
        if not value.startswith("unix:") and not re.fullmatch("[0-9]*", database):
            raise ValueError(f"a Redis database is a number, and {database!r} is not")
        try:  # this does not connect; an unknown option would make every request fail
            Redis.from_url(value).connection_pool.make_connection()
        except (TypeError, RedisError) as error:
            raise ValueError(f"the Redis client refuses it: {error}") from error
        return value

    @field_validator("REQUEST_ID_HEADER")
    @classmethod
    def _proxy_is_trusted(cls, value: str, fields: ValidationInfo) -> str:
        if value and not fields.data.get("TRUSTED_PROXY_HOPS"):
            raise ValueError("only a trusted proxy may name requests: set TRUSTED_PROXY_HOPS too")
        return value

    @field_validator("TRUSTED_HOSTS", "ALLOWED_REDIRECT_HOSTS")
    @classmethod
    def _hosts_are_bare(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _is_bare_host(host):
                raise ValueError(f"{host!r} is not a bare host name")
        return tuple(host.lower().removesuffix(".") for host in hosts)

    @field_validator("SERVER_NAME")
    @classmethod
    def _server_name_is_a_host(cls, value: str) -> str:
        if value and not is_host(value):
            raise ValueError(f"{value!r} is not a host name, with or without a port")
        host, colon, port = value.lower().partition(":")
        return f"{host.removesuffix('.')}{colon}{port}"


def is_host(value: str) -> bool:
    """Return whether ``value`` is a host, as ``_is_bare_host`` says, with or without a port."""
    host, colon, port = value.partition(":")
    return _is_bare_host(host) and (not colon or (bool(re.fullmatch("[0-9]{1,5}", port)) and 0 < int(port) < 65536))


def _is_bare_host(host: str) -> bool:
    """Return whether ``host`` is only a name in ASCII or an IPv4 address; Werkzeug can't match IPv6 addresses."""
    return bool(re.fullmatch(r"([a-zA-Z0-9_-]+\.)*[a-zA-Z0-9_-]+\.?", host))


def load_settings(config: Mapping[str, object] | None = None) -> Settings:
    """Read and check all settings. Raises one SettingsError that lists all faults."""
    try:
        return Settings(_env_file=paths.ENV_FILE, _env_file_encoding="utf-8", **(config or {}))  # type: ignore[call-arg,arg-type]
    except ValidationError as error:
        faults = [_in_words(fault) for fault in error.errors(include_url=False)]
    except (OSError, UnicodeDecodeError) as error:
        faults = [f"{paths.ENV_FILE}: can't be read ({getattr(error, 'strerror', '') or 'not UTF-8 text'})."]
    intro = "The app cannot start: fix these settings in the environment or in .env."
    raise SettingsError("\n  ".join([intro, *faults]))


def misspelled() -> Iterator[str]:
    """Yield a line for each name in the environment that is nearly a setting: such a value has no effect."""
    for name in sorted(os.environ.keys() - Settings.model_fields.keys()):
        for meant in difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.85):
            yield f"{name} in the environment is not a setting of this app. Did you mean {meant}?"


def _in_words(fault: ErrorDetails) -> str:
    name = str(fault["loc"][0]) if fault["loc"] else "?"
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name}: is not a setting of this app (a typo?). app/settings.py lists all settings."
    # The value of a secret must not reach a terminal or a log. The input of a missing field is that of all others.
    value = f" (is {fault['input']!r})" if field.repr and fault["type"] != "missing" else ""
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_unicode":
        message = "is made of bytes that are no UTF-8 text (use their hexadecimal form, .hex())"
    return f"{name}: {message}{value}. Example: {name}={(field.examples or [''])[0]}"
