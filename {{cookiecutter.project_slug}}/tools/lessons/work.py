"""Removes a lesson's step from the app on a branch of its own, and goes back. No work of the learner is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tools.drift.programs import UnknownDriftError, git

PROJECT = Path(__file__).resolve().parents[2]
# References that exist while a merge or the like is unfinished. A commit would finish it.
UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
FIRST_COMMIT = "Type: git init && git add -A && git commit -m Start"


class LessonError(Exception):
    """A lesson can't begin or end now. The message says why, and what to do about it."""


def begin(number: int, name: str) -> str:
    """Make a branch, commit a fault of the lesson there, and return the branch's name. Raises LessonError.

    ``name`` is that of the patch: ``fault`` or ``exercise``. An earlier branch of the same lesson stays, so the new one
    has another name.
    """
    start = _branch()
    if _start_of(start):
        raise LessonError(
            f"You are in a lesson, on the branch {start}. End it first: make lesson N={number} DO=restore"
        )
    if _changes():
        raise LessonError("You have changes that are not committed. Commit them first, or put them away: git stash -u")
    fault, folder = PROJECT / f"tools/lessons/lesson_{number:02}/{name}.patch", _git("rev-parse", "--show-prefix")
    apply = ("apply", "--index", f"--directory={folder}", str(fault))
    _git("update-index", "-q", "--refresh")  # in a copied folder, the files have other times than in the index
    try:
        _git(*apply, "--check")
    except LessonError as error:
        raise LessonError(
            f"This lesson's fault does not fit your app ({error}): those lines have changed since it was generated. "
            f"{fault.relative_to(PROJECT)} shows what to take out. Do it by hand on a branch of your own; attack and "
            "check work there too."
        ) from None
    taken = _git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/lesson-*").split()
    names = [f"lesson-{number:02}", *(f"lesson-{number:02}-{turn}" for turn in range(2, len(taken) + 3))]
    branch = next(free for free in names if free not in taken)
    _git("switch", "--quiet", "--create", branch)
    try:
        _git("config", f"branch.{branch}.lesson-from", start)
        _git(*apply)
        _commit(f"Lesson {number}: the {name}")
    except BaseException:  # also Ctrl-C: nothing but the fault is on this branch
        _git("switch", "--quiet", "--force", start)
        _git("branch", "--quiet", "--delete", "--force", branch)
        raise
    return branch


def end() -> tuple[str, str]:
    """Commit what is on the lesson's branch, switch to where the lesson began, and return both branches.

    Raises LessonError if no lesson has begun, if its start is gone, or if a merge has to be finished first.
    """
    branch = _branch()
    start = _start_of(branch)
    if not start:
        raise LessonError(f"You are on the branch {branch}, which no lesson has made: there is nothing to restore.")
    if pending := [name for name in UNFINISHED if _git("rev-parse", "--verify", "--quiet", name, allowed=1)]:
        raise LessonError(f"git is in the middle of something ({pending[0]}): finish it, or abort it. See git status.")
    if not _git("for-each-ref", f"refs/heads/{start}"):
        raise LessonError(f"The branch {start}, where this lesson began, is gone. Switch to another: git switch NAME")
    _stage(start)
    if _git("diff", "--cached", "--name-only"):
        _commit("My work on the lesson")
    _git("switch", "--quiet", start)
    return branch, start


def _stage(start: str) -> None:
    """Stage all changes, except new files that the app's .gitignore named when the lesson began, such as .env.

    Neither a staged .env nor a changed .gitignore alters that. git reads the names from a file: they may be any bytes,
    and may be too many for a command line.
    """
    rules = _git("show", f"refs/heads/{start}:./.gitignore", allowed=128).splitlines()
    exclude = ("--exclude-standard", *(f"--exclude={rule}" for rule in rules))
    _git("reset", "--quiet")
    _git("add", "--update", ":/")
    with tempfile.NamedTemporaryFile() as names:
        names.write(git("ls-files", "-z", "--others", *exclude, ":/", cwd=PROJECT))
        names.flush()
        _git("--literal-pathspecs", "add", f"--pathspec-from-file={names.name}", "--pathspec-file-nul")


def _branch() -> str:
    """Return the current branch of the app's repository. Raises LessonError without a branch to go back to."""
    try:
        _git("ls-files", "--error-unmatch", "wsgi.py")
        _git("rev-parse", "--verify", "--quiet", "HEAD")
    except LessonError:
        raise LessonError(f"The app is not in git yet, so there is nothing to go back to. {FIRST_COMMIT}") from None
    if branch := _git("symbolic-ref", "--quiet", "HEAD", allowed=1):
        return branch.removeprefix("refs/heads/")  # git's own short names differ where there is a tag of that name
    raise LessonError("No branch is checked out (a detached HEAD). Make one for what is here: git switch -c NAME")


def _start_of(branch: str) -> str:
    """Return the branch from which a lesson made this branch; "" if none did."""
    return _git("config", "--default", "", "--get", f"branch.{branch}.lesson-from")


def _changes() -> str:
    return _git("status", "--porcelain", "--untracked-files=all")


def _commit(message: str) -> None:
    """Commit what is staged. It also works if git knows no author."""
    author = (
        ()
        if _git("config", "--default", "", "--get", "user.email")
        else ("-c", "user.name=Me", "-c", "user.email=me@localhost")
    )
    _git(*author, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", message)


def _git(*arguments: str, allowed: int = 0) -> str:
    """Run git without the hooks of the team: they may refuse faulty code, or a switch half-way."""
    try:
        printed = git("-c", "core.hooksPath=/dev/null", *arguments, cwd=PROJECT, allowed=allowed)
        return printed.decode(errors="replace").strip()
    except UnknownDriftError as error:
        raise LessonError(str(error)) from None
    except FileNotFoundError:
        raise LessonError("git is not installed.") from None
