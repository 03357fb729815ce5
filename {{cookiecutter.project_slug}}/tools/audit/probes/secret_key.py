"""1 Secret key: is it random, kept secret, refused if it is weak, and can it be rotated?"""

from __future__ import annotations

import ast
import base64
import fnmatch
import math
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from unittest import mock

from flask import Flask
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app import paths
from app.security.findings import Finding
from app.security.secret_key import weakness
from tests.lint.code import assignments
from tools.audit.steps import Fault, probe
from tools.audit.subject import NotApplicable, Subject, random_key

GUESSABLE = (
    "dev",
    "Zx3_vQ-8LmPk2TyR",
    "x" * 64,
    "Tr0ub4dor&3" * 3,
    "aA1" * 10 + "aaA1A",
    "abcdefghijklmnopqrstuvwxyzabcd",
    "1234567890" * 4,
    "changeme-changeme-changeme-42",
    "this-is-my-Secret-key-for-flask",
    "your-256-bit-key-goes-here-ABC1",
    "an-Example-key-of-40-characters-12345678",
)
RANDOM = (
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c",
    "Zx3_vQ-8LmPk2TyRb7WnJd5GhCs9FaKe",
    "3q2+7wQm5sX1Zr8KpVtYb0LhJc=",
)
# The real path: the audit replaces paths.ENV_FILE by a temporary one.
ENV_FILE = paths.ENV_FILE
WITHOUT_KEY = dict.fromkeys(["SECRET_KEY"])
SECRET_NAMES = ("SECRET_KEY", "secret_key")
# os.environ["SECRET_KEY"], env.str("SECRET_KEY"), config("SECRET_KEY"), SECRET_KEY = os.environ["KEY"]
FROM_ENVIRONMENT = (
    r"(environ|getenv|\benv\w*)\W[^\n]*SECRET_KEY|\bconfig\([\"']\w*SECRET_KEY|SECRET_KEY[^\n]*(environ|getenv)"
    r"|from_prefixed_env|BaseSettings"
)


@probe("1.S1")
def random_key_is_made(subject: Subject) -> Iterator[str]:
    """Generate two keys with the command."""
    _any_key(subject)
    if not subject.app.secret_key:
        yield "No key is set."
    elif fault := weakness(_text(subject.app.secret_key)):
        yield f"The key in force {fault}."
    if "secret-key" not in subject.app.cli.commands:
        yield "There is no command that generates a random key."
    if "secret-key" not in subject.app.cli.commands or not subject.own:
        return
    keys = []
    for _ in range(2):
        random.seed(1)  # the random module is predictable: with the same seed, it would generate the same key
        keys.append(_env_after(subject, ["new"], "")["SECRET_KEY"])
    first, second = keys
    bits = len(first) * math.log2(16 if re.fullmatch("[0-9a-f]+", first) else 64)
    if first == second or bits < 256 or weakness(first):
        yield f"The command generates keys of {bits:.0f} bits{', always the same' if first == second else ''}."


@probe("1.S2")
def key_is_out_of_sight(subject: Subject) -> Iterator[str | Finding]:
    """Search the project for the key, and check the permissions of .env."""
    yield from subject.static("SK02")
    _any_key(subject)
    for file, node in subject.nodes:
        for target, value in assignments(node):
            if target in SECRET_NAMES and (written := _written(value)):
                what = "The key" if written is value else "A default key"
                yield Fault(f"{file}:{value.lineno}: {what} is written in the code.", "Move it to .env, and replace it")
    for name in (".gitignore", *([".dockerignore"] if subject.text_of("Dockerfile", "deploy/Dockerfile") else [])):
        # An interrupted rotation may leave a copy next to it.
        if not all(_is_listed(each, subject.text_of(name)) for each in (".env", ".env.k3v9x2")[: 1 + subject.own]):
            yield f"{name} does not list .env."
    env = subject.project / ".env"
    # That of this app is a fact of its deployment: see check() in app/security/secret_key.py.
    if not subject.own and os.name == "posix" and env.exists() and env.stat().st_mode & 0o077:
        yield f"Other users of this machine can read .env ({env.stat().st_mode & 0o777:03o})."
    if subject.own and "secret-key" in subject.app.cli.commands:
        kept = _env_after(subject, ["new"], f"SECRET_KEY={(key := random_key())}\n")
        if kept["SECRET_KEY"] != key:
            yield "The command that generates a key overwrites the existing one."
        _env_after(subject, ["new"], "")
        if os.name == "posix" and (mode := paths.ENV_FILE.stat().st_mode & 0o077):
            yield f"The command writes a .env that other users can read ({mode:03o})."


@probe("1.S3")
def environment_wins(subject: Subject) -> Iterator[str]:
    """Start the app with a key in both places."""
    if not subject.own:
        _any_key(subject)
        if not re.search(FROM_ENVIRONMENT, subject.code):
            yield "The key is not read from the environment, as far as the code shows."
        return
    if not ENV_FILE.is_absolute():
        yield "The path of .env depends on the folder in which the app is started."
    in_file, in_environment = random_key(), random_key()
    paths.ENV_FILE.write_text(f"SECRET_KEY={in_file}\n", encoding="utf-8")
    if subject.make(WITHOUT_KEY).secret_key != in_file:
        yield "A key in .env is not used."
    with mock.patch.dict(os.environ, {"SECRET_KEY": in_environment}):
        if subject.make(WITHOUT_KEY).secret_key != in_environment:
            yield "A key in the environment does not override the one in .env."


@probe("1.S4")
def guessable_key_stops_the_start(subject: Subject) -> Iterator[str]:
    """Start the app with weak keys."""
    if not subject.own:
        _any_key(subject)
        fault = weakness(_text(subject.app.secret_key or ""))
        yield f"The key {fault}." if fault else "The key is strong, but no check was found that refuses a weak one."
        return
    paths.ENV_FILE.unlink(missing_ok=True)
    if not subject.refuses(WITHOUT_KEY):
        yield "The app starts without a key."
    for key in GUESSABLE:
        for setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
            if not subject.refuses({setting: key}):
                yield f"The app starts with {setting}={key[:8]}…"
    for key in RANDOM:
        if subject.refuses({"SECRET_KEY": key}):
            yield "A random key is refused."


@probe("1.S5")
def key_rotates(subject: Subject) -> Iterator[str]:
    """Rotate the key, then use a session and a reset link from before."""
    if not subject.own:
        _any_key(subject)
        if not subject.app.config.get("SECRET_KEY_FALLBACKS") and "SECRET_KEY_FALLBACKS" not in subject.code:
            yield "No former key is still accepted: a new key signs everyone out."
            return
    if "secret-key" not in subject.app.cli.commands:
        yield "There is no command that rotates the key."
        return
    if not subject.own:
        return
    old = random_key()
    after = _env_after(subject, ["rotate"], f"SECRET_KEY={old}\nLOG_FORMAT=json\n")
    new, fallbacks = after.get("SECRET_KEY", ""), after.get("SECRET_KEY_FALLBACKS", "")
    if fallbacks != old or new == old or weakness(new) or after.get("LOG_FORMAT") != "json":
        yield "flask secret-key rotate does not keep the former key next to the new one."
    text = paths.ENV_FILE.read_text(encoding="utf-8")
    if _env_after(subject, ["rotate", "--prune"], text).get("SECRET_KEY_FALLBACKS"):
        yield "flask secret-key rotate --prune does not remove the former keys."
    before, rotated = subject.make({"SECRET_KEY": old}), subject.make({"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": old})
    pruned = subject.make({"SECRET_KEY": new})
    name = before.config["SESSION_COOKIE_NAME"]
    for app, cookie, wanted in (
        (rotated, subject.forge({"audit": 1, "_born": int(time.time())}, before), True),
        (pruned, subject.forge({"audit": 1, "_born": int(time.time())}, before), False),
        (pruned, subject.forge({"audit": 1, "_born": int(time.time())}, rotated), True),
    ):
        if ("audit" in _session_of(app, name, cookie)) != wanted:
            yield "A session signed with the former key is " + ("refused." if wanted else "accepted after the pruning.")
    yield from _reset_link(before, rotated)


def _any_key(subject: Subject) -> None:
    """Raise NotApplicable for an app that signs nothing."""
    if not subject.app.secret_key and not subject.keeps_sessions:
        raise NotApplicable("the app has no key, and no code uses a session")


def _written(value: ast.expr) -> ast.expr | None:
    """Return the literal in a key's expression, also a default: ``environ.get("KEY", "dev")``, ``… or "dev"``."""
    if isinstance(value, ast.Constant):
        return value if isinstance(value.value, str | bytes) and value.value else None
    if isinstance(value, ast.BoolOp):
        inner = value.values
    elif isinstance(value, ast.IfExp):
        inner = [value.body, value.orelse]
    elif isinstance(value, ast.Call) and re.search(r"environ\.get$|getenv$|\benv\b|config$", ast.unparse(value.func)):
        inner = [*value.args[1:], *(each.value for each in value.keywords if each.arg == "default")]
    else:
        inner = []
    return next(filter(None, map(_written, inner)), None)


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else base64.urlsafe_b64encode(key).decode()


def _reset_link(before: Flask, rotated: Flask) -> Iterator[str]:
    if "security" not in rotated.extensions:
        return
    old, new = (app.extensions["security"].reset_serializer for app in (before, rotated))
    if not _opens(new, old.dumps("audit")):
        yield "A reset link signed with the former key is refused."
    if _opens(old, new.dumps("audit")):
        yield "New reset links are still signed with the former key."


def _opens(serializer: URLSafeTimedSerializer, link: str | bytes) -> bool:
    try:
        serializer.loads(link)
    except BadSignature:
        return False
    return True


def _session_of(app: Flask, name: str, cookie: str) -> Mapping[str, object]:
    with app.test_request_context(headers={"Cookie": f"{name}={cookie}"}, base_url="https://localhost") as context:
        return app.session_interface.open_session(app, context.request) or {}


def _is_listed(file: str, patterns: str) -> bool:
    """Return whether a list like .gitignore excludes a file: the last matching pattern decides."""
    listed = False
    for line in map(str.strip, patterns.splitlines()):
        if fnmatch.fnmatch(file, line.removeprefix("!").removeprefix("**/").strip("/")):
            listed = not line.startswith("!")
    return listed


def _env_after(subject: Subject, arguments: list[str], content: str) -> dict[str, str]:
    """Run ``flask secret-key …`` on a temporary .env with ``content``, and return its settings afterwards."""
    paths.ENV_FILE.unlink(missing_ok=True)
    if content:
        paths.ENV_FILE.write_text(content, encoding="utf-8")
    subject.run("secret-key", *arguments)
    lines = paths.ENV_FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
