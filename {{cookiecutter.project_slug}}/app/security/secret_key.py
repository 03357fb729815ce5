"""Mitigation 1, the secret key: who knows it can forge every session, CSRF token and reset link.

A weak or published key is therefore refused at start, and a key that may have leaked can be replaced
without signing everybody out: ``flask secret-key rotate``, and later ``rotate --prune``. The ``flask`` command starts
the app, which needs a key; ``python -m app.security.secret_key`` is the same command without the app.
Source: OWASP Cryptographic Storage Cheat Sheet; ASVS 5.0 V11.2.3, V13.3.1, V13.3.4.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from dotenv import dotenv_values
from flask import Flask

from app import paths
from app.security.findings import Finding

NUMBER = 1
TITLE = "Secret key"
SUMMARY = "A random key of this app's own signs its sessions and tokens, and can be rotated without signing anyone out."

MIN_LENGTH = 24
MIN_DISTINCT = 7
PLACEHOLDERS = ("changeme", "change-me", "change_me", "secret", "password", "example", "default", "insecure", "your-")
FIX = "Make a random one with: python -m app.security.secret_key new"


@click.group("secret-key")
def cli() -> None:
    """Make or rotate the key that signs sessions and tokens."""


def init_app(app: Flask) -> None:
    """Add the commands. That the app does not start with a guessable key is in app/settings.py."""
    app.cli.add_command(cli)


def check(app: Flask) -> Iterator[Finding]:
    """Look at the keys in force."""
    for key in (app.config["SECRET_KEY"], *app.config["SECRET_KEY_FALLBACKS"]):
        if fault := weakness(key):
            yield Finding("SK04", "missing", f"A signing key {fault}.", FIX)
    if os.name == "posix" and paths.ENV_FILE.exists() and paths.ENV_FILE.stat().st_mode & 0o077:
        yield Finding("SK02", "missing", "Other users of this machine can read .env.", "Run: chmod 600 .env")


def weakness(key: str) -> str | None:
    """Say why ``key`` could be guessed, or None if it could not.

    A key from a random source passes in any usual encoding: 24 characters are 96 bits in hex, and fewer than one such
    key in a million shows no more than 6 different digits.
    """
    if not key:
        return "is missing"
    if len(key) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    if any(word in key.lower() for word in PLACEHOLDERS):
        return "holds a placeholder's word"
    if len(set(key)) < MIN_DISTINCT or key in (key + key)[1:-1]:
        return "repeats itself"
    if (key.isalpha() and (key.islower() or key.isupper())) or key.isdigit():
        return "is made of one kind of character"
    return None


def generate() -> str:
    """Give a new key: 384 bits from the operating system, as 64 URL-safe characters."""
    while weakness(key := secrets.token_urlsafe(48)):
        pass  # one in a million spells a placeholder's word
    return key


@cli.command("new")
def new() -> None:
    """Write a first key into .env; an existing one stays."""
    if _env().get("SECRET_KEY"):
        raise click.ClickException(".env holds a key already. To replace it: python -m app.security.secret_key rotate")
    _write({"SECRET_KEY": generate()})
    click.echo("A new key is in .env. Start the app again to use it.")


@cli.command("rotate")
@click.option("--prune", is_flag=True, help="Drop the former keys: what they signed stops working.")
def rotate(prune: bool) -> None:
    """Sign with a new key from now on; the former one is still accepted until it is pruned."""
    env = _env()
    for name in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        if (os.environ.get(name) or env.get(name)) != env.get(name):
            raise click.ClickException(f"{name} is set in the environment, which wins over .env: rotate it there.")
    if prune:
        _write({"SECRET_KEY_FALLBACKS": ""})  # nosec B105
        click.echo("The former keys are gone from .env. Start the app again: what they signed stops working then.")
        return
    if not (current := env.get("SECRET_KEY")):
        raise click.ClickException("There is no key to rotate. Make one with: python -m app.security.secret_key new")
    if set(current) & set("\"', \\#$"):
        raise click.ClickException("The current key holds a quote, a comma or the like, which .env would garble.")
    former = [current, *filter(None, (env.get("SECRET_KEY_FALLBACKS") or "").split(","))]
    _write({"SECRET_KEY": generate(), "SECRET_KEY_FALLBACKS": ",".join(former)})
    click.echo("A new key is in .env, the former one is kept. Start the app again to use it.")
    click.echo("Once the longest session has ended: python -m app.security.secret_key rotate --prune")


def _env() -> dict[str, str | None]:
    return dotenv_values(paths.ENV_FILE, interpolate=False)


def _write(values: dict[str, str]) -> None:
    """Replace these lines of .env in one step, so that a crash leaves either the old file or the new one."""
    target = paths.ENV_FILE.resolve()
    lines = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    kept = [line for line in lines if line.removeprefix("export ").partition("=")[0].strip() not in values]
    text = "".join(f"{line}\n" for line in [*(f"{name}={value}" for name, value in values.items() if value), *kept])
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".env.")  # created exclusively, 0600
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink()
        raise


if __name__ == "__main__":
    cli(prog_name="python -m app.security.secret_key")
