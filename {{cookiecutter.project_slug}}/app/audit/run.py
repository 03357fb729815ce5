"""The audit: all probes on a copy of the app, and what each room of ``app/security`` says of the real one."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from unittest import mock

from flask import Flask

from app import settings
from app.audit.findings import Finding, Report, Row, StepResult
from app.audit.probes import (  # noqa: F401 - each registers its steps
    cookies,
    csp,
    csrf,
    errors,
    guessing,
    headers,
    rate_limits,
    secret_key,
    templating,
    uploads,
    urls,
)
from app.audit.steps import STEPS
from app.audit.subject import ALLOWED_HOST, HOST, Subject, random_key
from app.security import MITIGATIONS

LARGE = 50_000_000  # bytes
NUMBERS = range(1, 11)  # of the mitigations
SLOW = (8, 9)


def audit_own(factory: Callable[[Mapping[str, object]], Flask], *, split: bool = False) -> Report:
    """Examine the app that ``factory`` makes, as it would start in production.

    With ``split``, two processes share the work where the system can fork: only for a program that has no threads.

    Nothing of it is touched: the probes have a copy, whose files are in a temporary folder, and the app itself starts
    with its own settings, but without the folder and the SQLite file that a start makes or opens. Raises what such a
    start raises.
    """
    with _quiet() as log, tempfile.TemporaryDirectory(prefix="audit-") as folder:
        # Debug is for development: what counts is the app as it is served.
        real = _start(factory, Path(folder, "of-the-start"))
        told = [found for room in MITIGATIONS for found in room.check(real)]

        def copy(changes: Mapping[str, object]) -> Flask:
            app = factory(changes)
            app.instance_path = str(Path(folder, "instance"))
            if "security" in app.extensions:  # dozens of passwords are hashed here, and none of them matters
                app.extensions["security"].pwd_context.update(argon2__memory_cost=8, argon2__time_cost=1)
            return app

        names = settings.Settings.model_fields
        required = {name for name, field in names.items() if field.is_required()}
        if lacking := sorted(required - _settings(Path()).keys()):
            raise settings.SettingsError(
                f"{', '.join(lacking)}: there is no default, and the copy that is attacked must not use what is real. "
                "Add a value for the audit in _settings of app/audit/run.py."
            )
        package = Path(real.root_path)

        def subject(place: Path) -> Subject:
            place.mkdir(exist_ok=True)
            own = {name: value for name, value in _settings(place).items() if name in names}
            return Subject(copy(own), package, package.parent, place, log, copy, own)

        with (
            mock.patch.object(settings, "ENV_FILE", Path(folder, "instance", ".env")),
            mock.patch.dict(os.environ, clear=False),
            contextlib.ExitStack() as waiting,
        ):
            for name in names:
                os.environ.pop(name, None)
            if "app.mail" in sys.modules:
                # At once: one that goes out behind the audit's back would be logged after it.
                waiting.enter_context(mock.patch("app.mail.PAUSE", (0, 0)))
                waiting.enter_context(mock.patch("app.mail._sender.submit", lambda send, *args: send(*args)))
            settings.ENV_FILE.parent.mkdir()
            if split and hasattr(os, "fork") and (os.cpu_count() or 1) > 1:
                results = _examine_in_two(subject, Path(folder))
            else:
                results = _examine(subject(Path(folder)), NUMBERS)
            return Report(_rows(results, told), package.name)


def _start(factory: Callable[[Mapping[str, object]], Flask], folder: Path) -> Flask:
    """Start the app with its own settings, but for the places where a start would write."""
    own = settings.load_settings({"FLASK_DEBUG": False}).model_dump()
    elsewhere: dict[str, object] = {"UPLOAD_DIR": folder}
    if str(own.get("DATABASE_URL")).startswith("sqlite"):
        elsewhere["DATABASE_URL"] = "sqlite://"
    app = factory({"FLASK_DEBUG": False, **elsewhere})
    # What the checks look at is the folder of the settings, whether it is there yet or not.
    app.config["UPLOAD_DIR"] = Path(own["UPLOAD_DIR"]).resolve()
    return app


def audit_foreign(load: Callable[[Path], Flask], project: Path) -> Report:
    """Examine any Flask app, which ``load`` imports from a folder. Raises what its start raises.

    None of its views runs, but its modules and hooks do; see ``app/audit/subject.py``. It is started in a copy of its
    folder: what they write there, logs and databases, goes into the copy.
    """
    if not project.is_dir():
        raise NotADirectoryError(f"there is no folder {project}")
    with _quiet() as log, tempfile.TemporaryDirectory(prefix="audit-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve() / "foreign" / project.name
        shutil.copytree(project, copy, symlinks=True, ignore=_left_out)
        with contextlib.chdir(copy):
            app = load(copy)
            package = Path(app.root_path).resolve()
            rows = _rows(_examine(Subject(app, package, copy, Path(folder), log), NUMBERS), [])
        where = package.relative_to(copy).as_posix().strip(".") if package.is_relative_to(copy) else ""
        return Report(rows, where, foreign=True)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Give what the copy of a foreign app's folder does without: other people's code, history, large files."""
    out = {".git", "node_modules", "__pycache__"} & set(names)
    for name in set(names) - out:
        path = Path(folder, name)
        if path.is_symlink():
            continue
        if path.is_dir():
            left_out = (path / "pyvenv.cfg").exists()
        else:
            left_out = not path.is_file() or not os.access(path, os.R_OK) or path.stat().st_size > LARGE
        out |= {name} if left_out else set()
    return out


def _settings(folder: Path) -> dict[str, object]:
    """Give settings under which the probes know what to expect. Your own that have no default need a value here."""
    return {
        "FLASK_DEBUG": False,
        "SECRET_KEY": random_key(),
        "SECRET_KEY_FALLBACKS": (),
        "TRUSTED_HOSTS": HOST,
        "SERVER_NAME": HOST,
        "TRUSTED_PROXY_HOPS": 0,
        "ALLOWED_REDIRECT_HOSTS": ALLOWED_HOST,
        "PERMANENT_SESSION_LIFETIME": 600,
        "SESSION_ABSOLUTE_LIFETIME": 3600,
        "CSP_REPORT_ONLY": False,
        "HSTS_PRELOAD": False,
        "RATELIMIT_STORAGE_URI": "memory://",
        "RATELIMIT_DEFAULT": "40 per minute",
        "UPLOAD_DIR": str(folder / "uploads"),
        "UPLOAD_EXTENSIONS": "txt,pdf,png,jpg,webp,gif",
        "UPLOAD_QUOTA_BYTES": 2_500_000,
        "UPLOAD_QUOTA_FILES": 14,
        "MAX_CONTENT_LENGTH": 2**20,
        "CLAMD_URL": "",
        "LOG_FORMAT": "text",
        "DATABASE_URL": f"sqlite:///{folder / 'audit.db'}",
        "MAIL_SERVER": "",
    }


def _examine(subject: Subject, numbers: Iterable[int]) -> list[StepResult]:
    """Let the probes of some mitigations look."""
    steps = sorted(STEPS.values(), key=lambda each: each.id)
    return [step.examine(subject) for number in numbers for step in steps if step.id.startswith(f"{number}.")]


def _examine_in_two(subject: Callable[[Path], Subject], folder: Path) -> list[StepResult]:
    """Let a second process look at the mitigations that take half of the time, at a copy of its own."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def work() -> None:
        theirs.send(_examine(subject(folder / "second"), SLOW))

    process = fork.Process(target=work, daemon=True)
    process.start()
    theirs.close()
    try:
        results = _examine(subject(folder), [number for number in NUMBERS if number not in SLOW])
        results += ours.recv()
    finally:  # also when somebody stops the audit: it would go on to write into a folder that is being removed
        process.terminate()
        process.join()
    return results


def _rows(results: list[StepResult], told: list[Finding]) -> tuple[Row, ...]:
    """Sort what was found, with what the modules themselves say of the real app, by mitigation."""
    rows = []
    for number, module in zip(NUMBERS, MITIGATIONS, strict=True):
        steps = []
        for result in results:
            if result.id.startswith(f"{number}."):
                more = tuple(found for found in told if found.id == result.finding_id)
                steps.append(replace(result, findings=result.findings + more, reason="" if more else result.reason))
        rows.append(Row(number, module.TITLE, tuple(steps)))
    return tuple(rows)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Send all logs to one place in memory, and put the handlers back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = io.StringIO()
    try:
        with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
            yield log
    finally:
        root.handlers, root.level = handlers, level
