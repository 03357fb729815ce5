"""The report, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tools.drift.audits import Rows, compared, weakened
from tools.drift.changes import By, Change, LeftOut
from tools.drift.meaning import guard
from tools.drift.template import Generated

TITLES: dict[By, str] = {
    "you": "Changed by you",
    "the template": "Changed by the template since",
    "both": "Changed by both",
}


def heading(name: str, address: str, base: Generated, newest: Generated, ahead: int) -> Iterator[str]:
    """Yield what is compared; ``ahead`` is the number of commits between the two versions."""
    yield f"Drift of {name} from {address}"
    yield f"  generated from  {base.version} ({base.commit[:12]})"
    if newest is base:
        yield "  which is the newest"
    else:
        later = f"{ahead} commit{'s' * (ahead > 1)} later" if ahead else "an older commit: the template was reset"
        yield f"  the newest is   {newest.version} ({newest.commit[:12]}), {later}"


def files(found: list[Change], own: list[str], left: list[str]) -> Iterator[str]:
    """Yield the files that differ, the team's own files, and those that an update left to be resolved."""
    for by, title in TITLES.items():
        if those := [change for change in found if change.by == by]:
            yield from ("", f"{title} ({len(those)})")
            yield from (f"  {change.path}  {change.what}" for change in those)
    if own:
        yield from ("", f"Yours alone, which is no drift ({len(own)})")
        yield from (f"  {name}" for name in own)
    if left:
        yield from ("", f"Left by an update, for you to resolve ({len(left)})")
        yield from (f"  {name}" for name in left)


def security(found: list[Change], before: Rows, now: Rows) -> Iterator[str]:
    """Yield, for each security file that differs, what it protects and the row of the audit."""
    lines = []
    for change in found:
        if guarded := guard(change.moved or change.path):
            number, meaning = guarded
            lines.append(f"  {change.path}  by {change.by}, {change.what}")
            lines.append(f"      {meaning}{_row(number, before, now)}")
    if lines:
        yield from ("", f"The security files among these ({len(lines) // 2})")
        yield from lines


def _row(number: int | None, before: Rows, now: Rows) -> str:
    if number is None or not now.mitigations:
        return ""
    was, state = before.state(number), now.state(number)
    return f"; row {number}: {state}, as generated" if was == state else f"; row {number}: {was} -> {state}"


def audits(before: Rows, now: Rows) -> Iterator[str]:
    """Yield the ten rows of the audit, with the findings of those that changed."""
    yield from ("", "The audit, of the app as generated -> as it is now")
    for which, rows in (("as generated", before), ("now", now)):
        if rows.failed:
            yield f"  {which}: {rows.failed}"
    yield from (f"  {line}" for line in compared(before, now))


def update(found: list[Change], left: LeftOut, behind: dict[str, str], by_hand: str) -> Iterator[str]:
    """Yield how to take the template's changes, and what to do by hand."""
    both = sum(change.by == "both" for change in found)
    if any(change.by != "you" for change in found):
        yield from ("", "To take the template's changes: commit, then .venv/bin/cruft update")
    if both:
        yield f"  Check the {both} that both changed: conflicts are marked (<<<<<<<) or beside the file (*.rej)."
    if left.lost:
        yield "  cruft update can't change these, since they are gone here, are links, or are new on both sides:"
        yield from (f"    {path}" for path in left.lost)
    if left.kept:
        yield "  These stay as they are: you changed them, and the template has removed them. Before the update, move"
        yield "  your changes to files of your own and restore the rest, so that git can merge all other files:"
        yield from (f"    {path}" for path in left.kept)
    if behind:
        yield "  The template moved the folders of these files of yours. Move them too:"
        yield from (f"    {path} -> {new}" for path, new in behind.items())
    if by_hand:
        yield from ("", "To do by hand, according to the template")
        yield from (f"  {line}" for line in by_hand.splitlines() if line)


def summary(found: list[Change], before: Rows, now: Rows) -> str:
    """Return the last line."""
    numbers = Counter(change.by for change in found)
    counts = [f"{numbers[by]} file{'s' * (numbers[by] != 1)} changed by {by}" for by in TITLES]
    if before.failed or now.failed:
        rows = "an audit could not run, so a weaker mitigation may go unseen"
    elif worse := weakened(before, now):
        rows = f"weaker: mitigation {', '.join(map(str, worse))}"
    elif found:
        rows = "no mitigation weaker"
    else:
        return "No drift."
    return f"{', '.join(counts)}; {rows}."


def plain(line: str) -> str:
    """Return a line without control characters: the name of a file may have some, and a terminal would obey them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
