"""The audit of other people's apps: what it says of the habits in ``tests/foreign``, and of what is no app at all.

Each row of the table is one app: steps and mitigations, with the state that is true of it and a word of the evidence
where it matters. The apps' views raise or write when they run, so an audit that ran one would not get these answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import App, Cookiecutter, files, outside

HERE = Path(__file__).parent / "foreign"
PINNED = "flask-wtf==1.3.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"

IMPLEMENTED, RELAXED, MISSING, NOT_APPLICABLE = "implemented", "relaxed", "missing", "not applicable"
Wanted = dict[str, tuple[str, str]]

# The app → each step's (or mitigation's) state, and a word of its reason or of its first findings ("" for any).
HABITS: dict[str, Wanted] = {
    "one_exempt_view": {
        "1.S2": (MISSING, "one_exempt_view.py:10: A default key is written in the code."),
        "1.S3": (IMPLEMENTED, ""),
        "2": (RELAXED, ""),
        "2.S2": (IMPLEMENTED, ""),
        "2.S5": (RELAXED, "POST /webhook accepts a missing token: it is exempt"),
        "2.S6": (RELAXED, "from another origin"),
        "9": (NOT_APPLICABLE, ""),
        "9.S5": (NOT_APPLICABLE, "no code accepts files"),
    },
    # A form of Flask-WTF checks its token where the view asks it to; a view without a form takes everything.
    "form_by_form:create_app": {
        "1.S2": (MISSING, "form_by_form.py:9: The key is written in the code."),
        "1.S3": (MISSING, "not read from the environment"),
        "2": (MISSING, ""),
        "2.S2": (IMPLEMENTED, ""),
        "2.S5": (MISSING, "POST / accepts a missing token: only its form checks the token, nothing before it."),
        "2.S6": (MISSING, "No route refuses"),
        "4.S1": (MISSING, "over http"),
    },
    # Not applicable, and not missing: the attack lives on what a browser sends by itself, and no code takes any of it.
    "token_api": {
        "1": (NOT_APPLICABLE, ""),
        "2": (NOT_APPLICABLE, ""),
        "2.S5": (NOT_APPLICABLE, "no code reads a session, a cookie or Basic credentials"),
        "4": (NOT_APPLICABLE, ""),
        "4.S1": (NOT_APPLICABLE, "no secret key"),
        "5.S2": (RELAXED, "No view can be reached (/items answers 401)"),
        "7.S2": (NOT_APPLICABLE, "no templates"),
        "7.S5": (RELAXED, "No view can be reached"),
        "8.S3": (MISSING, "Nothing limits /items."),
        "8.S4": (NOT_APPLICABLE, "the app has no sign-in"),
        "9": (NOT_APPLICABLE, ""),
        "10.S3": (NOT_APPLICABLE, "no templates"),
    },
    # The same kind of API, missing: a session goes with every request.
    "session_api": {
        "1.S4": (MISSING, "strong"),
        "2": (MISSING, ""),
        "2.S5": (MISSING, "POST /session accepts a missing token."),
        "4": (MISSING, ""),
        "8.S4": (MISSING, "No increasing delay"),
    },
    "behind_a_hook": {
        "2.S5": (MISSING, "POST /transfer is refused, but not because of the token"),
        "10.S2": (NOT_APPLICABLE, "no code redirects"),
        "10.S5": (MISSING, "Host: evil.example is accepted (200)."),
    },
    "blueprint_safe/app": {
        "1.S2": (IMPLEMENTED, ""),
        "1.S3": (IMPLEMENTED, ""),
        "2": (NOT_APPLICABLE, ""),
        "2.S4": (NOT_APPLICABLE, "no route accepts another method than GET"),
        "4.S1": (NOT_APPLICABLE, "no code uses a session"),
        "7.S2": (IMPLEMENTED, ""),
        "7.S3": (MISSING, "shop/pages/shop.html:2: |safe"),
        "7.S4": (IMPLEMENTED, ""),
        "10.S3": (IMPLEMENTED, ""),
    },
    # Flask-Talisman sends a policy with every response, but not a strict one; nobody has loosened one either.
    "talisman_defaults": {
        "1.S3": (IMPLEMENTED, ""),
        "3": (MISSING, ""),
        "3.S1": (RELAXED, "not pinned"),
        "3.S2": (IMPLEMENTED, ""),
        "3.S3": (MISSING, "script-src is missing, default-src replaces it."),
        "3.S5": (MISSING, "no report-uri"),
        "4.S1": (IMPLEMENTED, ""),
        "4.S2": (IMPLEMENTED, ""),
        "4.S3": (IMPLEMENTED, ""),
        "6.S3": (MISSING, "GET over http answers 302 https://localhost/."),
    },
    "limiter_on_one_route": {
        "8.S1": (MISSING, "70 requests in a row are accepted."),
        "8.S2": (MISSING, "70 requests are too few"),
        "8.S3": (MISSING, "70 POST /comments in a row are accepted."),
    },
    "behind_a_proxy": {
        "8.S1": (RELAXED, "not pinned"),
        "8.S2": (MISSING, "With X-Forwarded-For, one client gets as many requests as it likes."),
        "10.S5": (MISSING, "An absolute URL repeats X-Forwarded-Host."),
    },
    "next_redirect": {
        "10.S2": (MISSING, "next_redirect.py:13: The target of a redirect comes from a request."),
        "10.S4": (MISSING, "An unsafe redirect"),
    },
    "fixed_redirects": {"10.S2": (NOT_APPLICABLE, "no code redirects to a target from a request")},
    "uploads/app": {
        "9": (MISSING, ""),
        "9.S1": (RELAXED, "Files are accepted at app.py:17, and app.py:8 looks like this step"),
        "9.S2": (RELAXED, "no view runs here to prove it"),
        "9.S4": (MISSING, "nothing in the code looks like this step"),
        "9.S5": (RELAXED, "MAX_CONTENT_LENGTH"),
        "9.S6": (MISSING, "Files are accepted"),
    },
    "odd_routes:create_app('odd')": {
        "3.S4": (IMPLEMENTED, ""),
        "8.S3": (MISSING, "Nothing limits /<any(red, blue):colour>."),
        "10.S1": (MISSING, "A parameter that is given twice and read once answers 200."),
    },
    "no_routes": {
        "2": (NOT_APPLICABLE, ""),
        "2.S5": (NOT_APPLICABLE, "no route accepts another method than GET"),
        "3.S3": (NOT_APPLICABLE, "the app has no page"),
        "5": (NOT_APPLICABLE, ""),
        "10": (NOT_APPLICABLE, ""),
    },
    "broken_template/app": {
        "7.S2": (MISSING, "templates/old.html:3: The template can't be read, so nothing is known of it"),
        "7.S3": (MISSING, "templates/index.html:2: |safe"),
    },
}

# What is said of these words, in no evidence at all.
NEVER = {
    "limiter_on_one_route": ("/search", "POST /login in a row"),
    "blueprint_safe/app": ("logo.png", "www.example.com", "render_template_string", 'action=""'),
    "next_redirect": ("py:26: The target of a redirect", "py:31: The target of a redirect"),
    "odd_routes:create_app('odd')": ("The log does not show what failed.", "The key is in the log."),
    "one_exempt_view": ("POST /notes accepts", "<meta>"),
}

NO_APPS = {
    "nowhere": "ModuleNotFoundError: No module named 'nowhere'",
    "raises_at_import": "KeyError: 'A_SETTING_THAT_NOBODY_HAS_MADE'",
    "database_down": "OperationalError",
    "not_an_app": "Failed to find Flask application or factory in module 'not_an_app'.",
    "not_an_app:app": "A valid Flask application was not obtained",
    "not_an_app:nothing": "Failed to find attribute 'nothing' in 'not_an_app'.",
    "not_an_app:stops": "the app stopped with no settings",
    "not_an_app:wants": "The factory 'wants' in module 'not_an_app' could not be called",
    "not_an_app:gives_nothing": "A valid Flask application was not obtained",
    "not_an_app:wants(": "Failed to parse 'wants('",
}


@pytest.fixture(scope="module")
def ours(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app whose audit examines the foreign apps. No other test writes into it, as some do into that of all."""
    folder = tmp_path_factory.mktemp("ours")
    return Cookiecutter(template, folder / "out", folder / "home").app()


def audit(
    app: App, folder: Path, target: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [app.folder / ".venv/bin/python", "-m", "tools.audit", "--path", folder, target, *arguments]
    return subprocess.run(command, cwd=cwd or app.folder, env=outside(), capture_output=True, text=True, timeout=60)


def copied(name: str, folder: Path) -> str:
    """Put an app alone into a folder, and give its name there."""
    module = name.partition(":")[0]
    if "/" in module:
        shutil.copytree(HERE / module.partition("/")[0], folder, dirs_exist_ok=True)
    elif (HERE / f"{module}.py").exists():
        shutil.copy(HERE / f"{module}.py", folder)
    return name.partition("/")[2] or name


def told(step: dict[str, Any]) -> list[str]:
    return [step["reason"], *(found["evidence"] for found in step["findings"])]


@pytest.mark.parametrize("name", HABITS)
def test_the_audit_says_what_is_true_of_a_habit(name: str, default_app: App, ours: Path, tmp_path: Path) -> None:
    target = copied(name, tmp_path)
    if name == "one_exempt_view":
        (tmp_path / "requirements.txt").write_text(PINNED)
    before, own = files(tmp_path), set(ours.iterdir())
    ended = audit(default_app, tmp_path, target, "--format", "json", cwd=ours)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert files(tmp_path) == before
    assert set(ours.iterdir()) == own
    rows = json.loads(ended.stdout)["mitigations"]
    steps = {step["id"]: step for row in rows for step in row["steps"]}
    states = {str(row["number"]): row["state"] for row in rows} | {each: steps[each]["state"] for each in steps}
    wanted = HABITS[name]
    assert {each: states[each] for each in wanted} == {each: state for each, (state, _) in wanted.items()}
    for each, (_, word) in wanted.items():
        assert not word or any(word in text for text in told(steps[each])), told(steps[each])
    everything = [text for step in steps.values() for text in told(step)]
    for word in ("Traceback", "The probe failed", str(tmp_path), *NEVER.get(name, ())):
        # "shows Traceback" is what a probe may have seen.
        assert [text for text in everything if word in text and "and shows" not in text] == []


@pytest.mark.parametrize("name", NO_APPS)
def test_what_is_no_app_is_one_line_and_exit_2(name: str, default_app: App, tmp_path: Path) -> None:
    target = copied(name, tmp_path)
    before = files(tmp_path)
    ended = audit(default_app, tmp_path, target)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("The audit could not run: ")
    assert NO_APPS[name] in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert files(tmp_path) == before


def test_a_folder_that_is_not_there_is_one_line_and_exit_2(default_app: App, tmp_path: Path) -> None:
    ended = audit(default_app, tmp_path / "gone", "app")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no folder" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("output", ["text", "sarif", "html"])
def test_every_format_names_the_places_of_another_app(output: str, default_app: App, tmp_path: Path) -> None:
    ended = audit(default_app, tmp_path, copied("blueprint_safe/app", tmp_path), "--format", output)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "shop/pages/shop.html" in ended.stdout
    assert "app/shop" not in ended.stdout
    if output == "sarif":
        results = json.loads(ended.stdout)["runs"][0]["results"]
        place = next(each["locations"][0]["physicalLocation"] for each in results if each["ruleId"] == "TM03")
        assert place == {"artifactLocation": {"uri": "shop/pages/shop.html"}, "region": {"startLine": 2}}


def test_an_app_of_this_template_is_audited_as_any_other(default_app: App, cookiecutter: Cookiecutter) -> None:
    """Its modules have the names of the audit's own, and its .env and its commands are left alone."""
    folder = cookiecutter.app("lessons=no")  # their pages are insecure on purpose
    before, key = files(folder), (default_app.folder / ".env").read_bytes()
    ended = audit(default_app, folder, "app:create_app", "--format", "json")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert (files(folder), (default_app.folder / ".env").read_bytes()) == (before, key)
    states = {row["number"]: row["state"] for row in json.loads(ended.stdout)["mitigations"]}
    assert {number for number, state in states.items() if state == IMPLEMENTED} >= {3, 4, 5, 6}
    assert states[2] == RELAXED  # the reports of violations are exempt, and another app's reasons are not believed
