"""Mitigation 1, the secret key: an attacker who knows it can forge every session, CSRF token and reset link.

A weak or published key is therefore refused at start, and a key that may have leaked can be replaced
without signing everybody out: ``flask secret-key rotate``, and later ``rotate --prune``. Several machines restart one
after the other, so each must accept the new key before one of them signs with it: ``rotate --stage`` first. The
``flask`` command starts the app, which needs a key; ``python -m app.security.secret_key`` is the same without the app.
Source: OWASP Cryptographic Storage Cheat Sheet; ASVS 5.0 V11.5.1, V13.3.2, V13.3.4.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
KEYS = ("SECRET_KEY", "SECRET_KEY_NEXT", "SECRET_KEY_FALLBACKS")
UNFINISHED = ".env.secret-key-unfinished-"  # a longer name than people give to a .env of their own
PLACEHOLDERS = ("changeme", "change-me", "change_me", "secret", "password", "example", "default", "insecure", "your-")


@click.group("secret-key")
def cli() -> None:
    """Generate or rotate the key that signs sessions and tokens."""


def init_app(app: Flask) -> None:
    """Accept the staged key, and add the commands. app/settings.py refuses to start the app with a weak key."""
    staged, former = app.config["SECRET_KEY_NEXT"], app.config["SECRET_KEY_FALLBACKS"]
    app.extensions["oldest_key"] = (app.config["SECRET_KEY"], *former)[-1]
    app.config["SECRET_KEY_FALLBACKS"] = (staged, *former) if staged else former
    app.cli.add_command(cli)


def check(app: Flask) -> Iterator[Finding]:
    """Report a .env that other users can read."""
    if os.name == "posix" and paths.ENV_FILE.exists() and paths.ENV_FILE.stat().st_mode & 0o077:
        yield Finding("SK02", "missing", "Other users of this machine can read .env.", "Run: chmod 600 .env")


def weakness(key: str) -> str | None:
    """Return why ``key`` could be guessed, or None if it could not.

    A random key passes in any usual encoding: 24 characters are 96 bits in hex, and fewer than one such key in a
    million has only 6 different digits or fewer.
    """
    if not key:
        return "is missing"
    if len(key) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    if any(word in key.lower() for word in PLACEHOLDERS):
        return "contains a placeholder word"
    if len(set(key)) < MIN_DISTINCT or key in (key + key)[1:-1]:
        return "repeats itself"
    if (key.isalpha() and (key.islower() or key.isupper())) or key.isdigit():
        return "is made of one kind of character"
    return None


def generate() -> str:
    """Return a new key: 384 random bits from the operating system, as 64 URL-safe characters."""
    while weakness(key := secrets.token_urlsafe(48)):
        pass  # one key in a million contains a placeholder word
    return key


@cli.command("new")
def new() -> None:
    """Write a first key into .env; an existing key is never replaced."""
    if _env().get("SECRET_KEY"):
        raise click.ClickException(".env already has a key. To replace it: python -m app.security.secret_key rotate")
    _write({"SECRET_KEY": generate()})
    click.echo("A new key is in .env. Restart the app to use it.")


@cli.command("rotate")
@click.option("--stage", is_flag=True, help="Make the next key: it is accepted, and signs after the next rotate.")
@click.option("--prune", is_flag=True, help="Remove the former keys: everything they signed becomes invalid.")
def rotate(stage: bool, prune: bool) -> None:
    """Sign with the staged key, or a new one, from now on; the former key is accepted until it is pruned."""
    if stage and prune:
        raise click.UsageError("--stage is the first step of a rotation, --prune the last one.")
    env = _env()
    for name in KEYS:
        if (os.environ.get(name) or env.get(name)) != env.get(name):
            raise click.ClickException(f"{name} is set in the environment, which overrides .env: rotate it there.")
    if prune:
        _write({"SECRET_KEY_FALLBACKS": ""})  # nosec B105
        click.echo("The former keys are removed from .env. Restart the app: everything they signed becomes invalid.")
        return
    current, staged = env.get("SECRET_KEY"), env.get("SECRET_KEY_NEXT") or ""
    if not current:
        raise click.ClickException("There is no key to rotate. Make one with: python -m app.security.secret_key new")
    if set(current + staged) & set("\"', \\#$"):
        raise click.ClickException("A key has a quote, a comma or the like in it, which .env can't hold.")
    if stage and staged:  # another machine may have it already
        raise click.ClickException("A key is staged. To sign with it: python -m app.security.secret_key rotate")
    if stage:
        _write({"SECRET_KEY_NEXT": generate()})
        click.echo("The next key is in .env. Copy its line SECRET_KEY_NEXT to all machines, and restart the app there.")
        click.echo("After that, run on each of them: python -m app.security.secret_key rotate")
        return
    former = [current, *filter(None, (env.get("SECRET_KEY_FALLBACKS") or "").split(","))]
    key = staged or generate()
    _write({"SECRET_KEY": key, "SECRET_KEY_NEXT": "", "SECRET_KEY_FALLBACKS": ",".join(former)})  # nosec B105
    click.echo(f"{'The staged' if staged else 'A new'} key signs after a restart of the app. The former one is kept.")
    click.echo("After the longest session has expired, run: python -m app.security.secret_key rotate --prune")


@contextmanager
def _faults_of_the_file_in_one_line() -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        file, why = os.path.realpath(paths.ENV_FILE), getattr(error, "strerror", "") or "not UTF-8 text"
        raise click.ClickException(
            f"{file} can't be read and replaced ({why}). Run this as a user who may write to that file and its folder, "
            "or keep SECRET_KEY in the environment."
        ) from None


@_faults_of_the_file_in_one_line()
def _env() -> dict[str, str | None]:
    return dotenv_values(paths.ENV_FILE, interpolate=False)


@_faults_of_the_file_in_one_line()
def _write(values: dict[str, str]) -> None:
    """Replace these lines of .env atomically: after a crash, the file is either the old or the new one."""
    target = Path(os.path.realpath(paths.ENV_FILE))  # unlike Path.resolve, raises nothing for a loop of links
    lines = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    kept = [line for line in lines if line.removeprefix("export ").partition("=")[0].strip() not in values]
    for leftover in target.parent.glob(f"{UNFINISHED}*"):  # of a run that was killed: it has keys in it
        leftover.unlink(missing_ok=True)
    text = "".join(f"{line}\n" for line in [*(f"{name}={value}" for name, value in values.items() if value), *kept])
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=UNFINISHED)  # created exclusively, 0600
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            if os.name == "posix" and target.exists():  # root may run this for an app that runs as another user
                os.fchown(handle, target.stat().st_uid, target.stat().st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink()
        raise


if __name__ == "__main__":
    cli(prog_name="python -m app.security.secret_key")
