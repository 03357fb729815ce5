"""The report, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tools.drift.audits import Rows, told, weakened
from tools.drift.changes import By, Change
from tools.drift.meaning import guard
from tools.drift.template import Generated

TITLES: dict[By, str] = {
    "you": "Changed by you",
    "the template": "Changed by the template since",
    "both": "Changed by both",
}


def heading(name: str, address: str, base: Generated, newest: Generated, ahead: int) -> Iterator[str]:
    """Say what is compared with what; ``ahead`` is how many commits lie between."""
    yield f"Drift of {name} from {address}"
    yield f"  generated from  {base.version} ({base.commit[:12]})"
    if newest is base:
        yield "  which is the newest"
    else:
        later = f"{ahead} commit{'s' * (ahead > 1)} later" if ahead else "an older commit: the template was taken back"
        yield f"  the newest is   {newest.version} ({newest.commit[:12]}), {later}"


def files(found: list[Change], own: list[str], left: list[str]) -> Iterator[str]:
    """List what differs, the team's own files, and those that an update left to be settled."""
    for by, title in TITLES.items():
        if those := [change for change in found if change.by == by]:
            yield from ("", f"{title} ({len(those)})")
            yield from (f"  {change.path}  {change.what}" for change in those)
    if own:
        yield from ("", f"Yours alone, which is no drift ({len(own)})")
        yield from (f"  {name}" for name in own)
    if left:
        yield from ("", f"Left by an update, for you to settle ({len(left)})")
        yield from (f"  {name}" for name in left)


def security(found: list[Change], before: Rows, now: Rows) -> Iterator[str]:
    """Say of each security file that differs what it guards, and how its row of the audit is."""
    lines = []
    for change in found:
        if guarded := guard(change.path):
            number, meaning = guarded
            lines.append(f"  {change.path}  by {change.by}, {change.what}")
            lines.append(f"      {meaning}{_row(number, before, now)}")
    if lines:
        yield from ("", f"Of these, the security files ({len(lines) // 2})")
        yield from lines


def _row(number: int | None, before: Rows, now: Rows) -> str:
    if number is None or not now.mitigations:
        return ""
    was, state = before.state(number), now.state(number)
    return f"; row {number}: {state}, as generated" if was == state else f"; row {number}: {was} -> {state}"


def audits(before: Rows, now: Rows) -> Iterator[str]:
    """Give the ten rows, and what was found where they changed."""
    yield from ("", "The audit, of the app as generated -> as it is now")
    for which, rows in (("as generated", before), ("now", now)):
        if rows.failed:
            yield f"  {which}: {rows.failed}"
    yield from (f"  {line}" for line in told(before, now))


def update(found: list[Change], lost: list[str], by_hand: str) -> Iterator[str]:
    """Say how to take the template's changes, and what is to be done besides."""
    both = sum(change.by == "both" for change in found)
    if any(change.by != "you" for change in found):
        yield from ("", "To take the template's changes: commit, then .venv/bin/cruft update")
    if both:
        yield f"  Look at the {both} that both changed: what can't be merged is marked (<<<<<<<) or beside it (*.rej)."
    if lost:
        yield "  What it changed in these is left out, since they are gone here, links, or new on both sides:"
        yield from (f"    {name}" for name in lost)
    if by_hand:
        yield from ("", "By hand, says the template")
        yield from (f"  {line}" for line in by_hand.splitlines() if line)


def summary(found: list[Change], before: Rows, now: Rows) -> str:
    """Give the last line."""
    numbers = Counter(change.by for change in found)
    counts = [f"{numbers[by]} file{'s' * (numbers[by] != 1)} changed by {by}" for by in TITLES]
    if before.failed or now.failed:
        rows = "an audit could not run, so weaker or not is open"
    elif worse := weakened(before, now):
        rows = f"weaker: mitigation {', '.join(map(str, worse))}"
    elif found:
        rows = "no mitigation weaker"
    else:
        return "No drift."
    return f"{', '.join(counts)}; {rows}."


def plain(line: str) -> str:
    """Give a line with nothing in it that a terminal would act on: a file's name may hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
