"""Settings in the types that Flask, Flask-WTF and Flask-Mail document: each works, or stops the start with its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from flask import Flask

from app import create_app, settings
from app.settings import Settings, SettingsError
from tests.conftest import KEY, ROOT, browser_like, csrf_token, new_member
from tests.samples import upload

BINARY = b"\xec\xff" + bytes(range(30))

# Name and value → what the message of a refused start says of it; None: it works.
VALUES: list[tuple[str, object, str | None]] = [
    ("PERMANENT_SESSION_LIFETIME", timedelta(minutes=30), None),
    ("PERMANENT_SESSION_LIFETIME", timedelta(days=31), "less than or equal to 86400"),  # Flask's default
    ("PERMANENT_SESSION_LIFETIME", timedelta(0), "greater than or equal to 60"),
    ("PERMANENT_SESSION_LIFETIME", timedelta(seconds=90.5), "integer"),
    ("SESSION_ABSOLUTE_LIFETIME", timedelta(hours=8), None),
    ("SESSION_COOKIE_DOMAIN", None, None),
    ("SESSION_COOKIE_PATH", None, None),
    ("SESSION_COOKIE_SAMESITE", None, "'Lax' or 'Strict'"),
    ("MAX_CONTENT_LENGTH", None, "integer"),
    ("MAX_CONTENT_LENGTH", 16 * 1000 * 1000, None),
    ("MAX_FORM_MEMORY_SIZE", None, "not a setting"),
    ("MAX_FORM_PARTS", None, "not a setting"),
    ("SERVER_NAME", None, None),
    ("SECRET_KEY", KEY.encode(), None),
    ("SECRET_KEY", BINARY, "no UTF-8 text"),
    ("SECRET_KEY_NEXT", None, None),
    ("SECRET_KEY_FALLBACKS", None, None),
    ("SECRET_KEY_FALLBACKS", [KEY[::-1]], None),
    ("SECRET_KEY_FALLBACKS", [KEY[::-1].encode()], None),
    ("TRUSTED_HOSTS", ["localhost"], None),
    ("TRUSTED_HOSTS", None, "tuple"),
    ("SEND_FILE_MAX_AGE_DEFAULT", timedelta(hours=1), "not a setting"),
    ("WTF_CSRF_TIME_LIMIT", None, "not a setting"),
    ("CLAMD_URL", None, None),
    ("ALLOWED_REDIRECT_HOSTS", None, None),
    ("MAIL_SERVER", None, None),
    ("MAIL_USERNAME", None, None),
    ("MAIL_PASSWORD", None, None),
    ("MAIL_DEFAULT_SENDER", None, None),
]
IDS = [f"{name}={type(value).__name__}-{fault or 'works'}" for name, value, fault in VALUES]
# Those that Flask reads per request, so that code may set them on app.config later, too. A session that may not idle at
# all ends with the second in which it began.
LATER = [(name, value) for name, value, _ in VALUES if name != "TRUSTED_HOSTS" and value != timedelta(0)]


def use(app: Flask) -> None:
    """What people do: open pages, sign in where there are accounts, send a file, and come over http."""
    member = new_member(app)
    for path in ("/", "/uploads"):
        assert member.get(path).status_code == 200
    assert upload(member, "a.txt", b"a").status_code == 201
    form = {"content_type": "application/x-www-form-urlencoded", "data": {"csrf_token": csrf_token(member)}}
    assert member.post("/uploads", **form).status_code == 400  # no file
    plain = browser_like(app, "http://localhost").get("/")
    assert (plain.status_code, plain.headers["Location"]) == (308, "https://localhost/")
    assert app.test_cli_runner().invoke(args=["uploads", "sweep"]).output == "Removed 0 files.\n"


@pytest.mark.parametrize(("name", "value", "fault"), VALUES, ids=IDS)
def test_a_value_of_flasks_own_types_works_or_stops_the_start(
    app_config: dict[str, object], name: str, value: object, fault: str | None
) -> None:
    if name.startswith("MAIL_") and name not in Settings.model_fields:
        fault = "not a setting"  # without accounts
    if fault is None:
        use(create_app(app_config | {name: value}))
        return
    with pytest.raises(SettingsError, match=rf"(?m)^ *{name}: .*{re.escape(fault)}") as refused:
        create_app(app_config | {name: value})
    assert str(BINARY) not in refused.value.message


@pytest.mark.parametrize(("name", "value"), LATER, ids=[f"{name}={type(value).__name__}" for name, value in LATER])
def test_a_value_that_code_sets_later_breaks_nothing(app: Flask, name: str, value: object) -> None:
    app.config[name] = value
    use(app)


def test_8_T4_no_limit_later_is_the_largest_that_a_setting_may_be(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = None
    member = new_member(app)
    allowed = next(each.le for each in Settings.model_fields["MAX_CONTENT_LENGTH"].metadata if hasattr(each, "le"))
    over = {"CONTENT_TYPE": "multipart/form-data; boundary=x", "CONTENT_LENGTH": str(allowed + 1)}
    assert member.post("/uploads", environ_overrides=over).status_code == 413
    assert member.post("/uploads", data={"a": "a" * 200_000}).status_code == 413


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("redis://127.0.0.1/0?nope=1", "'nope'"),
        ("redis://127.0.0.1/0?socket_timeout=soon", "'socket_timeout'"),
        ("redis://127.0.0.1/abc", "'abc'"),
        ("redis://127.0.0.1/0/1", "'0/1'"),
        ("redis://127.0.0.1:99999/0", "Port out of range"),
        ("rediss://127.0.0.1/0?ssl_cert_reqs=nope", "nope"),
        ("memcached://127.0.0.1", "pattern"),
        ("redis+sentinel://127.0.0.1:26379", "host:port/name"),
        ("redis+sentinel://127.0.0.1/counts", "host:port/name"),
        ("redis+sentinel://127.0.0.1:26379?name=counts", "host:port/name"),
        ("redis+cluster://127.0.0.1:6379,127.0.0.1", "host:port"),
        ("redis+cluster://127.0.0.1:6379/0", "host:port"),
        ("redis+cluster://127.0.0.1:6379?ssl=true", "host:port"),
        ("redis+cluster://127.0.0.1:99999", "Port out of range"),
    ],
)
def test_a_redis_that_could_never_answer_stops_the_start(
    app_config: dict[str, object], address: str, fault: str
) -> None:
    with pytest.raises(SettingsError, match=rf"RATELIMIT_STORAGE_URI: .*{re.escape(fault)}"):
        create_app(app_config | {"RATELIMIT_STORAGE_URI": address})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *(
            (wrong, rf"{wrong}: it must be a number from 1 to \d+\. Example: \w+=\d+\n")
            for wrong in (
                "WEB_CONCURRENCY=0",
                "WEB_CONCURRENCY=two",
                "THREADS=0",
                "THREADS=x",
                "PORT=99999",
                "PORT=http",
            )
        ),
        ("SCRIPT_NAME=/shop", r"SCRIPT_NAME: the app can't be below a path\. .*\n"),
        ("APPLICATION_ROOT=/shop", r"The app cannot start: .*\n  APPLICATION_ROOT: Input should be '/' .*\n"),
    ],
)
def test_a_wrong_value_for_gunicorn_is_told(wrong: str, told: str) -> None:
    name, _, value = wrong.partition("=")
    command = [sys.executable, "gunicorn.conf.py", "wsgi:app"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"SECRET_KEY": KEY, name: value}, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert re.fullmatch(told, ended.stderr)


def test_an_empty_value_for_gunicorn_counts_as_unset() -> None:
    empty = dict.fromkeys(("HOST", "PORT", "WEB_CONCURRENCY", "THREADS"), "")
    command = [sys.executable, "gunicorn.conf.py", "--check-config", "wsgi:app"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"SECRET_KEY": KEY} | empty, capture_output=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CLAMD_URI", "CLAMD_URL"),
        ("TRUSTED_HOST", "TRUSTED_HOSTS"),
        ("SECRET_KEYS", "SECRET_KEY"),
        ("SERVERNAME", "SERVER_NAME"),
    ]
    + [(name, None) for name in ("HOST", "PORT", "THREADS", "WEB_CONCURRENCY", "PATH", "LOG_LEVEL", "UPLOADS")],
)
def test_a_name_in_the_environment_that_is_nearly_a_setting_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {name: "x"})
    told = list(settings.misspelled())
    assert told == ([f"{name} in the environment is not a setting of this app. Did you mean {meant}?"] if meant else [])
