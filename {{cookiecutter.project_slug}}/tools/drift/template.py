"""The template of this app, at two of its commits, and the app that each generates from the same answers."""

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
    """Return a text without the passwords and tokens in its addresses."""
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"(?<=://)[^/\s]*@", "", text))


@dataclass(frozen=True)
class Origin:
    """The content of ``.cruft.json``: the address of the template, the commit that was used, and the answers."""

    address: str
    commit: str
    answers: dict[str, object]

    @property
    def shown(self) -> str:
        """The address without passwords."""
        return without_secrets(self.address)

    @classmethod
    def of(cls, project: Path) -> Origin:
        """Read it. Raises ``UnknownDriftError`` when it is missing or damaged."""
        try:
            state = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
            address, commit, answers = state["template"], state["commit"], state["context"]["cookiecutter"]
            if not isinstance(address, str) or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
                raise ValueError("template or commit")
            # Names with an underscore are the template's own. Anything but a name could be an option of cookiecutter.
            given = {name: answer for name, answer in answers.items() if name.isidentifier() and name[:1] != "_"}
            # cookiecutter renders each answer as a Jinja template, which can run code.
            if unfit := [name for name, answer in given.items() if JINJA.search(str(answer))]:
                raise ValueError(f"Jinja code in {', '.join(unfit)}")
            return cls(address, commit, given)
        except FileNotFoundError:
            raise UnknownDriftError(
                "There is no .cruft.json, so the template of this app is unknown. Link it: .venv/bin/cruft link ADDRESS"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise UnknownDriftError(
                f".cruft.json is damaged ({type(error).__name__}: {error}). Restore it from git, or remove it and link"
                " the app again: .venv/bin/cruft link ADDRESS"
            ) from None


@dataclass(frozen=True)
class Generated:
    """The app that one commit of the template generates."""

    commit: str
    folder: Path
    files: Files
    guide: str

    @property
    def version(self) -> str:
        """The version of the template that the app states."""
        found = VERSION.search(self.files.get("app/project.py", b"").decode())
        return found[1] if found else "a version without a number"

    def by_hand(self, since: str) -> str:
        """Return the sections of the upgrade guide for the versions newer than ``since``, oldest first."""
        sections = SECTION.split(self.guide)[1:]
        names = [section.split(maxsplit=1)[0] for section in sections]
        new = sections[: names.index(since)] if since in names else sections
        return "\n".join(section.strip() for section in reversed(new))


class Template:
    """A clone of the template in ``work``, a temporary folder. Raises ``UnknownDriftError`` when git can't clone it."""

    def __init__(self, origin: Origin, work: Path) -> None:
        self._origin, self._work, self._clone = origin, work, work / "template.git"
        try:
            git("clone", "--quiet", "--bare", "--", origin.address, str(self._clone))
        except UnknownDriftError as error:
            raise UnknownDriftError(
                without_secrets(
                    f"The template {origin.address} can't be cloned ({error}). See the address in .cruft.json."
                )
            ) from None
        self.newest = self._in_clone("rev-parse", "HEAD").decode().strip()

    def commits_since(self, commit: str) -> int:
        """Return the number of commits from ``commit`` to the newest."""
        return int(self._in_clone("rev-list", "--count", f"{commit}..{self.newest}"))

    def generate(self, commit: str) -> Generated:
        """Generate the app of a commit, with the hooks of that commit. Raises ``UnknownDriftError`` when that fails."""
        source, out = self._work / f"{commit}-template", self._work / commit
        source.mkdir()
        try:
            # The folder has no .git: otherwise the hooks would take it for a template that somebody generates from.
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
        # The developer's own replay files and defaults must not count, hence this configuration.
        config = self._work / "cookiecutter.yaml"
        config.write_text(json.dumps({"replay_dir": str(self._work), "cookiecutters_dir": str(self._work)}))
        out.mkdir()
        given = [f"{name}={answer}" for name, answer in self._origin.answers.items()]
        command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
        try:
            # cookiecutter writes the hooks to the folder for temporary files and leaves them there.
            place = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self._work))
            run([*command, "--output-dir", str(out), str(source), *given], more=place)
        except UnknownDriftError as error:
            raise UnknownDriftError(
                f"The template at {source.name[:12]} generates no app from the answers in .cruft.json: {error}"
            ) from None

    def _in_clone(self, *arguments: str) -> bytes:
        return git(f"--git-dir={self._clone}", *arguments)
