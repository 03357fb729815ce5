"""Each lesson from its first command to its last: the attack succeeds, wrong fixes are explained, the right one holds.

The answers are in ``tests/lessons/``, and in no generated app. They have the format of mutations, and apply to the app
with the lesson's fault. Their heading is what the check says about the fix. Changes with the same name are one fix.
In ``exercises.txt``, the heading is what the check says before the change.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import AUTHOR, App, commit, edit, files, outside
from tests.mutations import MUTATIONS, Mutation, read

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = {int(path.name[:2]): path for path in sorted((ROOT / "tests/lessons").glob("[0-9]*.txt"))}
OF_EXERCISES = ROOT / "tests/lessons/exercises.txt"
HOLDS = "The fix holds."

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(default_app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``run(0, folder, "tools.lessons", …)`` runs a module there, asserts its exit code, and returns its output."""
    work = tmp_path_factory.mktemp("lessons")
    command = [default_app.folder / ".venv/bin/python", ROOT / "tests/run_mutants.py", default_app.folder, work]

    def ask(code: int, folder: Path, *arguments: str) -> str:
        print(json.dumps({"folder": str(folder), "run": arguments}), file=process.stdin, flush=True)
        ended, said = json.loads(process.stdout.readline())
        assert ended == code, said
        return str(said)

    # git knows no author.
    environment = outside() | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield ask


@pytest.fixture(scope="module")
def start(default_app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated app in a repository of its own, with one commit. No test writes into it."""
    folder = tmp_path_factory.mktemp("start") / "app"
    shutil.copytree(default_app.folder, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*_cache"))
    commit(folder)
    git(folder, "gc", "--quiet")
    return folder


@pytest.fixture
def app(start: Path, tmp_path: Path) -> Path:
    """A copy of that app with its repository."""
    return Path(shutil.copytree(start, tmp_path / "app"))


def git(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        ["git", *AUTHOR, *arguments], cwd=folder, env=outside(), check=True, capture_output=True, encoding="utf-8"
    )
    return ended.stdout.strip()


def fixes(path: Path) -> list[tuple[str, list[Mutation]]]:
    return [(name, list(changes)) for name, changes in itertools.groupby(read(path), key=lambda change: change.name)]


def right_fix(number: int) -> list[Mutation]:
    return next(changes for _, changes in fixes(ANSWERS[number]) if changes[0].killer == HOLDS)


def apply(folder: Path, changes: list[Mutation]) -> None:
    for change in changes:
        edit(folder, {change.file: (change.before, change.after)})


def commands(page: str) -> list[str]:
    """Return the commands that a page shows, without their comments."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", page)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


def page_of(app: Path, number: int) -> str:
    return next(app.glob(f"docs/lessons/{number:02}-*.md")).read_text(encoding="utf-8")


def test_each_lesson_has_a_right_fix_and_three_wrong_ones() -> None:
    assert list(ANSWERS) == list(range(1, 11))
    for number in ANSWERS:
        said = [changes[0].killer for _, changes in fixes(ANSWERS[number])]
        assert (said.count(HOLDS), len(set(said))) == (1, 4), number


def test_each_question_has_an_answer_and_what_it_names_notices_a_mutation() -> None:
    """Each answer that can be run is a mutation, or does what one does: tests/test_mutations.py runs them."""
    text = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
    asked = {number: re.findall(r"(?m)^(\d)\. ", page_of(ROOT / APP, number)) for number in ANSWERS}
    answered = re.findall(r"(?m)^- \*\*(\d+\.\d)\*\* ", text)
    assert answered == [f"{number}.{question}" for number, questions in asked.items() for question in questions]
    named = re.findall(r"`(test_\w+)`", text)
    assert set(named) - {mutation.killer for mutation in MUTATIONS} == set()


@pytest.mark.parametrize("number", ANSWERS)
def test_a_lesson(run: Run, app: Path, number: int) -> None:
    typed = iter(commands(page_of(app, number)))

    def lesson(code: int, action: str) -> str:
        if right:  # then this is the next command of the page
            assert next(typed) == f"make lesson N={number} DO={action}"
        return run(code, app, "tools.lessons", action, str(number))

    right = True
    lesson(0, "break")
    assert "THE ATTACK WINS. " in lesson(0, "attack")
    assert next(typed) == f".venv/bin/python -m tools.audit --only {number}"
    (row,) = json.loads(run(1, app, "tools.audit", "--only", str(number), "--format", "json"))["mitigations"]
    assert (row["number"], row["state"]) == (number, "missing")

    answers = sorted(fixes(ANSWERS[number]), key=lambda fix: fix[1][0].killer == HOLDS)  # the right one comes last
    known = [changes[0].killer for _, changes in answers]
    for name, changes in answers:
        right = changes[0].killer == HOLDS
        apply(app, changes)
        said = lesson(0 if right else 1, "check")
        # It says of each fix what it says of no other.
        assert [text for text in known if text in said] == [changes[0].killer], f"{name}: {said}"
        if not right:
            git(app, "checkout", "--", ".")
    assert ": implemented\n" in said
    assert "THE ATTACK FAILS. " in lesson(0, "attack")
    picture = app / f"instance/lesson-{number:02}.png"
    assert picture.exists() == (number in (2, 3, 4, 6, 10))

    mine = (app / changes[0].file).read_text()
    lesson(0, "restore")
    assert (git(app, "branch", "--show-current"), git(app, "status", "--porcelain")) == ("main", "")
    assert git(app, "show", f"lesson-{number:02}:{changes[0].file}") == mine.strip()

    lesson(0, "exercise")
    (answer,) = (changes for _, changes in fixes(OF_EXERCISES) if changes[0].step.startswith(f"{number}."))
    assert answer[0].killer in run(1, app, "tools.lessons", "check", str(number))
    apply(app, answer)
    assert HOLDS in lesson(0, "check")
    lesson(0, "restore")
    assert list(typed) == []


MINE = {"wsgi.py": "# mine", "app/__init__.py": "# mine too", "notes.txt": "what I have learnt"}
# Names that a command line or a text would change.
MINE |= dict.fromkeys((" first", "caf\udce9", "*", "-n", ":(top)x", "two\nlines"), "odd")


def alter(folder: Path) -> None:
    """Do what a learner does: stage a change, change another file, create a new one."""
    for name, text in MINE.items():
        (folder / name).write_text(text)
    git(folder, "add", "wsgi.py")


def merge(folder: Path) -> None:
    """Stop in the middle of a merge that conflicts."""
    branch = git(folder, "branch", "--show-current")
    for name in ("theirs", branch):
        git(folder, "switch", "--quiet", *(["--create"] if name == "theirs" else []), name)
        (folder / "wsgi.py").write_text(f"# {name}\n")
        git(folder, "commit", "--quiet", "--all", "--message", name)
    subprocess.run(["git", *AUTHOR, "merge", "theirs"], cwd=folder, env=outside(), capture_output=True)
    assert git(folder, "ls-files", "--unmerged")


def rewrite(folder: Path) -> None:
    """Edit and commit the lines that the lesson's fault takes out."""
    edit(folder, {"app/security/secret_key.py": ('return "contains a placeholder', 'return "is a placeholder')})
    commit(folder)


def inside(folder: Path) -> None:
    """The app as make demo makes it: in a folder that the repository around it ignores."""
    shutil.rmtree(folder / ".git")
    (folder.parent / ".gitignore").write_text("app\n")
    commit(folder.parent)


def state(folder: Path) -> tuple[dict[str, bytes], str]:
    """Every file and the state of git, which a refused command must not change."""
    kept = {name: content for name, content in files(folder).items() if not name.startswith(".git/")}
    if not (folder / ".git").exists() and not (folder.parent / ".git").exists():
        return kept, ""
    return kept, git(folder, "status", "--porcelain", "--branch", "--", ".") + git(folder, "for-each-ref")


CHANGES, COMMIT, NAME = "changes that are not committed", "Type: git init && git add -A", "git switch -c NAME"


@pytest.mark.parametrize(
    ("action", "prepare", "said"),
    [
        (
            "break",
            lambda folder: git(folder, "config", "branch.main.lesson-from", "x"),
            "End it first: make lesson",
        ),
        ("break", lambda folder: shutil.rmtree(folder / ".git"), f"{COMMIT} && git commit -m Start"),
        ("break", lambda folder: git(folder, "update-ref", "-d", "HEAD"), COMMIT),
        ("break", inside, COMMIT),
        ("break", alter, CHANGES),
        ("break", lambda folder: (folder / "notes.txt").write_text("mine"), CHANGES),
        ("break", lambda folder: git(folder, "checkout", "--quiet", "--detach"), NAME),
        ("break", merge, CHANGES),
        ("break", rewrite, "tools/lessons/lesson_01/fault.patch shows what to take out"),
        ("restore", lambda folder: git(folder, "switch", "--quiet", "main"), "no lesson has made"),
        ("restore", lambda folder: git(folder, "checkout", "--quiet", "--detach"), NAME),
        ("restore", lambda folder: git(folder, "branch", "--quiet", "-D", "main"), "git switch NAME"),
        ("restore", merge, "finish it, or abort it"),
    ],
    ids=[
        *("in a lesson", "no git", "no commit", "ignored", "changes", "new file", "detached", "merge", "edited"),
        *("not in a lesson", "detached at the end", "start gone", "merge at the end"),
    ],
)
def test_a_lesson_neither_begins_nor_ends_where_something_could_be_lost(
    run: Run, app: Path, action: str, prepare: Callable[[Path], object], said: str
) -> None:
    if action == "restore":
        run(0, app, "tools.lessons", "break", "1")
    prepare(app)
    before = state(app)
    assert said in run(2, app, "tools.lessons", action, "1")
    assert state(app) == before


def test_what_a_learner_did_is_on_the_lessons_branch(run: Run, app: Path) -> None:
    """Also if git knows no author, if a lesson is begun again, if hooks fail, and if tags have these names."""
    for name in ("main", "lesson-01"):
        git(app, "tag", name)
    start = state(app)[0]
    for name in ("pre-commit", "prepare-commit-msg", "post-commit", "post-checkout"):
        hook = app / ".git/hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    for branch in ("lesson-01", "lesson-01-2"):
        run(0, app, "tools.lessons", "break", "1")
        assert git(app, "branch", "--show-current") == branch
        alter(app)
        assert branch in run(0, app, "tools.lessons", "restore", "1")
        assert state(app)[0] == start
    for branch in ("lesson-01", "lesson-01-2"):
        for name, text in MINE.items():
            assert git(app, "show", f"refs/heads/{branch}:{name}") == text


@pytest.mark.parametrize("command", ["echo '!.env' >> .gitignore", "rm .gitignore && git add --force .env instance"])
def test_what_was_ignored_at_the_start_is_in_no_commit(run: Run, app: Path, command: str) -> None:
    """The secret key, the database and the uploads, whatever a learner has made of .gitignore and the index."""
    (app / "instance").mkdir(exist_ok=True)
    (app / "instance/app.db").write_text("everybody")
    start = state(app)
    run(0, app, "tools.lessons", "break", "1")
    subprocess.run(["sh", "-e", "-c", command], cwd=app, check=True)
    run(0, app, "tools.lessons", "restore", "1")
    assert state(app)[0] == start[0]
    assert ".env" in start[0]
    assert re.findall(r"(?m)^(?:\.env|instance/.*)$", git(app, "log", "--all", "--name-only", "--format=")) == []


# The status of the page with the hole, for those who know the lab's key and for others, and that page in debug.
STRANGERS = """
import pathlib, sys
from tools.lessons.lab import Lab
lab = Lab(pathlib.Path(sys.argv[1]))
with lab.serve() as shop:
    found = [shop.visitor().get("/hello").status]
    shop.pool.headers.clear()
    found += [shop.visitor().get("/hello").status, shop.pool.host]
print(*found, lab.create(FLASK_DEBUG=True).test_client().get("/hello", base_url="http://www.shop.test").text)
"""


def test_nobody_else_reaches_the_hole_of_lesson_7(run: Run, app: Path, tmp_path: Path) -> None:
    """Neither other users of this machine while an attack runs, nor a page in the learner's browser under make run."""
    run(0, app, "tools.lessons", "break", "7")
    (tmp_path / "lab").mkdir()
    (app / "strangers.py").write_text(STRANGERS)
    told = run(0, app, "strangers", str(tmp_path / "lab"))
    assert told == "200 403 127.0.0.1 Only make lesson N=7 DO=attack opens this page.\n"


def test_an_app_that_does_not_start_is_told_in_one_line(run: Run, app: Path) -> None:
    (app / "app/__init__.py").write_text("def create_app(:\n")
    for action in ("attack", "check"):
        assert re.search(
            rf"The {action} stopped with an error: SyntaxError: .+ \(__init__.py, line 1\)",
            run(2, app, "tools.lessons", action, "1"),
        )


def test_without_chromium_an_attack_says_what_to_install(default_app: App, app: Path) -> None:
    command = [default_app.folder / ".venv/bin/python", "-m", "tools.lessons", "attack", "3"]
    environment = outside() | {"CHROMIUM": "/there/is/none"}
    ended = subprocess.run(command, cwd=app, env=environment, capture_output=True, encoding="utf-8")
    assert (ended.returncode, ended.stderr) == (2, "CHROMIUM=/there/is/none: there is no such program.\n")


def test_a_teacher_sees_who_is_done_and_resets_a_class(run: Run, app: Path, default_app: App, tmp_path: Path) -> None:
    """With the two loops of docs/teaching.md. Ann has fixed lesson 1; Bob has not begun."""
    done, reset = commands((ROOT / "docs/teaching.md").read_text(encoding="utf-8"))[-2:]
    (tmp_path / "class").mkdir()
    (tmp_path / "class/.venv").symlink_to(default_app.folder / ".venv")
    ann, bob = (tmp_path / "class" / name for name in ("ann", "bob"))
    for folder in (ann, bob):
        shutil.copytree(app, folder)
        run(0, folder, "tools.lessons", "break", "1")
    apply(ann, right_fix(1))

    told = default_app.run("sh", "-c", done, cwd=tmp_path).splitlines()
    assert told[0] == f"class/ann/: {HOLDS}"
    assert re.match("class/bob/: - A key with a placeholder word in it passes", told[1])
    default_app.run("sh", "-c", reset, cwd=tmp_path)
    assert {git(folder, "branch", "--show-current") for folder in (ann, bob)} == {"main"}
    assert "casefold" in git(ann, "show", "lesson-01:app/security/secret_key.py")
