"""``python -m tools.lessons show|break|attack|check|restore|exercise N``: the lessons of ``docs/lessons/``.

Exit code 0: done; for ``check``, the fix holds. 1: the fix does not hold. 2: an error, which one line explains.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools import ctrl_c
from tools.lessons.work import PROJECT, LessonError, begin, end

LESSONS = range(1, 11)


def main() -> int:
    """Do what the command says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.lessons", description="See an attack win, and fix the app.")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("number", type=int, choices=LESSONS, metavar="N", help="the lesson: 1 to 10")
    options = parser.parse_args()
    ctrl_c.watch()
    try:
        return ACTIONS[options.action][0](options.number)
    except KeyboardInterrupt:
        return ctrl_c.EXIT_CODE
    except LessonError as error:
        print(error, file=sys.stderr)
        return 2


def _show(number: int) -> int:
    page = next(PROJECT.glob(f"docs/lessons/{number:02}-*.md"))
    print(page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# "))
    print(f"Read {page.relative_to(PROJECT)}. The steps:")
    for action, (_, what) in list(ACTIONS.items())[1:]:
        print(f"  make lesson N={number} DO={action:9}{what}")
    return 0


def _break(number: int) -> int:
    return _begin(number, "fault", "takes a step out of the app; git show prints it.", "attack")


def _exercise(number: int) -> int:
    return _begin(number, "exercise", "is another fault. Find it without git show, and fix it.", "check")


def _begin(number: int, name: str, what: str, then: str) -> int:
    """Begin with the patch ``name``. Say what it does, and what to do then."""
    print(f"You are on the branch {begin(number, name)}. Its only commit {what}")
    print(f"Next: make lesson N={number} DO={then}")
    return 0


def _restore(_number: int) -> int:
    branch, start = end()
    print(f"You are on the branch {start} again. What you did is on {branch}: git diff {start} {branch}")
    return 0


def _attack(number: int) -> int:
    picture = PROJECT / f"instance/lesson-{number:02}.png"
    picture.unlink(missing_ok=True)
    stolen = _in_the_lab(number, "attack", picture)
    print(f"\nTHE ATTACK WINS. {stolen}" if stolen else "\nTHE ATTACK FAILS. Nothing was stolen.")
    if picture.exists():
        print(f"What the browser shows at the end: {picture.relative_to(PROJECT)}")
    return 0


def _check(number: int) -> int:
    faults = _in_the_lab(number, "check") or _in_the_audit(number)
    if faults:
        print("The fix does not hold:", *(f"- {fault}" for fault in faults), sep="\n")
        return 1
    print("The fix holds.")
    return 0


def _in_the_lab(number: int, name: str, picture: Path | None = None) -> Any:
    """Return what ``attack.py`` or ``check.py`` of a lesson returns. Raises LessonError if the app does not start."""
    try:
        from tools.lessons.lab import Lab

        module = importlib.import_module(f"tools.lessons.lesson_{number:02}.{name}")
        if picture:
            print(f"{module.__doc__}")
        with tempfile.TemporaryDirectory(prefix="lesson-", ignore_cleanup_errors=True) as folder:
            found = getattr(module, name)(Lab(Path(folder), picture))
            return found if isinstance(found, str) else list(dict.fromkeys(found))
    except LessonError:
        raise
    except Exception as error:
        raise LessonError(
            f"The {name} stopped with an error: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        ) from error


def _in_the_audit(number: int) -> list[str]:
    """Print the audit's row of a mitigation, and return its findings."""
    from app import create_app
    from app.security.secret_key import generate
    from tools.audit.run import audit_own

    logging.disable(logging.NOTSET)  # the lab has disabled the log, but the audit reads it
    os.environ["SECRET_KEY"] = generate()
    (row,) = audit_own(create_app, only=number).rows
    print(f"The audit's row {row.number}, {row.title}: {row.state}")
    return [f"The audit finds: {found.evidence}" for found in row.findings if found.severity != "note"]


ACTIONS = {
    "show": (_show, "print the steps"),
    "break": (_break, "take the step out, on a branch of its own"),
    "attack": (_attack, "attack the app as it is now"),
    "check": (_check, "judge your fix"),
    "restore": (_restore, "go back; your work stays on its branch"),
    "exercise": (_exercise, "another fault, which you find yourself; then check and restore"),
}

if __name__ == "__main__":
    sys.exit(main())
