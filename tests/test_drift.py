"""An app and its template part: what ``make drift`` says of it, and what cruft and cookiecutter then do and keep."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import AUTHOR, App, Cookiecutter, commit, edit, files, outside
from tests.grown import recipes

ROOT = Path(__file__).resolve().parent.parent
CRUFT = (sys.executable, "-m", "cruft")
VERSION = re.search(r'TEMPLATE_VERSION = "(.+)"', (ROOT / APP / "app/project.py").read_text())[1]


def run(cwd: Path, *command: str | Path, code: int = 0, **environment: str) -> str:
    """Run a command, which has to end with ``code``, and give what it prints, with the errors if that is 2 or more."""
    ended = subprocess.run(command, cwd=cwd, env=outside() | environment, capture_output=True, encoding="utf-8")
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr if code > 1 else ended.stdout


def tree(folder: Path) -> str:
    """A sum of all files; of git's, of its index."""
    content = {name: text for name, text in files(folder).items() if name == ".git/index" or name[:5] != ".git/"}
    return hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()


@dataclass
class Team:
    """A template in git, and an app of it, committed."""

    template: Path
    app: Path
    cookiecutter: Cookiecutter
    python: Path

    def drift(self, code: int, **environment: str) -> str:
        """``make drift``, which has to end with ``code``, to change nothing and to leave nothing behind."""
        before, temporary = tree(self.app), self.app.parent / "temporary"
        temporary.mkdir(exist_ok=True)
        places = {"PYTHONDONTWRITEBYTECODE": "", "TMPDIR": str(temporary)}
        told = run(self.app, self.python, "-B", "-m", "tools.drift", code=code, **places, **environment)
        assert tree(self.app) == before
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in told
        return told

    def cruft(self, *arguments: str, code: int = 0) -> str:
        return run(self.app, *CRUFT, *arguments, code=code, HOME=str(self.cookiecutter.home))

    def release(self, version: str, changes: dict[str, tuple[str, str]]) -> None:
        """A new version of the template: its number, its part of the upgrade guide, and changes of the app."""
        edit(self.template / APP, changes)
        project, guide = self.template / APP / "app/project.py", self.template / "docs/upgrading.md"
        project.write_text(re.sub(r'(?<=TEMPLATE_VERSION = ")[^"]+', version, project.read_text()))
        guide.write_text(guide.read_text().replace("\n## ", f"\n## {version}\n\nBy hand for {version}.\n\n## ", 1))
        commit(self.template)


# In place of the audit, which takes longer than the rest of a test: few tests here are about it. It looks at the app
# where it runs, as the audit does.
ALL_IMPLEMENTED = """
import json, pathlib
state = "implemented" if pathlib.Path("app/templates/base.html").exists() else "missing"
rows = [{"number": n, "title": f"Mitigation {n}", "state": state, "steps": []} for n in range(1, 11)]
print(json.dumps({"mitigations": rows}))
"""


@pytest.fixture(scope="session")
def teams(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A folder with a template in git and a new app of it, which tests copy; with ``True``, the audit is real."""

    @cache
    def made(audited: bool) -> Path:
        folder = tmp_path_factory.mktemp("team")
        source = folder / "cookiecutter-secure-flask"
        shutil.copytree(template, source)
        if not audited:
            (source / APP / "tools/audit/__main__.py").write_text(ALL_IMPLEMENTED)
        commit(source)
        run(source, "git", "gc", "--quiet")  # a copy is then one of few files
        Cookiecutter(source, folder / "out", folder / "home").app()
        return folder

    return made


@pytest.fixture
def team(request: pytest.FixtureRequest, teams: Callable[[bool], Path], tmp_path: Path, default_app: App) -> Team:
    """The app has a stub in place of its audit, which says *implemented*, unless the test is marked ``audited``."""
    made = teams(request.node.get_closest_marker("audited") is not None)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    # What tells where the template is: the app, and what cookiecutter remembers.
    for path in (tmp_path / "out/secure-flask-app/.cruft.json", *(tmp_path / "home/.cookiecutter_replay").iterdir()):
        path.write_text(path.read_text().replace(str(made), str(tmp_path)))
    source, app = tmp_path / "cookiecutter-secure-flask", tmp_path / "out/secure-flask-app"
    commit(app)
    return Team(
        source, app, Cookiecutter(source, tmp_path / "out", tmp_path / "home"), default_app.folder / ".venv/bin/python"
    )


def test_a_fresh_app_has_no_drift(team: Team) -> None:
    os.utime(team.app / "wsgi.py", (0, 0))  # what git status would note in its index
    assert team.drift(0).endswith("\nNo drift.\n")
    assert team.cruft("diff") == ""
    team.cruft("check")


def test_generating_writes_what_cruft_create_writes(team: Team, tmp_path: Path) -> None:
    (tmp_path / "cruft").mkdir()
    run(tmp_path / "cruft", *CRUFT, "create", team.template, "--no-input", HOME=str(tmp_path / "home"))
    one, other = (files(app) for app in (team.app, tmp_path / "cruft/secure-flask-app"))
    assert [name for name in one if not name.startswith(".git/") and one[name] != other[name]] == [".env"]
    key = one[".env"].decode().partition("=")[2].strip()
    assert key not in one[".cruft.json"].decode()


# What the team did in a year, and where. The first five weaken a mitigation: the number of its row, the step.
WEAKENED = {
    "app/security/csp.py": (3, "3.S3", '"style-src": "\'self\'"', "\"style-src\": \"'self' 'unsafe-inline'\""),
    "app/security/csrf.py": (
        2,
        "2.S5",
        "declared(EXEMPT) is None",
        'declared(EXEMPT) is None and request.endpoint != "uploads.delete"',
    ),
    "app/templates/uploads.html": (7, "7.S3", "<bdi>{{ file.name }}</bdi>", "<bdi>{{ file.name|safe }}</bdi>"),
    "app/settings.py": (4, "4.S4", "        default=3600,", "        default=86400,"),
    "app/security/rate_limits.py": (8, "8.S3", '"sign_in": "20 per minute; 100', '"sign_in": "2000 per minute; 10000'),
}
HARMLESS = {
    "README.md": ("## Find your way", "## Our own way"),
    "app/project.py": ("A Flask app with ten security mitigations wired in.", "A shop for bicycles."),
    "app/templates/home.html": ("Your files", "Our files"),
    "app/static/app.css": ("[hidden] {", "/* ours */\n[hidden] {"),
    "SECURITY.md": ("# Security", "# Our security"),
}
EDITS = HARMLESS | {name: (before, after) for name, (_, _, before, after) in WEAKENED.items()}

VERSIONS: dict[str, dict[str, tuple[str, str]]] = {
    # Beside what the team changed, and where it did not.
    "9.1.0": {
        "app/security/csp.py": ("Nothing inline, nothing from elsewhere;", "Nothing inline, nothing from others;"),
        "wsgi.py": ("The app for a production server", "The app for production (9.1.0)"),
    },
    # On the very line that the team changed.
    "9.2.0": {
        "app/templates/home.html": (">Your files<", ">All files<"),
        "app/security/headers.py": ('    "X-Frame-Options": "DENY",\n', '    "X-Frame-Options": "DENY",  # 9.2.0\n'),
    },
    "9.3.0": {"gunicorn.conf.py": ("How gunicorn serves", "How gunicorn (9.3.0) serves")},
}


UPLOAD = f"instance/uploads/session-{'0' * 32}/{'1' * 32}"


@pytest.fixture
def year(team: Team) -> Team:
    """Ten edits, files of the team's own; three versions of the template, which also adds, moves and drops files."""
    edit(team.app, EDITS)
    (team.app / "app/shop.py").write_text("OURS = 1\n")
    (team.app / UPLOAD).parent.mkdir(parents=True)
    (team.app / "instance/uploads").chmod(0o700)
    (team.app / UPLOAD).write_text("a visitor's")
    commit(team.app)
    for version, changes in VERSIONS.items():
        (team.template / APP / f"docs/new-in-{version}.md").write_text(f"# {version}\n")
        if version == "9.2.0":
            lessons = team.template / APP / "docs/lessons"
            (lessons / "09-file-uploads.md").rename(lessons / "09-uploads.md")
            (lessons / "10-redirects-and-urls.md").unlink()
        team.release(version, changes)
    return team


def section(told: str, title: str) -> str:
    """The part of a report below a title."""
    return re.search(rf"(?ms)^{title}[^\n]*\n(.*?)(?=^\n|^$|\Z)", told)[1]


@pytest.mark.audited
def test_a_year(year: Team) -> None:
    """Drift names all that happened; cruft takes the template's, keeps the team's; once that is fixed, all is green."""
    app, env = year.app, (year.app / ".env").read_bytes()

    told = year.drift(1)
    assert f"generated from  {VERSION} (" in told
    assert "the newest is   9.3.0 (" in told
    mine, theirs, both = (
        section(told, title) for title in ("Changed by you", "Changed by the template", "Changed by both")
    )
    shared = {"app/project.py", "app/security/csp.py", "app/templates/home.html"}
    assert {line.split()[0] for line in mine.splitlines()} == EDITS.keys() - shared
    assert {line.split()[0] for line in both.splitlines()} == shared
    assert {(line.split()[0], *line.split()[1:]) for line in theirs.splitlines()} == {
        ("wsgi.py", "+1", "-1"),
        ("gunicorn.conf.py", "+1", "-1"),
        ("app/security/headers.py", "+1", "-1"),
        ("docs/lessons/09-file-uploads.md", "moved", "to", "docs/lessons/09-uploads.md"),
        ("docs/lessons/10-redirects-and-urls.md", "removed"),
        *((f"docs/new-in-{version}.md", "added") for version in VERSIONS),
    }
    assert section(told, "Yours alone").split() == ["app/shop.py"]
    security = section(told, "The security files among these")
    rows = section(told, "The audit, of the app as generated")
    for name, (row, step, _, _) in WEAKENED.items():
        assert re.search(rf"(?m)^ *{row} \S.* implemented -> (relaxed|missing)$", rows), rows
        assert re.search(rf"(?m)^ *{re.escape(step)} ", rows), rows
        assert f"  {name}  by " in security
    assert "weaker: mitigation 2, 3, 4, 7, 8." in told
    assert re.findall(r"(?m)^  By hand for (\S+)\.$", told) == list(VERSIONS)

    assert "out of date" in year.cruft("check", code=1)
    patch = year.cruft("diff")
    assert set(re.findall(r"(?m)^diff --git upstream-template-old/(\S+)", patch)) == EDITS.keys()
    year.cruft("update", "--skip-apply-ask")
    year.cruft("check")
    newest = files(year.cookiecutter.app("project_slug=newest"))
    now = files(app)
    assert (app / ".env").read_bytes() == env
    assert now[UPLOAD] == b"a visitor's"
    assert now["app/shop.py"] == b"OURS = 1\n"
    for name, (_, after) in EDITS.items():
        assert after.encode() in now[name], name
    for changes in VERSIONS.values():
        for name, (_, after) in changes.items():
            assert after.encode() in now[name], name
    assert not {"docs/lessons/09-file-uploads.md", "docs/lessons/10-redirects-and-urls.md"} & now.keys()
    for name in newest.keys() - EDITS.keys() - {".env", ".cruft.json", "pyproject.toml"}:
        assert now[name].replace(b"secure-flask-app", b"newest") == newest[name], name
    assert [name for name in now if name.endswith(".rej")] == []
    assert [name for name, content in now.items() if re.search(rb"(?m)^<<<<<<< ", content)] == [
        "app/templates/home.html"
    ]

    # The conflict is settled, the template's way; and what weakens is undone, where the report says.
    run(app, "git", "checkout", "--theirs", "--", "app/templates/home.html")
    edit(app, {name: (after, before) for name, (_, _, before, after) in WEAKENED.items()})
    commit(app)
    told = year.drift(1)
    assert "generated from  9.3.0 (" in told
    assert section(told, "Changed by you").split()[::3] == [
        "README.md",
        "SECURITY.md",
        "app/project.py",
        "app/static/app.css",
    ]
    assert told.endswith("no mitigation weaker.\n")
    # It is the newest app with edits that harm nothing, so its own tests would say what they say of that one.
    for name in EDITS.keys() - {"app/templates/home.html"}:
        text = newest[name].decode().replace(*HARMLESS.get(name, ("", "")))
        assert (app / name).read_text().replace("secure-flask-app", "newest") == text, name
    assert (app / "app/templates/home.html").read_bytes() == newest["app/templates/home.html"]


# What the template changes in an app that grew by the cookbook: beside the recipes' lines, and on them.
BESIDE = {
    "app/settings.py": ("All settings: their names,", "All settings (9.1.0): their names,"),
    "app/storage/content.py": ("HEAD = 1024  # bytes", "HEAD = 1024  # bytes (9.1.0)"),
    "app/security/csp.py": ("Nothing inline, nothing from elsewhere;", "Nothing inline, nothing from others;"),
}
ON_THEM = {"deploy/nginx.conf": ("client_max_body_size 11m;", "client_max_body_size 12m;")}


def test_an_app_that_grew_by_the_cookbook(team: Team) -> None:
    """What the recipes made and changed stays, also where the template changes it; drift tells whose it is."""
    for recipe in recipes():
        recipe.lay_over(team.app, fetch=False)
    commit(team.app)
    blocks = [(language, name) for recipe in recipes() for language, name, _ in recipe.blocks]
    changed = {"app/views/__init__.py", *(name for language, name in blocks if language == "diff")}
    made = {name for _, name in blocks} - changed
    team.release("9.1.0", BESIDE)
    team.release("9.2.0", ON_THEM)

    told = team.drift(1)
    mine, both = (section(told, title) for title in ("Changed by you", "Changed by both"))
    shared = {"app/settings.py", "app/storage/content.py", "deploy/nginx.conf"}
    assert {line.split()[0] for line in mine.splitlines()} == changed - shared
    assert {line.split()[0] for line in both.splitlines()} == shared
    assert set(section(told, "Yours alone").split()) == made

    before = files(team.app)
    team.cruft("update", "--skip-apply-ask")
    now = files(team.app)
    assert {name for name in made | changed - shared if now[name] != before[name]} == set()
    assert [name for name, content in now.items() if re.search(rb"(?m)^<<<<<<< ", content)] == ["deploy/nginx.conf"]
    assert [name for name in now if name.endswith(".rej")] == []
    for name, (_, after) in BESIDE.items():
        assert after.encode() in now[name], name
    assert b"OIDC_ISSUER" in now["app/settings.py"]
    assert b'"docx"' in now["app/storage/content.py"]
    assert section(team.drift(1), "Left by an update") == "  deploy/nginx.conf\n"


def damaged(team: Team) -> None:
    (team.app / ".cruft.json").write_text("{")


def restate(team: Team, **changes: object) -> None:
    """Change .cruft.json."""
    state = json.loads((team.app / ".cruft.json").read_text())
    (team.app / ".cruft.json").write_text(json.dumps(state | changes))


def without_a_commit(team: Team) -> None:
    restate(team, commit=None)


def unlinked(team: Team) -> None:
    (team.app / ".cruft.json").unlink()


def moved(team: Team) -> None:
    team.template.rename(team.template.with_name("elsewhere"))


def cut(team: Team) -> None:
    """The template is a shallow clone, and the app's commit is older than that."""
    team.release("9.1.0", {})
    whole = team.template.rename(team.template.with_name("whole"))
    run(whole.parent, "git", "clone", "--quiet", "--depth=1", whole.as_uri(), team.template)


def refused(team: Team) -> None:
    """The template no longer offers what was answered."""
    path = team.template / "cookiecutter.json"
    path.write_text(path.read_text().replace('"MIT", ', ""))
    commit(team.template)


def behind_a_password(team: Team) -> None:
    restate(team, template="https://ann:hunter2@b@localhost:1/a.git?key=hunter2")


def given_code_to_run(team: Team) -> None:
    """cookiecutter renders the answers, so one can run what it likes."""
    code = "# % set x = cycler.__init__.__globals__.os.system('touch ran')"
    restate(team, context={"cookiecutter": {"author_name": code}})


def given_what_the_hook_refuses(team: Team) -> None:
    restate(team, context={"cookiecutter": {"author_name": "a`b"}})


def of_somebody_else(team: Team) -> None:
    """git asks no repository of another user's."""
    if os.geteuid():
        pytest.skip("only root can give a file away")
    for path in [team.app, team.app / ".git"]:
        os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (damaged, "The drift can't be known: .cruft.json is damaged (JSONDecodeError: "),
        (without_a_commit, "The drift can't be known: .cruft.json is damaged (TypeError: "),
        (unlinked, "The drift can't be known: There is no .cruft.json, so"),
        (
            moved,
            "The drift can't be known: The template /.*/cookiecutter-secure-flask can't be cloned .* See the address",
        ),
        (behind_a_password, "The drift can't be known: The template https://localhost:1/a.git can't be cloned "),
        (cut, "The drift can't be known: The template /.* has no commit [0-9a-f]{12} .*a shallow clone"),
        (refused, "The drift can't be known: The template at [0-9a-f]{12} generates no app from the answers .*MIT"),
        (
            given_what_the_hook_refuses,
            "The drift .* generates no app from the answers in .cruft.json: author_name: 'a`b' has '`'",
        ),
        (
            given_code_to_run,
            "The drift can't be known: .cruft.json is damaged (ValueError: Jinja code in author_name",
        ),
        (
            of_somebody_else,
            "The drift can't be known: fatal: detected dubious ownership .* git config .*safe.directory",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_can_t_be_known_is_one_line_and_exit_2(team: Team, spoil: Callable[[Team], None], line: str) -> None:
    spoil(team)
    told = team.drift(2)
    assert len(told.splitlines()) == 1
    assert "hunter2" not in told
    assert re.match(re.sub(r"\(", r"\(", line), told)


AUDIT = Path("tools/audit/__main__.py")
FAILS = "raise SystemExit('no audit')\n"


def test_an_audit_that_can_t_run_leaves_the_rest_of_the_report(team: Team) -> None:
    (team.app / AUDIT).write_text(FAILS)
    told = team.drift(2)
    assert f"  {AUDIT}  +1 -" in told
    assert told.splitlines()[-1].startswith("The drift can't be known: the audit of this app could not run")


def test_without_the_audit_of_the_app_as_generated_weaker_or_not_is_open(team: Team) -> None:
    (team.template / APP / AUDIT).write_text(FAILS)
    commit(team.template)
    team.app = team.cookiecutter.app("project_slug=broken")
    (team.app / AUDIT).write_text(ALL_IMPLEMENTED)
    commit(team.app)
    told = team.drift(2)
    assert told.splitlines()[-1].startswith("The drift can't be known: the audit of the app as generated could not run")
    assert f"  {AUDIT}  +" in told


def test_it_is_asked_of_this_folder_s_git_whatever_a_git_hook_says(team: Team, tmp_path: Path) -> None:
    led_astray = {"GIT_DIR": str(team.template / ".git"), "GIT_INDEX_FILE": str(tmp_path / "none")}
    told = team.drift(0, **led_astray)
    assert told.endswith("\nNo drift.\n")
    assert "is not committed" not in told


def test_a_template_s_folder_that_is_a_link_and_names_that_bite_terminals(team: Team) -> None:
    """The audit looks at the app where it is, so what git or a copy would leave out is there."""
    (team.app / "app/templates").rename(team.app / "pages")
    (team.app / "app/templates").symlink_to("../pages")
    (team.app / "a\x1b[2Jb\nNo drift.txt").write_text("ours")
    told = team.drift(0)
    assert "  a\\x1b[2Jb\\nNo drift.txt\n" in told
    assert told.endswith("\nNo drift.\n")


def test_what_an_update_can_t_bring_to_a_file_that_moved_is_told_before_it(team: Team) -> None:
    """Nor to one that is a link; and then, to none that is new on both sides. No other is named."""
    (team.app / "wsgi.py").rename(team.app / "server.py")
    (team.app / "gunicorn.conf.py").rename(team.app / "elsewhere.py")
    (team.app / "gunicorn.conf.py").symlink_to("elsewhere.py")
    (team.app / "app/shop.py").write_text("OURS = 1\n")
    commit(team.app)
    (team.template / APP / "app/shop.py").write_text("THEIRS = 1\n")
    team.release(
        "9.1.0",
        {
            "wsgi.py": ("The app for a production server", "The app for production"),
            "gunicorn.conf.py": ("How gunicorn serves", "How gunicorn (9.1.0) serves"),
            "SECURITY.md": ("# Security", "# The security"),
        },
    )
    told = section(team.drift(1), "To take the template's changes")
    assert re.findall(r"(?m)^    (\S+)$", told) == ["gunicorn.conf.py", "wsgi.py", "app/shop.py"]


def test_what_an_update_does_to_files_that_the_template_moved_is_told_before_it(team: Team) -> None:
    """The template moves a folder, in which one path is taken here, and removes a file that the team edited."""
    key, own = "01-secret-key.md", "11-ours.md"
    edit(team.app, {"SECURITY.md": HARMLESS["SECURITY.md"], f"docs/lessons/{key}": ("# Lesson 1", "# Our lesson 1")})
    (team.app / "docs/course").mkdir()
    for path in (f"docs/lessons/{own}", "docs/course/02-csrf.md"):
        (team.app / path).write_text("ours\n")
    commit(team.app)
    (team.template / APP / "docs/lessons").rename(team.template / APP / "docs/course")
    (team.template / APP / "SECURITY.md").unlink()
    hook = team.template / "hooks/pre_gen_project.py"
    hook.write_text(hook.read_text().replace("docs/lessons", "docs/course"))
    team.release("9.1.0", {})
    told = team.drift(1)
    assert f"  docs/lessons/{key}  +1 -1, by the template moved to docs/course/{key}\n" in section(
        told, "Changed by both"
    )
    update = section(told, "To take the template's changes")
    assert re.search(
        r"can't change these, [^:]*:\n    docs/course/02-csrf\.md\n  These stay .*\n.*\n    SECURITY\.md\n", update
    )
    assert update.endswith(f":\n    docs/lessons/{own} -> docs/course/{own}\n")
    team.cruft("update", "--skip-apply-ask")
    now = files(team.app)
    assert now["SECURITY.md"].startswith(b"# Our security")
    assert now[f"docs/course/{key}"].startswith(b"# Our lesson 1")
    assert now["docs/course/02-csrf.md"] == now[f"docs/lessons/{own}"] == b"ours\n"
    assert {name for name in now if name.startswith("docs/lessons/")} == {
        f"docs/lessons/{own}",
        "docs/lessons/02-csrf.md",
    }


def test_a_template_that_was_taken_back_is_told(team: Team) -> None:
    team.release("9.1.0", {"wsgi.py": ("The app for a production server", "The app for production (9.1.0)")})
    team.app = team.cookiecutter.app("project_slug=newer")
    commit(team.app)
    run(team.template, "git", "tag", "released")
    run(team.template, "git", "reset", "--quiet", "--hard", "HEAD~1")
    told = team.drift(1)
    assert f"\n  the newest is   {VERSION} (" in told
    assert "an older commit" in told


def test_binary_files_that_clashed_are_listed(team: Team) -> None:
    for branch in ("ours", "theirs"):
        run(team.app, "git", "checkout", "--quiet", "-b", branch, "main")
        (team.app / "logo.png").write_bytes(b"\0" + branch.encode())
        commit(team.app)
    run(team.app, "git", *AUTHOR, "merge", "--quiet", "ours", code=1)
    assert section(team.drift(0), "Left by an update") == "  logo.png\n"


@pytest.mark.audited
def test_ctrl_c_ends_it_without_a_word_and_leaves_nothing(team: Team, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # What is in the folders: Python can't remove one yet when it has just made it.
    for during in ("drift-*/template.git", "audit-*/*"):
        started = subprocess.Popen(
            [team.python, "-B", "-m", "tools.drift"],
            cwd=team.app,
            env=outside() | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A background job of a script ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not list(temporary.glob(during)) and started.poll() is None:
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGINT)
        assert started.communicate()[0] == b""
        assert started.returncode in (130, -signal.SIGINT)  # a shell shows 130 for both
        assert list(temporary.iterdir()) == []


def test_outside_git_the_files_are_compared_all_the_same(team: Team) -> None:
    shutil.rmtree(team.app / ".git")
    assert "\nThis folder is not in git, so " in team.drift(0)
    (team.app / "wsgi.py").unlink()
    assert "  wsgi.py  removed\n" in team.drift(1)


def test_what_is_not_committed_counts_and_is_told(team: Team) -> None:
    (team.app / "wsgi.py").write_text("# ours\n")
    told = team.drift(1)
    assert "  wsgi.py  +1 -" in told
    assert "\nChanges that are not committed count too" in told
    before = tree(team.app)
    assert "unclean git project" in team.cruft("update", "--skip-apply-ask", code=1)
    assert tree(team.app) == before


def test_a_new_version_that_is_none_of_this_app_s_is_no_drift(team: Team) -> None:
    (team.template / "docs/upgrading.md").write_text("# Elsewhere\n")
    commit(team.template)
    told = team.drift(0)
    assert ", 1 commit later" in told
    assert told.endswith("\nNo drift.\n")


def test_without_the_history_of_the_app_nothing_is_lost(year: Team) -> None:
    """A shallow clone has no copy of the generated files, so git can't merge: the rest is beside the file."""
    run(year.app.parent, "git", "clone", "--quiet", "--depth=1", year.app.as_uri(), "shallow")
    year.app = year.app.parent / "shallow"
    year.cruft("update", "--skip-apply-ask")
    now = files(year.app)
    for name, (_, after) in EDITS.items():
        assert after.encode() in now[name], name
    for changes in VERSIONS.values():
        for name, (_, after) in changes.items():
            assert after.encode() in now[name] + now.get(f"{name}.rej", b""), name
    assert section(year.drift(1), "Left by an update") == "  app/templates/home.html.rej\n"


@pytest.mark.parametrize("option", ["accounts", "docker", "ci", "lessons"])
def test_an_option_switched_later_gives_the_app_of_that_answer(team: Team, option: str) -> None:
    """Off and on again, beside an edit that stays."""
    edit(team.app, {"README.md": HARMLESS["README.md"]})
    commit(team.app)
    for answer in ("none", "github") if option == "ci" else (False, True):
        team.cruft("update", "--skip-apply-ask", "--variables-to-update", json.dumps({option: answer}))
        commit(team.app)
        fresh = team.cookiecutter.app(f"project_slug={option}-{answer}".lower(), f"{option}={answer}")
        edit(fresh, {"README.md": HARMLESS["README.md"]})
        expected, now = files(fresh), files(team.app)
        for aside in (".env", ".cruft.json"):
            expected.pop(aside), now.pop(aside)
        slug = f"{option}-{answer}".lower().encode()
        assert {name: text for name, text in now.items() if not name.startswith(".git/")} == {
            name: text.replace(slug, b"secure-flask-app") for name, text in expected.items()
        }
    assert "Changed by you (1)" in team.drift(1)


def test_an_option_switched_off_leaves_what_the_team_edited(team: Team) -> None:
    edit(team.app, {"deploy/compose.yaml": ("volumes:\n  buffers:", "# ours\nvolumes:\n  buffers:")})
    commit(team.app)
    before = (team.app / "deploy/compose.yaml").read_bytes()
    team.cruft("update", "--skip-apply-ask", "--variables-to-update", '{"docker": false}')
    assert (team.app / "deploy/compose.yaml").read_bytes() == before
    assert not (team.app / "deploy/Dockerfile").exists()
    assert section(team.drift(0), "Yours alone") == "  deploy/compose.yaml\n"


@pytest.mark.parametrize("how", [("--replay",), ("--no-input",)], ids=" ".join)
def test_plain_cookiecutter_over_an_app_shows_the_template_s_changes_in_git(year: Team, how: tuple[str, ...]) -> None:
    app = year.app
    run(app, "git", "checkout", "--quiet", "HEAD~1")  # as it was generated
    (app / "app/shop.py").write_text("OURS = 1\n")
    (app / "instance/app.db").write_text("accounts")
    commit(app)
    kept = {name: files(app)[name] for name in (".env", "app/shop.py", "instance/app.db", UPLOAD)}
    ended = year.cookiecutter.run("-f", *how, no_input=False)
    assert ended.returncode == 0, ended.stderr
    now = files(app)
    assert {name: now[name] for name in kept} == kept
    changed = run(app, "git", "status", "--porcelain", "--untracked-files=all").splitlines()
    assert {line[3:] for line in changed} == {
        ".cruft.json",
        "app/project.py",
        *(name for changes in VERSIONS.values() for name in changes),
        *(f"docs/new-in-{version}.md" for version in VERSIONS),
        "docs/lessons/09-uploads.md",
    }
    commit(app)
    # cookiecutter removes nothing: the two files that the template dropped are still there, and drift says so.
    assert "  docs/lessons/09-file-uploads.md" in section(year.drift(0), "Yours alone")


def test_a_template_with_uncommitted_changes_is_no_known_version(team: Team) -> None:
    (team.template / "README.md").write_text("being edited")
    ended = team.cookiecutter.run("project_slug=other")
    assert "cruft" not in ended.stderr
    assert not (team.cookiecutter.out / "other/.cruft.json").exists()
    before = (team.app / ".cruft.json").read_bytes()
    ended = team.cookiecutter.run("-f")
    assert "The .cruft.json that was here stays, but it is out of date: the commit" in ended.stderr
    assert (team.app / ".cruft.json").read_bytes() == before


def test_a_template_is_asked_of_its_own_git_whatever_a_git_hook_says(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(team.app / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    ours, other = ((app / ".cruft.json").read_text() for app in (team.app, team.cookiecutter.app("project_slug=other")))
    assert json.loads(ours)["commit"] == json.loads(other)["commit"]


def test_a_password_in_the_template_s_address_is_not_kept(team: Team) -> None:
    """cookiecutter's clone of an address remembers it whole."""
    clones = team.cookiecutter.home / ".cookiecutters"
    clones.mkdir(parents=True, exist_ok=True)
    run(clones, "git", "clone", "--quiet", team.template, "secure")
    run(
        clones / "secure",
        "git",
        "config",
        "remote.origin.url",
        "https://ann:hunter2@b@git.example/secure.git?key=hunter2",
    )
    team.cookiecutter.template = Path("secure")
    text = (team.cookiecutter.app("project_slug=other") / ".cruft.json").read_text()
    assert json.loads(text)["template"] == "https://git.example/secure.git"
    assert "hunter2" not in text


def test_on_windows_git_turns_no_line_end(team: Team, tmp_path: Path) -> None:
    """Both the template and the app say so themselves; a file with other line ends is no drift."""
    for source, copy in ((team.template, "template"), (team.app, "app")):
        run(tmp_path, "git", "clone", "--quiet", "-c", "core.autocrlf=true", source, copy)
        before, there = files(source), files(tmp_path / copy)
        assert [name for name in there if name[:5] != ".git/" and there[name] != before[name]] == []
    for name in ("wsgi.py", "app/security/csp.py"):
        (team.app / name).write_bytes((team.app / name).read_bytes().replace(b"\n", b"\r\n"))
    assert team.drift(0).endswith("\nNo drift.\n")


def test_every_path_is_one_on_windows_and_macos(template: Path) -> None:
    names = [name.replace(APP, "a" * 50) for name in files(template)]
    assert len({name.casefold() for name in names}) == len(names)
    device = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
    parts = {part for name in names for part in name.split("/")}
    assert [part for part in parts if device.fullmatch(part) or re.search(r'[<>:"|?*\\\0-\x1f]|[. ]$', part)] == []
    assert max(map(len, names)) < 150  # of the 259 that Windows takes


def test_the_version_is_the_same_wherever_it_is_told(template: Path) -> None:
    own = re.search(r'TEMPLATE_VERSION = "(.+)"', (template / APP / "app/project.py").read_text())[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", own)
    changelog, guide = (
        re.findall(r"(?m)^## (\S+)", (template / name).read_text()) for name in ("CHANGELOG.md", "docs/upgrading.md")
    )
    assert changelog == guide
    assert own == guide[0]
    if (ROOT / ".git").exists():
        tags = run(ROOT, "git", "tag", "--points-at", "HEAD").split()
        assert not tags or f"v{own}" in tags
