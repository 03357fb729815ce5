"""The audit: all probes on a copy of the app, and the facts that the real app reports about its deployment."""

from __future__ import annotations

import contextlib
import importlib
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
from typing import Any
from unittest import mock

from flask import Flask
from jinja2 import FileSystemBytecodeCache
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from app import paths, settings
from app.security.findings import Finding, facts, facts_of
from tests.lint.links import hosts_of
from tools import ctrl_c
from tools.audit import yours
from tools.audit.mitigations import MITIGATIONS, Step
from tools.audit.results import Report, Row, StepResult
from tools.audit.steps import PROBES, examine
from tools.audit.subject import ALLOWED_HOST, HOST, Subject, random_key

LARGE = 50_000_000  # bytes
STAND_IN = "The audit used the value of [tool.audit] in pyproject.toml. Set the real one where the app is served."
# The last ones take the longest, so they come first: two processes are then busy to the end.
STEPS = [step for mitigation in reversed(MITIGATIONS.values()) for step in mitigation.steps]


def audit_own(factory: Callable[[Mapping[str, object]], Flask], *, split: bool = False, only: int = 0) -> Report:
    """Examine the app that ``factory`` returns, as it would start in production.

    With ``split``, two processes share the work if the system can fork: only for a program without threads.
    ``only`` is the number of a mitigation; then the report has its row and nothing else.

    The real app is not touched: the probes get a copy with its own temporary folder. Raises what the factory raises.
    """
    with _quiet() as log, tempfile.TemporaryDirectory(prefix="audit-") as folder:
        # The audit examines the app as it is served in production, so without debug.
        real = factory({"FLASK_DEBUG": False} | (lacking := _lacking()))
        stated = [*facts(real), *(Finding("DP06", "note", f"{name} is not set here.", STAND_IN) for name in lacking)]
        _load_probes()
        compiled = FileSystemBytecodeCache(tempfile.mkdtemp(dir=folder))  # for all copies

        def copy(changes: Mapping[str, object]) -> Flask:
            app = factory(changes)
            app.instance_path = str(paths.ENV_FILE.parent)
            app.jinja_env.bytecode_cache = compiled
            database = Path(str(changes.get("DATABASE_URL", "")).removeprefix("sqlite:///"))
            if "app.accounts.database" in sys.modules and not database.exists():
                with app.app_context():
                    sys.modules["app.accounts.database"].schema().upgrade()
            return app

        package = Path(real.root_path)

        def subject(place: Path) -> Subject:
            paths.ENV_FILE = place / "instance" / ".env"  # of this process
            paths.ENV_FILE.parent.mkdir(parents=True)
            own = {name: value for name, value in _settings(place).items() if name in settings.Settings.model_fields}
            made = Subject(copy(own), package, yours.PROJECT, place, log, copy, own, hosts_of(real))
            made.check_members()
            return made

        with _surroundings():
            if split and not only and hasattr(os, "fork") and (os.cpu_count() or 1) > 1:
                results = _examine_in_two(subject, Path(folder))
            else:
                results = _examine(subject(Path(folder)), MITIGATIONS[only].steps if only else STEPS)
            report = _report(results, real, stated, package.name)
            return replace(report, rows=report.rows[:1], deployment=()) if only else report


def _required() -> set[str]:
    return {name for name, field in settings.Settings.model_fields.items() if field.is_required()}


def _lacking() -> dict[str, object]:
    """Return your values of the required settings that are not set here. CI does not have the real ones."""
    with contextlib.suppress(OSError, UnicodeDecodeError):  # the start says that .env can't be read
        file = DotEnvSettingsSource(settings.Settings, paths.ENV_FILE, "utf-8")()
        unset = _required() - (EnvSettingsSource(settings.Settings)() | file).keys()
        return {name: value for name, value in yours.settings().items() if name in unset}
    return {}


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """Keep the real settings from the copies, hash passwords fast, and send mails at once.

    Raises SettingsError for a setting that neither a default nor ``[tool.audit]`` has a value for.
    """
    if lacking := sorted(_required() - _settings(Path()).keys()):
        raise settings.SettingsError(
            f"{', '.join(lacking)}: there is no default, and the copy under attack must not use the real value. "
            "Add a value for the audit to settings in [tool.audit] of pyproject.toml."
        )
    with mock.patch.object(paths, "ENV_FILE"), mock.patch.dict(os.environ), contextlib.ExitStack() as patches:
        for name in settings.Settings.model_fields:
            os.environ.pop(name, None)
        if "app.accounts.identity" in sys.modules:  # none of the dozens of passwords is real
            patches.enter_context(mock.patch.dict("app.accounts.identity.ARGON2", argon2__memory_cost=8))
        if "app.accounts.mail" in sys.modules:  # a mail sent in the background would be logged after the audit
            patches.enter_context(mock.patch("app.accounts.mail.PAUSE", (0, 0)))
            patches.enter_context(mock.patch("app.accounts.mail.Postman.look", return_value=None))
            patches.enter_context(mock.patch("app.accounts.mail.Postman.wake", _send_at_once))
        yield


def _send_at_once(postman: Any, response: object) -> object:
    while sys.modules["app.accounts.mail"].send_next(postman.app) == 0:
        pass
    return response


def audit_foreign(load: Callable[[Path], Flask], project: Path) -> Report:
    """Examine any Flask app, which ``load`` imports from a folder. Raises what ``load`` raises.

    Its modules and hooks run, but none of its views; see ``tools/audit/subject.py``. It is started in a copy of its
    folder, so the logs and databases that it writes there go into the copy.
    """
    if not project.is_dir():
        raise NotADirectoryError(f"there is no folder {project}")
    with _quiet() as log, tempfile.TemporaryDirectory(prefix="audit-", ignore_cleanup_errors=True) as folder:
        _load_probes()
        copy = Path(folder).resolve() / "foreign" / project.name
        shutil.copytree(project, copy, symlinks=True, ignore=_left_out)
        with contextlib.chdir(copy):
            app = load(copy)
            package = Path(app.root_path).resolve()
            results = _examine(Subject(app, package, copy, Path(folder), log, hosts=hosts_of(app)), STEPS)
            rows = tuple(
                Row(number, each.title, tuple(results[step] for step in each.steps))
                for number, each in MITIGATIONS.items()
            )
        where = package.relative_to(copy).as_posix().strip(".") if package.is_relative_to(copy) else ""
        return Report(rows, (), where, foreign=True)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Return the names that are not copied from a foreign app's folder: third-party code, history, large files."""
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
    """Return the settings that the probes expect, and yours."""
    return yours.settings() | {
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
        "UPLOAD_STORAGE": "folder",
        "UPLOAD_EXTENSIONS": "gif,webp,jpg,png,pdf,txt",
        "UPLOAD_QUOTA_BYTES": 2_500_000,
        "UPLOAD_QUOTA_FILES": 14,
        "UPLOAD_QUOTA_TOTAL_BYTES": 10**9,
        "MAX_CONTENT_LENGTH": 2**20,
        "CLAMD_URL": "",
        "LOG_FORMAT": "text",
        "DATABASE_URL": f"sqlite:///{folder / 'audit.db'}",
        "MAIL_SERVER": "",
    }


def _load_probes() -> None:
    """Import the probes. A probe whose mitigation the team has removed can't be imported and is skipped."""
    for name in [name for mitigation in MITIGATIONS.values() for name in mitigation.probes]:
        try:
            importlib.import_module(f"tools.audit.probes.{name}")
        except ImportError as error:
            if not (error.name or "").startswith("app."):
                raise


def _examine(subject: Subject, steps: Iterable[Step]) -> dict[Step, StepResult]:
    """Return the results of the probes of some steps."""
    return {step: _examined(step, subject) for step in steps}


def _examined(step: Step, subject: Subject) -> StepResult:
    if ctrl_c.stopped.is_set():
        raise KeyboardInterrupt
    if step.id in PROBES:
        return examine(step, subject)
    evidence = "The code of this mitigation was removed: its probe can't be imported."
    return StepResult(step, (Finding(step.finding_id, "missing", evidence, step.fix),))


def _examine_in_two(subject: Callable[[Path], Subject], folder: Path) -> dict[Step, StepResult]:
    """Share the steps with a second process, which has its own copy of the app. Each takes the next one when ready."""
    fork = multiprocessing.get_context("fork")
    left, (ours, theirs) = fork.SimpleQueue(), fork.Pipe(duplex=False)
    for place in (*range(len(STEPS)), None, None):
        left.put(place)

    def take() -> Iterator[Step]:
        yield from (STEPS[place] for place in iter(left.get, None))

    def work() -> None:
        try:
            theirs.send(_examine(subject(folder / "second"), take()))
        except Exception as error:
            theirs.send(error)

    process = fork.Process(target=work, daemon=True)
    process.start()
    theirs.close()
    try:
        results = _examine(subject(folder), take())
        received: dict[Step, StepResult] | Exception = ours.recv()
        if isinstance(received, Exception):
            raise received
        return results | received
    finally:  # also after Ctrl-C: the process would go on writing to a folder that is being removed
        process.terminate()
        process.join()


def _report(results: Mapping[Step, StepResult], app: Flask, stated: list[Finding], folder: str) -> Report:
    """Add the facts that the real app reports: to the steps they are about, else to the deployment.

    A mitigation that the team has added gets its own row with only its facts, since no probe examines it.
    """
    left = stated
    rows = []
    for number, mitigation in MITIGATIONS.items():
        if mitigation.steps[0] not in results:
            continue
        steps = []
        for result in (results[step] for step in mitigation.steps):
            own = tuple(fact for fact in left if fact.id == result.step.finding_id)
            left = [fact for fact in left if fact not in own]
            steps.append(replace(result, findings=result.findings + own))
        rows.append(Row(number, mitigation.title, tuple(steps)))
    for part in app.extensions["parts"]:
        if (number := getattr(part, "NUMBER", 0)) and number not in MITIGATIONS:
            own = tuple(facts_of(part, app))
            left = [fact for fact in left if fact not in own]
            step = Step(f"{number}.S1", part.SUMMARY, "Add a probe to tools/audit/probes/")
            rows.append(Row(number, part.TITLE, (StepResult(step, own, "no probe of the audit examines it"),)))
    return Report(tuple(sorted(rows, key=lambda row: row.number)), tuple(left), folder)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Collect all logs in memory, and restore the handlers at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = io.StringIO()
    try:
        with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
            yield log
    finally:
        root.handlers, root.level = handlers, level
