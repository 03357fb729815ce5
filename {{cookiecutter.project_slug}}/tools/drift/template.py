"""The template that this app came from, at two of its commits, and the app that each makes of the same answers."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.drift.changes import Files, files
from tools.drift.programs import UnknownDriftError, git, run

VERSION = re.compile(r'(?m)^TEMPLATE_VERSION = "([\w.+-]+)"$')
JINJA = re.compile(r"[{}\r\n]|^\s*# %")  # its tags, and the start of a line statement (cookiecutter.json)
SECTION = re.compile(r"(?m)^## ")


def without_secrets(text: str) -> str:
    """Drop what stands in addresses as a password or a token."""
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"(?<=://)[^/\s]*@", "", text))


@dataclass(frozen=True)
class Origin:
    """What ``.cruft.json`` says: where the template is, which of its commits was used, and the answers given then."""

    address: str
    commit: str
    answers: dict[str, object]

    @property
    def shown(self) -> str:
        """The address without a password that may be in it."""
        return without_secrets(self.address)

    @classmethod
    def of(cls, project: Path) -> Origin:
        """Read it. Raises ``UnknownDriftError`` when it isn't there or makes no sense."""
        try:
            state = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
            address, commit, answers = state["template"], state["commit"], state["context"]["cookiecutter"]
            if not isinstance(address, str) or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
                raise ValueError("template or commit")
            # Those with an underscore are the template's own. What is no name could be an option of cookiecutter's.
            given = {name: answer for name, answer in answers.items() if name.isidentifier() and name[:1] != "_"}
            # cookiecutter takes an answer for a template of Jinja's, which runs what it is told to.
            if unfit := [name for name, answer in given.items() if JINJA.search(str(answer))]:
                raise ValueError(f"what Jinja would run, in {', '.join(unfit)}")
            return cls(address, commit, given)
        except FileNotFoundError:
            raise UnknownDriftError(
                "There is no .cruft.json, which says where this app comes from. Link it: .venv/bin/cruft link ADDRESS"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise UnknownDriftError(
                f".cruft.json is damaged ({type(error).__name__}: {error}). Take it from git, or remove it and link the"
                " app anew: .venv/bin/cruft link ADDRESS"
            ) from None


@dataclass(frozen=True)
class Generated:
    """The app that one commit of the template makes."""

    commit: str
    folder: Path
    files: Files
    guide: str

    @property
    def version(self) -> str:
        """The template's version, as the app knows it."""
        found = VERSION.search(self.files.get("app/project.py", b"").decode())
        return found[1] if found else "a version without a number"

    def by_hand(self, since: str) -> str:
        """Give what the upgrade guide asks for in the versions newer than ``since``, the oldest first."""
        sections = SECTION.split(self.guide)[1:]
        names = [section.split(maxsplit=1)[0] for section in sections]
        new = sections[: names.index(since)] if since in names else sections
        return "\n".join(section.strip() for section in reversed(new))


class Template:
    """A clone of the template in ``work``, a temporary folder. Raises ``UnknownDriftError`` when it can't be had."""

    def __init__(self, origin: Origin, work: Path) -> None:
        self._origin, self._work, self._clone = origin, work, work / "template.git"
        try:
            git("clone", "--quiet", "--bare", "--", origin.address, str(self._clone))
        except UnknownDriftError as error:
            raise UnknownDriftError(
                without_secrets(f"The template {origin.address} can't be had ({error}). Has it moved? See .cruft.json.")
            ) from None
        self.newest = self._in_clone("rev-parse", "HEAD").decode().strip()

    def commits_since(self, commit: str) -> int:
        """How many commits the newest has that ``commit`` has not."""
        return int(self._in_clone("rev-list", "--count", f"{commit}..{self.newest}"))

    def generate(self, commit: str) -> Generated:
        """Make the app of a commit, by the hooks of that commit. Raises ``UnknownDriftError`` when it can't be made."""
        source, out = self._work / f"{commit}-template", self._work / commit
        source.mkdir()
        try:
            # Into a folder without .git: the hooks would take it for a template that somebody generates from.
            self._in_clone(f"--work-tree={source}", "checkout", "--quiet", commit, "--", ".")
        except UnknownDriftError:
            raise UnknownDriftError(
                f"The template {self._origin.shown} has no commit {commit[:12]} (of .cruft.json): its history was cut"
                " (a shallow clone?) or rewritten."
            ) from None
        self._render(source, out)
        guide = source / "docs/upgrading.md"
        (folder,) = out.iterdir()
        return Generated(commit, folder, files(folder), guide.read_text(encoding="utf-8") if guide.exists() else "")

    def _render(self, source: Path, out: Path) -> None:
        # A configuration of its own: what the developer replays, and defaults of theirs, stay out of this.
        config = self._work / "cookiecutter.yaml"
        config.write_text(json.dumps({"replay_dir": str(self._work), "cookiecutters_dir": str(self._work)}))
        out.mkdir()
        given = [f"{name}={answer}" for name, answer in self._origin.answers.items()]
        command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
        try:
            # Its hooks are written where temporary files go, and stay there.
            place = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._work))
            run([*command, "--output-dir", str(out), str(source), *given], more=place)
        except UnknownDriftError as error:
            raise UnknownDriftError(
                f"The template at {source.name[:12]} makes no app of the answers in .cruft.json: {error}"
            ) from None

    def _in_clone(self, *arguments: str) -> bytes:
        return git(f"--git-dir={self._clone}", *arguments)
