"""``python -m drift``: report what has changed since this app was generated. It changes nothing.

Exit 0: nothing, here or in the template. 1: something. 2: it can't be known, and one line says why.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from drift.audits import Rows, copy, told, weakened
from drift.changes import ASIDE, By, Change, changes, is_uncommitted, known_to_git, unresolved
from drift.meaning import guard
from drift.template import Generated, Origin, Template, UnknownDriftError

PROJECT = Path(__file__).resolve().parents[1]
TITLES: dict[By, str] = {
    "you": "Changed by you",
    "the template": "Changed by the template since",
    "both": "Changed by both",
}


def main() -> int:
    """Report, and give the exit code."""
    argparse.ArgumentParser(
        prog="python -m drift", description="Say how far this app is from its template."
    ).parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console of Windows has few letters
    try:
        with tempfile.TemporaryDirectory(prefix="drift-", ignore_cleanup_errors=True) as folder:
            return report(Path(folder))
    except UnknownDriftError as error:
        print(f"The drift can't be known: {error}", file=sys.stderr)
        return 2


def report(work: Path) -> int:
    """Print it, and give the exit code. Raises ``UnknownDriftError`` when there is nothing that can be said."""
    origin = Origin.of(PROJECT)
    template = Template(origin.address, work)
    base = template.generate(origin.commit, origin.answers)
    newest = base if template.newest == base.commit else template.generate(template.newest, origin.answers)
    known = known_to_git(PROJECT)
    copied = work / PROJECT.name
    copy(PROJECT, (name for name in known or base.files if (PROJECT / name).is_file()), copied, env=base.folder)
    with ThreadPoolExecutor() as threads:
        before, now = threads.map(Rows.of, (base.folder, copied))
    found = changes(PROJECT, base.files, newest.files)
    own = sorted((known or set()) - base.files.keys() - newest.files.keys() - ASIDE)
    lines = [*heading(template, base, newest), *files(found, own), *security(found, before, now)]
    lines += [*audits(before, now), *state_of_git(known)]
    if newest is not base:
        lines += update(found, newest.by_hand(base.version))
    print(*lines, "", summary(found, before, now), sep="\n")
    if now.failed:
        raise UnknownDriftError(f"the audit of this app could not run, so whether it is weaker is open. {now.failed}")
    return 1 if found or weakened(before, now) else 0


def heading(template: Template, base: Generated, newest: Generated) -> Iterator[str]:
    yield f"Drift of {PROJECT.name} from {template.address}"
    yield f"  generated from  {base.version} ({base.commit[:12]})"
    ahead = template.commits_since(base.commit)
    yield (
        f"  the newest is   {newest.version} ({newest.commit[:12]}), {ahead} commits later"
        if ahead
        else ("  which is the newest")
    )


def files(found: list[Change], own: list[str]) -> Iterator[str]:
    for by, title in TITLES.items():
        if those := [change for change in found if change.by == by]:
            yield f"\n{title} ({len(those)})"
            yield from (f"  {change.path}  {change.what}" for change in those)
    if own:
        yield f"\nYours alone, which is no drift ({len(own)})"
        yield from (f"  {name}" for name in own)
    if left := unresolved(PROJECT, [*(change.path for change in found), *own]):
        yield f"\nLeft by an update, for you to settle ({len(left)})"
        yield from (f"  {name}" for name in left)


def state_of_git(known: set[str] | None) -> Iterator[str]:
    if known is None:
        yield "\nThis folder is not in git: which other files are yours is not known, and cruft update could not merge."
    elif is_uncommitted(PROJECT):
        yield "\nWhat is not committed yet is counted too; cruft update wants it committed first."


def security(found: list[Change], before: Rows, now: Rows) -> Iterator[str]:
    lines = []
    for change in found:
        if guarded := guard(change.path):
            number, meaning = guarded
            lines.append(f"  {change.path}  by {change.by}, {change.what}")
            lines.append(f"      {meaning}{_row(number, before, now)}")
    if lines:
        yield f"\nOf these, the security files ({len(lines) // 2})"
        yield from lines


def _row(number: int | None, before: Rows, now: Rows) -> str:
    if number is None or not now.mitigations:
        return ""
    was, state = before.state(number), now.state(number)
    return f"; row {number}: {state}, as generated" if was == state else f"; row {number}: {was} -> {state}"


def audits(before: Rows, now: Rows) -> Iterator[str]:
    yield "\nThe audit, of the app as generated -> as it is now"
    for which, rows in (("as generated", before), ("now", now)):
        if rows.failed:
            yield f"  {which}: {rows.failed}"
    yield from (f"  {line}" for line in told(before, now))


def update(found: list[Change], by_hand: str) -> Iterator[str]:
    both = sum(change.by == "both" for change in found)
    yield "\nTo take the template's changes: commit, then .venv/bin/cruft update"
    if both:
        yield f"  Look at the {both} that both changed: what can't be merged is marked (<<<<<<<) or beside it (*.rej)."
    if by_hand:
        yield "\nBy hand, says the template"
        yield from (f"  {line}" for line in by_hand.splitlines())


def summary(found: list[Change], before: Rows, now: Rows) -> str:
    counts = [f"{sum(change.by == by for change in found)} files changed by {by}" for by in TITLES]
    worse = weakened(before, now)
    rows = f"weaker: mitigation {', '.join(map(str, worse))}" if worse else "no mitigation weaker"
    return f"{', '.join(counts)}; {rows}." if found or worse else "No drift."


if __name__ == "__main__":
    sys.exit(main())
