"""Which files differ: those that the team changed, those that the template changed, and those that both changed."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tools.drift.programs import UnknownDriftError, git

By = Literal["you", "the template", "both"]
Files = dict[str, bytes]  # by path, with slashes
# Each app has its own key; and .cruft.json is what the drift is measured by.
ASIDE = {".env", ".cruft.json"}
MARKER = re.compile(rb"(?m)^<<<<<<< ")


@dataclass(frozen=True)
class Change:
    """One file of the template that has changed since the app was generated.

    ``ours``, ``old`` and ``new`` are its content here, as generated, and in the newest version. ``moved`` is its path
    in the newest version if the template moved it.
    """

    path: str
    ours: bytes | None
    old: bytes | None
    new: bytes | None
    moved: str = ""

    @property
    def by(self) -> By:
        """Who changed it."""
        if self.ours != self.old:
            return "both" if self.new != self.old or self.moved else "you"
        return "the template"

    @property
    def what(self) -> str:
        """How it changed."""
        if self.by == "you":
            return _what(self.old, self.ours)
        theirs = _what(self.old, self.new)
        if self.moved:
            theirs = f"moved to {self.moved}" + (f", {theirs}" if self.new != self.old else "")
        if self.by == "the template":
            return theirs
        same = " alike" if self.ours == self.new and not self.moved else ""
        return f"{_what(self.old, self.ours)}{same}, by the template {theirs}"


def changes(mine: Path, base: Files, newest: Files, moved: dict[str, str]) -> list[Change]:
    """Compare this app with what its template's version and the newest version generate."""
    # A moved file is listed once, by its old path.
    arrived = {path for path in moved.values() if content(mine / path) is None}
    found = []
    for path in sorted((base.keys() | newest.keys()) - arrived):
        new_path = moved.get(path, "")
        each = Change(path, content(mine / path), base.get(path), newest.get(new_path or path), new_path)
        if new_path or not each.ours == each.old == each.new:
            found.append(each)
    return found


def moves(base: Path, newest: Path) -> dict[str, str]:
    """Return the files that the template moved, each with its new path: those that git recognizes in the update."""
    # cruft makes its patch by the same command, so the same files count as moved. git diff exits 1 on any difference.
    command = ("diff", "--no-index", "--name-status", "--diff-filter=R", "-z", str(base), str(newest))
    names = iter(git(*command, allowed=1).decode(errors="surrogateescape").split("\0"))
    return {
        next(names).removeprefix(f"{base.as_posix()}/"): next(names).removeprefix(f"{newest.as_posix()}/")
        for status in names
        if status
    }


@dataclass(frozen=True)
class LeftOut:
    """What ``cruft update`` can't do: ``lost`` files don't get the template's changes, ``kept`` files stay."""

    lost: list[str]
    kept: list[str]


def left_out(mine: Path, found: list[Change]) -> LeftOut:
    """Return the files to which ``cruft update`` can't bring what the template changed.

    Those are the files that are gone here or are links, those that the template moved to a path that is taken here, and
    those that the template removed and the team changed. One of them is enough to make git apply the patch in pieces,
    without merging. Then it also skips files that are new on both sides.
    """
    clashing = [each for each in found if each.by == "both" and (each.ours != each.new or each.moved)]
    gone = {each.path for each in clashing if each.ours is None and not each.moved}
    links = {each.path for each in found if each.by != "you" and (mine / each.path).is_symlink()}
    taken = {each.moved for each in found if each.moved and content(mine / each.moved) is not None}
    kept = [each.path for each in clashing if each.new is None]
    lost = sorted(gone | links | taken)
    also = [each.path for each in clashing if (lost or kept) and each.old is None and each.path not in taken]
    return LeftOut(lost + also, kept)


def left_behind(own: list[str], newest: Files, moved: dict[str, str]) -> dict[str, str]:
    """Return the team's own files in folders that the template moved away, each with the path that it should have."""
    still_there = {PurePosixPath(path).parent for path in newest}
    paths = {}
    for path in map(PurePosixPath, own):
        went = Counter(
            PurePosixPath(new).parent for old, new in moved.items() if PurePosixPath(old).parent == path.parent
        )
        if went and path.parent not in still_there:
            paths[str(path)] = str(went.most_common(1)[0][0] / path.name)
    return paths


def files(folder: Path) -> Files:
    """Return the files of a generated app."""
    paths = {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*")}
    return {path: found for path, found in paths.items() if found is not None and path not in ASIDE}


def content(path: Path) -> bytes | None:
    r"""Return the bytes of a file, a text's with ``\n`` as its line ends."""
    if not path.is_file():
        return None
    found = path.read_bytes()
    return found if b"\0" in found else found.replace(b"\r\n", b"\n")


def known_to_git(mine: Path) -> set[str] | None:
    """Return the files that git has or would add, or None if the app is not in git."""
    try:
        names = _names(git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=mine))
    except UnknownDriftError as error:
        if "not a git repository" in str(error):
            return None
        raise
    return {name for name in names if (mine / name).is_file()}


def is_uncommitted(mine: Path) -> bool:
    """Return whether something in the app, which is in git, is not committed yet."""
    return bool(git("status", "--porcelain", "--", ".", cwd=mine))


def unresolved(mine: Path, paths: set[str], *, in_git: bool) -> list[str]:
    """Return the files that an update left to be resolved by hand: some of ``paths``, and what git could not merge."""
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
