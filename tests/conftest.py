"""What the tests of the template share: a clean copy of it, and cookiecutter as people call it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clean_copy import clean_copy

APP = "{{cookiecutter.project_slug}}"


@dataclass
class Cookiecutter:
    """``cookiecutter`` with a home of its own. ``run("project_slug=x", "-f")`` gives the ended process."""

    template: Path
    out: Path
    home: Path

    @property
    def replay_file(self) -> Path:
        return self.home / ".cookiecutter_replay" / f"{self.template.name}.json"

    def run(
        self, *arguments: str, no_input: bool = True, typed: str | None = None, program: str = "cookiecutter"
    ) -> subprocess.CompletedProcess[str]:
        self.out.mkdir(exist_ok=True)
        command = [sys.executable, "-m", program, str(self.template), *["--no-input"] * no_input, *arguments]
        environment = os.environ | {"HOME": str(self.home), "USERPROFILE": str(self.home), "PYTHONUTF8": "1"}
        return subprocess.run(
            command, cwd=self.out, env=environment, input=typed, capture_output=True, encoding="utf-8", timeout=60
        )

    def app(self, *arguments: str) -> Path:
        """Generate an app, which has to succeed, and give its folder."""
        before = set(self.out.iterdir()) if self.out.exists() else set()
        process = self.run(*arguments)
        assert process.returncode == 0, process.stderr
        (app,) = set(self.out.iterdir()) - before
        return app


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("template") / "cookiecutter-secure-flask"
    clean_copy(target)
    return target


@pytest.fixture
def cookiecutter(template: Path, tmp_path: Path) -> Cookiecutter:
    return Cookiecutter(template, tmp_path / "out", tmp_path / "home")


def files(folder: Path) -> dict[str, bytes]:
    """Every file under the folder: its path, with forward slashes, and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
