"""``python -m tools.drift`` reports what has changed since this app was generated. It changes no file of the app.

Exit 0: nothing has changed, here or in the template. 1: something has. 2: it can't be known, and one line says why.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import ctrl_c
from tools.drift import report
from tools.drift.audits import Rows, weakened
from tools.drift.changes import (
    ASIDE,
    changes,
    is_uncommitted,
    known_to_git,
    left_behind,
    left_out,
    moves,
    unresolved,
)
from tools.drift.programs import UnknownDriftError
from tools.drift.template import Origin, Template

PROJECT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Print the report and return the exit code."""
    argparse.ArgumentParser(
        prog="python -m tools.drift", description="Report how far this app is from its template."
    ).parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Windows console can't show every letter
    ctrl_c.watch()
    try:
        with tempfile.TemporaryDirectory(prefix="drift-", ignore_cleanup_errors=True) as folder:
            return drift(Path(folder))
    except (UnknownDriftError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        if ctrl_c.stopped.is_set():  # git, too, has ended because of it
            return ctrl_c.EXIT_CODE
        print(report.plain(f"The drift can't be known: {' '.join(str(error).split())}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return ctrl_c.EXIT_CODE


def drift(work: Path) -> int:
    """Compare, print the report and return the exit code. ``work`` is a temporary folder."""
    if not shutil.which("git"):
        raise UnknownDriftError("git is not installed")
    origin = Origin.of(PROJECT)
    template = Template(origin, work)
    base = template.generate(origin.commit)
    newest = base if template.newest == base.commit else template.generate(template.newest)
    moved = {} if newest is base else moves(base.folder, newest.folder)
    known = known_to_git(PROJECT)
    found = changes(PROJECT, base.files, newest.files, moved)
    own = sorted((known or set()) - base.files.keys() - newest.files.keys() - ASIDE)
    left = unresolved(PROJECT, {*own, *(change.path for change in found)}, in_git=known is not None)
    with ThreadPoolExecutor() as threads:
        before, now = threads.map(Rows.of, (base.folder, PROJECT))

    lines = list(report.heading(PROJECT.name, origin.shown, base, newest, template.commits_since(base.commit)))
    lines += report.files(found, own, left)
    lines += report.security(found, before, now)
    lines += report.audits(before, now)
    if known is None:
        lines += ["", "This folder is not in git, so it is unknown which other files are yours, and cruft can't merge."]
    elif is_uncommitted(PROJECT):
        lines += ["", "Changes that are not committed count too. Commit them before cruft update."]
    if newest is not base:
        behind = left_behind(own, newest.files, moved)
        lines += report.update(found, left_out(PROJECT, found), behind, newest.by_hand(base.version))
    print(*map(report.plain, [*lines, "", report.summary(found, before, now)]), sep="\n")
    for whose, rows in (("of this app", now), ("of the app as generated", before)):
        if rows.failed:
            raise UnknownDriftError(f"the audit {whose} could not run, so its rows can't be compared. {rows.failed}")
    return 1 if found or weakened(before, now) else 0


if __name__ == "__main__":
    sys.exit(main())
