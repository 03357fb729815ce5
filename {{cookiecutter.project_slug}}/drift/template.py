"""The template that this app came from, at two of its commits, and the app that each makes of the same answers."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from drift.changes import Files, files

HOUR = 3600  # seconds: a large history on a slow line
VERSION = re.compile(r'(?m)^TEMPLATE_VERSION = "([\w.+-]+)"$')
PASSWORD = re.compile(r"//[^/@]*@")
SECTION = re.compile(r"(?m)^## ")


class UnknownDriftError(Exception):
    """What there is to say can't be known. The message is one line, with what would mend it."""


@dataclass(frozen=True)
class Origin:
    """What ``.cruft.json`` says: where the template is, which of its commits was used, and the answers given then."""

    address: str
    commit: str
    answers: dict[str, object]

    @property
    def shown(self) -> str:
        """The address without a password that may be in it."""
        return PASSWORD.sub("//", self.address)

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
            return cls(address, commit, given)
        except FileNotFoundError:
            raise UnknownDriftError(
                "There is no .cruft.json, which says where this app comes from. Link it: .venv/bin/cruft link ADDRESS"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
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
            _git("clone", "--quiet", "--bare", "--", origin.address, str(self._clone))
        except UnknownDriftError as error:
            raise UnknownDriftError(
                f"The template {origin.shown} can't be had ({error}). Has it moved? See .cruft.json."
            ) from None
        self.newest = self._in_clone("rev-parse", "HEAD").decode().strip()

    def commits_since(self, commit: str) -> int:
        """How many commits the newest has that ``commit`` has not."""
        return int(self._in_clone("rev-list", "--count", f"{commit}..{self.newest}"))

    def generate(self, commit: str) -> Generated:
        """Make the app of a commit, by the hooks of that commit. Raises ``UnknownDriftError`` when it can't be made."""
        source, out = self._work / f"{commit}-template", self._work / commit
        try:
            archive = self._in_clone("archive", "--format=tar", commit)
        except UnknownDriftError:
            raise UnknownDriftError(
                f"The template {self._origin.shown} has no commit {commit[:12]} (of .cruft.json): its history was cut"
                " (a shallow clone?) or rewritten."
            ) from None
        # Without its .git: the hooks would take it for a template that somebody generates from.
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(source, filter="data")
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
        ended = _run([*command, "--output-dir", str(out), str(source), *given])
        if ended.returncode:
            raise UnknownDriftError(
                f"The template at {source.name[:12]} makes no app of the answers in .cruft.json: {_last_line(ended)}"
            )

    def _in_clone(self, *arguments: str) -> bytes:
        return _git(f"--git-dir={self._clone}", *arguments)


def _git(*arguments: str) -> bytes:
    ended = _run(["git", *arguments])
    if ended.returncode:
        raise UnknownDriftError(_last_line(ended))
    return ended.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    # No question may wait for an answer that nobody can give, and no git hook's GIT_DIR may lead elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    try:
        return subprocess.run(  # noqa: S603 - git and this Python, with arguments that no shell sees
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=HOUR
        )
    except FileNotFoundError:
        raise UnknownDriftError(f"{command[0]} is not installed") from None


def _last_line(ended: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line for line in (ended.stdout + ended.stderr).decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {ended.returncode}"
