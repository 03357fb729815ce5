"""Which files differ: those that the team changed, those that the template changed, those that both did."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.drift.programs import UnknownDriftError, git

By = Literal["you", "the template", "both"]
Files = dict[str, bytes]  # by path, with slashes
# The key is each app's own, and where it came from is what a drift is measured by.
ASIDE = {".env", ".cruft.json"}
MARKER = re.compile(rb"(?m)^<<<<<<< ")


@dataclass(frozen=True)
class Change:
    """One file of the template that is no longer what was generated: what it is here, was, and is in the newest."""

    path: str
    ours: bytes | None
    old: bytes | None
    new: bytes | None

    @property
    def by(self) -> By:
        """Who changed it."""
        if self.ours != self.old:
            return "both" if self.new != self.old else "you"
        return "the template"

    @property
    def what(self) -> str:
        """How it was changed, from the one who changed it."""
        if self.by == "both":
            same = " alike" if self.ours == self.new else ""
            return f"{_what(self.old, self.ours)}{same}, by the template {_what(self.old, self.new)}"
        return _what(self.old, self.new if self.by == "the template" else self.ours)


def changes(mine: Path, base: Files, newest: Files) -> list[Change]:
    """Compare this app with the one that was generated from its template's version, and from the newest."""
    paths = sorted(base.keys() | newest.keys())
    compared = [Change(path, content(mine / path), base.get(path), newest.get(path)) for path in paths]
    return [each for each in compared if not each.ours == each.old == each.new]


def left_out(mine: Path, found: list[Change]) -> list[str]:
    """Give the files to which ``cruft update`` can't bring what the template changed.

    Those that are gone here or links; and because of them, since git then takes the patch in pieces, those new on both
    sides.
    """
    clashing = [each for each in found if each.by == "both" and each.ours != each.new]
    links = [each for each in found if each.by != "you" and (mine / each.path).is_symlink()]
    lost = {each.path for each in clashing if each.ours is None} | {each.path for each in links}
    return sorted(lost) + [each.path for each in clashing if lost and each.old is None]


def files(folder: Path) -> Files:
    """Give the files of a generated app."""
    paths = {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*")}
    return {path: found for path, found in paths.items() if found is not None and path not in ASIDE}


def content(path: Path) -> bytes | None:
    """Give a file's bytes; text with the line ends of every other system than Windows."""
    if not path.is_file():
        return None
    found = path.read_bytes()
    return found if b"\0" in found else found.replace(b"\r\n", b"\n")


def known_to_git(mine: Path) -> set[str] | None:
    """Give the files that git has, or would take; ``None`` where the app is in no git."""
    try:
        names = _names(git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=mine))
    except UnknownDriftError as error:
        if "not a git repository" in str(error):
            return None
        raise
    return {name for name in names if (mine / name).is_file()}


def is_uncommitted(mine: Path) -> bool:
    """Tell whether something is not in git's history yet, in an app that git knows."""
    return bool(git("status", "--porcelain", "--", ".", cwd=mine))


def unresolved(mine: Path, paths: set[str], *, in_git: bool) -> list[str]:
    """Give the files that an update left to be settled by hand: of ``paths``, and those that git could not merge."""
    marked = {path for path in paths if path.endswith(".rej") or MARKER.search(content(mine / path) or b"")}
    # git diff would write to the index.
    unmerged = _names(git("ls-files", "-z", "--unmerged", cwd=mine)) if in_git else set()
    return sorted(marked | {entry.partition("\t")[2] for entry in unmerged})


def _names(listed: bytes) -> set[str]:
    return set(filter(None, listed.decode(errors="surrogateescape").split("\0")))


def _what(before: bytes | None, after: bytes | None) -> str:
    if after is None:
        return "removed"
    if before is None:
        return "added"
    if b"\0" in before + after:
        return "changed"
    old, new = (text.decode(errors="replace").splitlines() for text in (before, after))
    lines = list(difflib.unified_diff(old, new, n=0))[2:]
    return f"+{sum(line[0] == '+' for line in lines)} -{sum(line[0] == '-' for line in lines)}"
