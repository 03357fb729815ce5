"""The audit of a generated app: nothing to fix, nothing touched, and readable by people and programs.

These tests use the modules of the app and of its tools: tests/test_audit.py runs them in a generated app.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
from app import create_app, paths, settings
from app.project import TEMPLATE_VERSION
from app.security.findings import facts
from app.visitors import public, visitors
from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue
from pydantic import Field
from tools.audit import yours
from tools.audit.mitigations import MITIGATIONS
from tools.audit.report import FORMATS
from tools.audit.results import Report
from tools.audit.run import audit_own

from tests.conftest import KEY, ROOT

Factory = Callable[[Mapping[str, object] | None], Flask]
STEPS_OF = {1: 5, 2: 6, 3: 5, 4: 5, 5: 5, 6: 5, 7: 5, 8: 5, 9: 7, 10: 5}


def audited(app_config: dict[str, object], only: int = 0, factory: Factory = create_app, **changes: object) -> Report:
    """Audit the app, or one mitigation, with these settings in its environment, as a server has them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (app_config | changes).items():
            patch.setenv(name, str(value))
        return audit_own(factory, only=only)


def stated(report: Report, *severities: str) -> list[tuple[str, str, str]]:
    """Its findings, by default those that weaken a step."""
    wanted = severities or ("relaxed", "missing")
    findings = [found for row in report.rows for found in row.findings]
    return [(found.id, found.severity, found.evidence) for found in findings if found.severity in wanted]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ENV_FILE", folder / ".env")
        config: dict[str, object] = {"SECRET_KEY": KEY, "UPLOAD_DIR": folder / "uploads"}
        if "DATABASE_URL" in settings.Settings.model_fields:
            config["DATABASE_URL"] = f"sqlite:///{folder / 'app.db'}"
        return audited(config)


def test_each_of_the_53_steps_is_implemented(report: Report) -> None:
    assert stated(report) == []
    assert {row.number: [result.step.id for result in row.steps] for row in report.rows} == {
        number: [f"{number}.S{step}" for step in range(1, steps + 1)] for number, steps in STEPS_OF.items()
    }
    assert {result.state for row in report.rows for result in row.steps} == {"implemented"}
    assert sum(len(mitigation.steps) for mitigation in MITIGATIONS.values()) == 53


def test_what_is_open_to_everybody_is_listed_in_an_app_with_accounts(report: Report) -> None:
    listed = "".join(evidence for finding, _, evidence in stated(report, "note") if finding == "UP07").split(", ")
    if "DATABASE_URL" not in settings.Settings.model_fields:
        assert listed == [""]
        return
    assert listed[1].endswith(" /")
    assert {"/login", "/register", "/healthz"} < set(listed)
    assert {"/account", "/uploads", "/account/delete"}.isdisjoint(listed)


# What a team may set as it likes is no finding.
@pytest.mark.parametrize(
    "changes",
    [
        {"PERMANENT_SESSION_LIFETIME": 60, "SESSION_ABSOLUTE_LIFETIME": 60},
        {"PERMANENT_SESSION_LIFETIME": 86400, "SESSION_ABSOLUTE_LIFETIME": 604800, "LOG_FORMAT": "json"},
        {"SESSION_COOKIE_SAMESITE": "Strict", "HSTS_PRELOAD": True, "TRUSTED_PROXY_HOPS": 3},
        {"UPLOAD_EXTENSIONS": "png", "UPLOAD_QUOTA_FILES": 1, "UPLOAD_QUOTA_BYTES": 1, "MAX_CONTENT_LENGTH": 1024},
        {"RATELIMIT_DEFAULT": "5 per hour", "ALLOWED_REDIRECT_HOSTS": "a.example,b.example"},
        {"TRUSTED_HOSTS": "www.example.com,example.com", "SERVER_NAME": "example.com:8443"},
    ],
)
def test_no_setting_within_its_range_is_a_finding(app_config: dict[str, object], changes: dict[str, object]) -> None:
    """The probes attack a copy that has settings of their own: of the team's settings, only facts remain."""
    assert [fact for fact in facts(create_app(app_config | changes)) if fact.severity != "note"] == []


def test_what_is_loosened_on_purpose_is_relaxed(app_config: dict[str, object]) -> None:
    loose = audited(app_config, 3, CSP_REPORT_ONLY=True)
    assert [(finding, severity) for finding, severity, _ in stated(loose)] == [("CP04", "relaxed")]
    assert (loose.exit_code(strict=False), loose.exit_code(strict=True)) == (0, 1)


def test_what_is_missing_is_shown_with_its_evidence_and_fix(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.security.headers.headers_with", lambda _: ())
    found = audited(app_config, 6)
    assert found.exit_code(strict=False) == 1
    assert [row.state for row in found.rows] == ["missing"]
    page = FORMATS["text"](found)
    assert "! 6.S4" in page
    assert "fix: Let app/security/headers.py set the headers" in page


def test_the_table_says_it_all(report: Report) -> None:
    lines = FORMATS["text"](report).splitlines()
    assert lines[0] == f"The audit of template version {TEMPLATE_VERSION}"
    assert lines[2].split() == ["1", "Secret", "key", "implemented"]
    assert sum(line.startswith("   + ") for line in lines) == 53
    assert lines[-1] == "10 mitigations: 10 implemented"


def test_sarif_has_a_rule_a_step(report: Report) -> None:
    run = json.loads(FORMATS["sarif"](report))["runs"][0]
    steps = {f"{number}.S{step}" for number, steps in STEPS_OF.items() for step in range(1, steps + 1)}
    assert {rule["name"] for rule in run["tool"]["driver"]["rules"] if "name" in rule} == steps
    assert {result["level"] for result in run["results"]} == {"note"}  # facts of the deployment


def test_html_is_one_page_without_scripts(report: Report) -> None:
    page = FORMATS["html"](report)
    assert [mitigation.title for mitigation in MITIGATIONS.values() if mitigation.title not in page] == []
    assert "<script" not in page
    assert "src=" not in page
    assert "href=" not in page


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def audit_command(**environment: str) -> subprocess.CompletedProcess[str]:
    # Without this app's settings, so that the environment of whoever runs the tests does not count.
    clean = {name: value for name, value in os.environ.items() if name not in settings.Settings.model_fields}
    command = [sys.executable, "-m", "tools.audit"]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=60)


def test_nothing_of_the_real_app_is_touched(app_config: dict[str, object], tmp_path: Path) -> None:
    """Neither its database and its files, nor the places that are still missing."""
    before = state_of(tmp_path)
    changed = {"UPLOAD_DIR": f"{tmp_path}/new/uploads", "DATABASE_URL": app_config.get("DATABASE_URL", "")}
    environment = {name: str(value) for name, value in {**app_config, **changed}.items() if value}
    ended = audit_command(**environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert state_of(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_in_production_it_asks_none_of_the_services_and_knows_them_all() -> None:
    """Each service is a socket, to which the audit must not connect. All settings of production are set."""
    with ExitStack() as stack:
        services = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        database, redis, scanner, mail = (f"127.0.0.1:{service.getsockname()[1]}" for service in services)
        production = {
            "SECRET_KEY": KEY,
            "DATABASE_URL": f"postgresql://app:secret@{database}/app",
            "RATELIMIT_STORAGE_URI": f"redis://{redis}/0",
            "CLAMD_URL": f"tcp://{scanner}",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": mail.rpartition(":")[2],
            "MAIL_DEFAULT_SENDER": "app@www.example.com",
            "TRUSTED_HOSTS": "www.example.com",
            "SERVER_NAME": "www.example.com",
            "TRUSTED_PROXY_HOPS": "1",
            "REQUEST_ID_HEADER": "X-Request-ID",
            "LOG_FORMAT": "json",
            "WEB_CONCURRENCY": "2",
            "THREADS": "32",
        }
        ended = audit_command(**production)
        for service in services:
            service.setblocking(False)
            with pytest.raises(BlockingIOError):
                service.accept()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.rstrip().endswith("10 mitigations: 10 implemented")
    assert re.findall(r"\bDP\d+", ended.stdout) == ["DP01"]  # nobody reads the address for reports


def test_ctrl_c_ends_it_without_a_word_and_leaves_nothing(tmp_path: Path) -> None:
    """Exit code 1 would say that something is missing."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tools.audit"],
        cwd=ROOT,
        env=os.environ | {"SECRET_KEY": KEY, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # A background job of a script ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(tmp_path.glob("audit-*/*")) and started.poll() is None:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)
    assert started.communicate()[0] == b""
    assert started.returncode in (130, -signal.SIGINT)  # a shell shows 130 for both
    assert list(tmp_path.iterdir()) == []


def test_an_upload_folder_that_others_can_open_is_reported_and_left_as_it_is(
    app_config: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (fact,) = [fact for fact in facts(create_app(app_config | {"UPLOAD_DIR": tmp_path / "open"})) if fact.id == "UP03"]
    assert (fact.severity, "055" in fact.evidence) == ("relaxed", True)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("setting", "value"),
    [("SECRET_KEY", "weak"), ("UPLOAD_DIR", str(ROOT / "app/static/uploads")), ("TRUSTED_HOSTS", "https://a.example")],
)
def test_an_app_that_does_not_start_is_one_line_and_exit_2(setting: str, value: str) -> None:
    ended = audit_command(**{"SECRET_KEY": KEY, setting: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("The audit could not run: ")
    assert f"{setting}: " in ended.stderr
    assert "Traceback" not in ended.stderr


OVERLAY = """
NUMBER = 11
TITLE = "Eleventh"
SUMMARY = "What the team has added."


def init_app(app):
    pass
"""


def test_a_setting_without_a_default_has_its_value_for_the_audit_alone(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithAccount(settings.Settings):
        PAYMENT_ACCOUNT: int = Field(description="The account.", examples=["7"])

    monkeypatch.setattr(settings, "Settings", WithAccount)
    monkeypatch.setattr("tools.audit.run.STEPS", MITIGATIONS[1].steps)
    with pytest.raises(settings.SettingsError, match="PAYMENT_ACCOUNT: "):
        audited(app_config)
    monkeypatch.setattr(yours, "_table", lambda: {"settings": {"PAYMENT_ACCOUNT": 7}})
    for set_here, notes in (("", ["PAYMENT_ACCOUNT is not set here."]), ("8", [])):
        report = audited(app_config, PAYMENT_ACCOUNT=set_here)
        assert [fact.evidence for fact in report.deployment if fact.id == "DP06"] == notes
        assert stated(report) == []
    with pytest.raises(settings.SettingsError, match=r"PAYMENT_ACCOUNT: .*eight"):  # what is set here is not replaced
        audited(app_config, PAYMENT_ACCOUNT="eight")
    with pytest.raises(settings.SettingsError, match="PAYMENT_ACCOUNT: "):
        create_app(app_config)


def with_stream(config: Mapping[str, object] | None = None) -> Flask:
    """The app with events that never end."""

    def events() -> Iterator[str]:
        while True:
            yield "data: x\n\n"
            time.sleep(0.2)

    app = create_app(config)
    app.add_url_rule("/events", "events", public(lambda: Response(events(), mimetype="text/event-stream")))
    return app


@pytest.mark.parametrize("only", [4, 5, 6])
def test_a_stream_that_never_ends_does_not_stop_the_audit(app_config: dict[str, object], only: int) -> None:
    assert stated(audited(app_config, only, with_stream)) == []


def test_a_cookie_that_scripts_read_is_relaxed(app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'answer.set_cookie("__Host-theme", "dark", secure=True, samesite="Lax")'
    monkeypatch.setattr("tools.audit.subject.trees_of", lambda _: {"app/views/theme.py": ast.parse(code)})
    relaxed = [evidence for _, severity, evidence in stated(audited(app_config, 4)) if severity == "relaxed"]
    assert relaxed == ["app/views/theme.py:1: A cookie is set without httponly."]


def with_terms(config: Mapping[str, object] | None = None) -> Flask:
    """The app of a team whose members must accept new terms first."""
    app = create_app(config)
    app.add_url_rule("/terms", "terms", lambda: "Please accept our terms.")

    @app.before_request
    def ask() -> ResponseReturnValue | None:
        asked = app.config.get("ASK_FOR_TERMS", True) and visitors().account_id() and request.path != "/terms"
        return redirect("/terms") if asked else None

    return app


def test_members_who_are_sent_elsewhere_are_one_line_and_a_setting_lets_them_in(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "DATABASE_URL" in settings.Settings.model_fields:
        with pytest.raises(settings.SettingsError, match=r"sent to /terms, .* \[tool.audit\]"):
            audited(app_config, 4, with_terms)

    class WithTerms(settings.Settings):
        ASK_FOR_TERMS: bool = Field(description="Ask members to accept the terms.", examples=["1"])

    monkeypatch.setattr(settings, "Settings", WithTerms)
    monkeypatch.setattr(yours, "_table", lambda: {"settings": {"ASK_FOR_TERMS": False}})
    assert stated(audited(app_config, 4, with_terms)) == []


def test_a_part_with_a_number_of_its_own_is_one_more_row(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("eleventh")
    exec(OVERLAY, module.__dict__)  # noqa: S102
    made = create_app

    def with_eleven(config: Mapping[str, object] | None = None) -> Flask:
        app = made(config)
        app.extensions["parts"] = (*app.extensions["parts"], module)
        return app

    monkeypatch.setitem(app_config, "FLASK_DEBUG", "")
    monkeypatch.setattr("tools.audit.run.STEPS", MITIGATIONS[5].steps)  # all of them would take most of the time
    with pytest.MonkeyPatch.context() as patch:
        for name, value in app_config.items():
            patch.setenv(name, str(value))
        report = audit_own(with_eleven)
    assert [row.number for row in report.rows] == [5, 11]
    assert (report.rows[-1].number, report.rows[-1].title, report.rows[-1].state) == (11, "Eleventh", "not applicable")
    for form in FORMATS.values():
        assert "Eleventh" in form(report) or form is FORMATS["sarif"]
    assert report.exit_code(strict=True) == 0
