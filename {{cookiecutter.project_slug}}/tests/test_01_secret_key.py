"""Attacks on mitigation 1, the secret key."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from pydantic import Field

from app import create_app, paths, settings
from app.security.cookies import NAME
from app.security.secret_key import generate
from tests.conftest import KEY, ROOT, browser_like, csrf_token, session_cookie

DELETE = "/uploads/0123456789abcdef0123456789abcdef/delete"  # there is no such file
OTHER_KEY = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R"


def forged_session(key: str, **content: object) -> str:
    """A session cookie as Flask would sign it with ``key``."""
    forger = Flask("forger")
    forger.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(forger)
    assert serializer is not None
    return str(serializer.dumps(content))


def with_cookie(app: Flask, value: str) -> FlaskClient:
    client = browser_like(app)
    client.set_cookie(NAME, value, domain="localhost", secure=True)
    return client


def cookie_of(client: FlaskClient) -> str:
    client.get("/")
    return session_cookie(client)


def token_still_works(client: FlaskClient, token: str) -> bool:
    """Whether this browser's session is still the one that ``token`` was made for."""
    return client.post(DELETE, data={"csrf_token": token}).status_code != 400


@pytest.mark.parametrize("key", [OTHER_KEY, "dev", "changeme", "secret", ""])
def test_1_T1_a_session_forged_with_another_key_is_nobodys(member: FlaskClient, app: Flask, key: str) -> None:
    with member.session_transaction() as real:
        content = dict(real)
    forged = forged_session(key, **content) if key else forged_session("x", **content).rpartition(".")[0] + "."
    victim = csrf_token(member)
    assert token_still_works(member, victim)
    assert not token_still_works(with_cookie(app, forged), victim)


def test_1_T1_a_session_signed_with_a_fallback_lives_until_the_key_is_pruned(app_config: dict[str, object]) -> None:
    old = browser_like(create_app(app_config | {"SECRET_KEY": OTHER_KEY}))
    token, cookie = csrf_token(old), cookie_of(old)

    rotated = create_app(app_config | {"SECRET_KEY_FALLBACKS": [OTHER_KEY]})
    assert token_still_works(with_cookie(rotated, cookie), token)
    pruned = create_app(app_config)
    assert not token_still_works(with_cookie(pruned, cookie), token)


def test_1_S5_new_sessions_and_tokens_are_signed_with_the_new_key(app_config: dict[str, object]) -> None:
    rotated = browser_like(create_app(app_config | {"SECRET_KEY_FALLBACKS": [OTHER_KEY]}))
    token, cookie = csrf_token(rotated), cookie_of(rotated)
    assert token_still_works(with_cookie(create_app(app_config), cookie), token)


@pytest.mark.parametrize("key", [OTHER_KEY, "dev"])
def test_1_T2_a_csrf_token_made_with_another_key_is_refused(member: FlaskClient, key: str) -> None:
    real = csrf_token(member)
    with member.session_transaction() as content:
        secret = content["csrf_token"]
    forged = URLSafeTimedSerializer(key, salt="wtf-csrf-token").dumps(secret)
    assert token_still_works(member, real)
    assert not token_still_works(member, forged)


def test_1_T3_every_change_of_one_byte_makes_the_session_nobodys(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1000000 per minute"})
    owner = browser_like(app)
    token, cookie = csrf_token(owner), cookie_of(owner)
    assert token_still_works(with_cookie(app, cookie), token)
    # The last character of a base64 text holds spare bits: there another letter may spell the same signature.
    for place, character in enumerate(cookie[:-1]):
        for other in {"A", "z", "-", ".", "\x7f"} - {character}:
            changed = cookie[:place] + other + cookie[place + 1 :]
            answer = with_cookie(app, changed).post(DELETE, data={"csrf_token": token})
            assert answer.status_code == 400, changed


# What people really put there, and what random sources really give.
@pytest.mark.parametrize(
    "key",
    [
        "",
        "Zx3_vQ-8LmPk2TyR",
        "x" * 64,
        "abcabcabcabcabcabcabcabcabcabc",
        "aA1aaA1A1aA1aa1A1aA1a1AA1aaA1A",
        "Tr0ub4dor&3Tr0ub4dor&3Tr0ub4dor&3",
        "changeme-changeme-changeme-42",
        "this-is-my-secret-key-for-flask",
        "correcthorsebatterystaplecorrect",
        "12345678901234567890123456789012",
        "your-256-bit-key-goes-here-ABC1",
    ],
)
def test_1_S4_the_app_does_not_start_with_a_guessable_key(app_config: dict[str, object], key: str) -> None:
    with pytest.raises(settings.SettingsError, match="SECRET_KEY: ") as refused:
        create_app(app_config | {"SECRET_KEY": key})
    assert "python -m app.security.secret_key new" in refused.value.message
    assert not key or key not in refused.value.message


@pytest.mark.parametrize("key", ["changeme-changeme-changeme-42", "Zx3_vQ-8LmPk2TyR"])
@pytest.mark.parametrize(("name", "before"), [("SECRET_KEY_FALLBACKS", f"{OTHER_KEY},"), ("SECRET_KEY_NEXT", "")])
def test_1_S4_no_former_or_next_key_is_guessable_either(
    app_config: dict[str, object], name: str, before: str, key: str
) -> None:
    with pytest.raises(settings.SettingsError, match=f"{name}: ") as refused:
        create_app(app_config | {name: before + key})
    assert key not in refused.value.message


@pytest.mark.parametrize(
    "key",
    [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",  # hex
        "f81d4fae-7dec-41d0-a765-00a0c91e6bf6",  # a version 4 UUID
        "3q2+7wQm5sX1Zr8KpVtYb0LhJcNfGd4A6uEiRoTaSxM=",  # base64
        "Zx3_vQ-8LmPk2TyRb7WnJd5GhCs9FaKe",  # URL-safe base64
        "MZXW6YTBOI3DGNBVGY3TQOJQKRSX45DB",  # base32
        ";kJ8!fz?Qw}2@m)Lx%7&Vd^Tp[0]~Gh<",  # printable
    ],
)
def test_1_S4_a_random_key_in_any_encoding_passes(app_config: dict[str, object], key: str) -> None:
    assert create_app(app_config | {"SECRET_KEY": key}).secret_key == key


def secret_key(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command, on a copy of the app whose .env is its own."""
    return python(folder, "app.security.secret_key", *arguments, **environment)


def flask(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "flask", "--app", "app", *arguments, **environment)


def python(folder: Path, module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The app's folder as it lies on a new machine: without .env."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def keys(folder: Path) -> tuple[str, str]:
    lines = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
    return lines["SECRET_KEY"], lines.get("SECRET_KEY_FALLBACKS", "")


def test_1_S1_the_command_makes_a_key_where_there_is_none_and_never_replaces_one(checkout: Path) -> None:
    refused = flask(checkout, "routes")
    assert refused.returncode != 0
    assert "python -m app.security.secret_key new" in refused.stderr
    made = secret_key(checkout, "new")
    assert made.returncode == 0, made.stderr
    key, _ = keys(checkout)
    assert len(key) == 64  # 48 bytes of 8 bits, 6 bits a character
    assert key not in made.stdout + made.stderr
    assert (checkout / ".env").stat().st_mode & 0o777 == 0o600

    again = secret_key(checkout, "new")
    assert again.returncode != 0
    assert "python -m app.security.secret_key rotate" in again.stderr
    assert keys(checkout)[0] == key


def test_1_S5_an_app_that_starts_has_the_same_command(checkout: Path) -> None:
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\n")
    assert flask(checkout, "secret-key", "rotate").returncode == 0
    assert keys(checkout)[1] == KEY


def test_1_S1_no_key_can_be_foreseen() -> None:
    """Who knows the state of Python's own generator knows the next number; the operating system's has no such state."""
    made = []
    for _ in range(2):
        random.seed(1)
        made.append(generate())
    assert made[0] != made[1]


def test_1_S2_the_key_is_in_neither_git_nor_the_image(tmp_path: Path) -> None:
    secret = [".env", ".env.x7k2", "instance/app.db", "deploy/tls/privkey.pem"]
    (tmp_path / "instance").mkdir()
    (tmp_path / "deploy/tls").mkdir(parents=True)
    for name in secret:
        (tmp_path / name).touch()
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", f"core.excludesFile={os.devnull}"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    added = subprocess.run([*git, "add", "--all", "--verbose"], check=True, capture_output=True, text=True).stdout
    assert added.splitlines() == ["add '.gitignore'"]

    rules = ROOT / ".dockerignore"
    for name in secret if rules.exists() else []:
        # Docker: the last rule that fits decides.
        fitting = [rule for rule in rules.read_text().splitlines() if fnmatch(name, rule.removeprefix("!"))]
        assert fitting, name
        assert not fitting[-1].startswith("!"), name


def test_1_S5_rotation_keeps_the_former_keys_newest_first_and_the_other_settings(checkout: Path) -> None:
    (checkout / ".env").write_text(f"# ours\nSECRET_KEY={KEY}\nLOG_FORMAT=json\n")
    assert secret_key(checkout, "rotate").returncode == 0
    second, fallbacks = keys_and_comment(checkout)
    assert fallbacks == KEY
    assert secret_key(checkout, "rotate").returncode == 0
    third, fallbacks = keys_and_comment(checkout)
    assert fallbacks == f"{second},{KEY}"
    assert secret_key(checkout, "rotate", "--prune").returncode == 0
    assert keys_and_comment(checkout) == (third, "")
    assert len({KEY, second, third}) == 3


def keys_and_comment(folder: Path) -> tuple[str, str]:
    """The keys; the comment and the other setting must have stayed."""
    lines = (folder / ".env").read_text().splitlines()
    assert "# ours" in lines
    assert "LOG_FORMAT=json" in lines
    values = dict(line.split("=", 1) for line in lines if line[0] != "#")
    return values["SECRET_KEY"], values.get("SECRET_KEY_FALLBACKS", "")


def test_1_S5_a_staged_key_signs_with_the_next_rotation(checkout: Path) -> None:
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\nSECRET_KEY_FALLBACKS={OTHER_KEY}\n")
    assert secret_key(checkout, "rotate", "--stage").returncode == 0
    staged = dict(line.split("=", 1) for line in (checkout / ".env").read_text().splitlines())
    assert (staged["SECRET_KEY"], staged["SECRET_KEY_FALLBACKS"]) == (KEY, OTHER_KEY)
    assert len({KEY, OTHER_KEY, staged["SECRET_KEY_NEXT"]}) == 3
    # Other machines may have it already.
    again = secret_key(checkout, "rotate", "--stage")
    assert (again.returncode, "staged" in again.stderr) == (1, True)
    both = secret_key(checkout, "rotate", "--stage", "--prune")
    assert both.returncode == 2
    assert secret_key(checkout, "rotate").returncode == 0
    assert keys(checkout) == (staged["SECRET_KEY_NEXT"], f"{KEY},{OTHER_KEY}")
    assert "SECRET_KEY_NEXT" not in (checkout / ".env").read_text()


def test_1_S5_a_staged_key_is_accepted_and_does_not_sign_yet(app_config: dict[str, object]) -> None:
    plain, next_key = create_app(app_config), create_app(app_config | {"SECRET_KEY": OTHER_KEY})
    other = browser_like(next_key)
    token, cookie = csrf_token(other), cookie_of(other)
    staged = create_app(app_config | {"SECRET_KEY_NEXT": OTHER_KEY})
    assert token_still_works(with_cookie(staged, cookie), token)
    own = browser_like(staged)
    token, cookie = csrf_token(own), cookie_of(own)
    assert token_still_works(with_cookie(plain, cookie), token)


def test_1_S5_a_rotation_writes_the_file_in_one_step(checkout: Path) -> None:
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\n")
    with (checkout / ".env").open() as opened:  # by somebody who has not read it yet
        assert secret_key(checkout, "rotate").returncode == 0
        assert opened.read() == f"SECRET_KEY={KEY}\n"
    assert [path.name for path in checkout.glob(".env*")] == [".env"]


# What ends the command as a crash does, just before the new file takes the place of the old one.
KILLED = (
    "import os, signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); "
    "from app.security.secret_key import cli; cli(['rotate'])"
)


@pytest.mark.fault(
    "`rotate`", "is killed", sees="nothing: `.env` is unchanged", ends="the next run removes what it has left"
)
def test_1_S2_the_next_run_removes_what_a_killed_one_has_left(checkout: Path) -> None:
    own = {".env": f"SECRET_KEY={KEY}\n", ".env.local": "a", ".env.example": "b", ".env.x7k2": "c", ".envrc": "d"}
    for name, text in own.items():
        (checkout / name).write_text(text)
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=checkout).returncode == -9
    assert {path.name: path.read_text() for path in checkout.glob(".env*") if path.name in own} == own
    (left,) = {path.name for path in checkout.glob(".env*")} - own.keys()
    assert (checkout / left).stat().st_mode & 0o777 == 0o600
    assert secret_key(checkout, "rotate").returncode == 0
    assert {path.name for path in checkout.glob(".env*")} == own.keys()
    assert all((checkout / name).read_text() == text for name, text in own.items() if name != ".env")


def test_1_S2_a_rotation_keeps_the_owner_of_the_file(checkout: Path) -> None:
    """Root rotates the key of an app that runs as another user: the app must still be able to read the file."""
    file = checkout / ".env"
    file.write_text(f"SECRET_KEY={KEY}\n")
    file.chmod(0o640)
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    os.chown(file, *owner)
    for options in (["--stage"], [], ["--prune"]):
        assert secret_key(checkout, "rotate", *options).returncode == 0
        assert (file.stat().st_uid, file.stat().st_gid) == owner
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_NEXT", "SECRET_KEY_FALLBACKS"])
def test_1_S5_a_key_from_the_environment_is_not_rotated_in_vain(checkout: Path, name: str) -> None:
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\n")
    refused = secret_key(checkout, "rotate", **{name: OTHER_KEY})
    assert refused.returncode != 0
    assert f"{name} is set in the environment" in refused.stderr
    assert (checkout / ".env").read_text() == f"SECRET_KEY={KEY}\n"


# What a shell does in the folder of .env.
FAULTS = {
    "of another user": "chmod 000 .env",
    "in a folder of another user": "chmod 555 .",
    "not text": "printf '\\377\\376' > .env",
    "a folder": "rm .env && mkdir .env",
    "a link into no folder": "ln -sf missing/env .env",
}


def as_anybody() -> list[str]:
    """What goes before a command, so that permissions hold for it: root may read and write everything."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] * (os.geteuid() == 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_1_S2_a_file_that_is_out_of_reach_is_named_in_one_line(checkout: Path, fault: str) -> None:
    shutil.copy(ROOT / "wsgi.py", checkout)
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\n")
    subprocess.run(FAULTS[fault], shell=True, cwd=checkout, check=True)  # noqa: S602
    told = []
    for arguments in (
        ["-m", "app.security.secret_key", "rotate"],
        ["-m", "app.security.secret_key", "new"],
        ["wsgi.py"],
    ):
        command = [*as_anybody(), sys.executable, "-B", *arguments]
        ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in ended.stderr
        told.append(ended.stderr.splitlines()[-1] if ended.returncode else "")
    checkout.chmod(0o755)
    rotated, made, started = told
    file = checkout / ("missing/env" if "link" in fault else ".env")
    # Where there is no key to rotate, the next command is the one that can't write.
    assert f"{file} can't be read and replaced (" in (made if "new" in rotated else rotated)
    assert KEY not in "".join(told)
    if fault in ("of another user", "not text"):
        assert started.startswith(f"  {file}: can't be read (")


def test_1_S3_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, app_config: dict[str, object]
) -> None:
    del app_config["SECRET_KEY"]
    paths.ENV_FILE.write_text(f"SECRET_KEY={KEY}\n")
    assert create_app(app_config).secret_key == KEY
    monkeypatch.setenv("SECRET_KEY", OTHER_KEY)
    assert create_app(app_config).secret_key == OTHER_KEY


def test_1_S3_the_file_is_found_wherever_the_app_is_started(checkout: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "wsgi.py", checkout)
    (checkout / ".env").write_text(f"SECRET_KEY={KEY}\n")
    (tmp_path / ".env").write_text(f"SECRET_KEY={OTHER_KEY}\n")
    command = [sys.executable, "-c", "import wsgi; print(wsgi.app.secret_key)"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    started = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert started.stdout.splitlines() == [KEY], started.stderr


def test_several_wrong_settings_are_told_together_and_no_secret_is_shown(app_config: dict[str, object]) -> None:
    paths.ENV_FILE.write_text("PERMANENT_SESION_LIFETIME=60\n")
    wrong = {
        "SECRET_KEY": "hunter2",
        "SESSION_COOKIE_SAMESITE": "None",
        "TRUSTED_HOSTS": "https://a.example",
        "ALLOWED_REDIRECT_HOSTS": "\u017fhop.example",  # folded to "shop" where case is ignored
        "RATELIMIT_STORAGE_URI": "x://u:hunter2@h",
        "RATELIMIT_DEFAULT": "0 per minute",
        "UPLOAD_EXTENSIONS": "png,svg",
        "CLAMD_URL": "tcp://clamav:99999",
    }
    with pytest.raises(settings.SettingsError) as refused:
        create_app(app_config | wrong)
    for name in ("PERMANENT_SESION_LIFETIME", *wrong):
        assert f"{name}:" in refused.value.message
    assert "hunter2" not in refused.value.message


def test_a_setting_that_is_missing_is_told_without_the_others(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(settings.Settings):
        PAYMENT_ACCOUNT: str = Field(description="One that a team requires.", examples=["acct_1"])

    monkeypatch.setattr(settings, "Settings", Own)
    with pytest.raises(settings.SettingsError, match="PAYMENT_ACCOUNT: ") as refused:
        create_app(app_config)
    assert not any(str(value) in refused.value.message for value in app_config.values())


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel"])
@pytest.mark.parametrize("mark", "/?#\u2100")
def test_a_password_with_a_mark_is_not_shown(app_config: dict[str, object], scheme: str, mark: str) -> None:
    """To a parser, it ends the host. What stands before it is the port then, what follows is the database."""
    with pytest.raises(settings.SettingsError, match=r"RATELIMIT_STORAGE_URI: .*percent-encoded") as refused:
        create_app(app_config | {"RATELIMIT_STORAGE_URI": f"{scheme}://:hunter{mark}3lm1r4@redis:6379/0"})
    assert not any(part in refused.value.message for part in ("hunter", "3lm1r4"))


def test_the_production_server_refuses_debug(checkout: Path) -> None:
    command = [sys.executable, "-c", "import wsgi"]
    environment = os.environ | {"PYTHONPATH": f"{checkout}:{ROOT}", "SECRET_KEY": KEY, "FLASK_DEBUG": "1"}
    refused = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("FLASK_DEBUG:")


def test_a_start_and_a_page_touch_nothing(checkout: Path) -> None:
    """No folder, no file, no database, no connection: every command of flask may load the app."""
    instance = checkout / "instance"
    configured = {"SECRET_KEY": KEY, "RATELIMIT_STORAGE_URI": "redis://127.0.0.1:1/0", "CLAMD_URL": "tcp://127.0.0.1:1"}
    assert flask(checkout, "routes", **configured).returncode == 0
    started = python(checkout, "flask", "--app", "app", "shell", **configured)
    assert started.returncode == 0
    assert not instance.exists()
