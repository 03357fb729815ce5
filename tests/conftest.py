"""What the tests of the template share: a clean copy of it, and cookiecutter as people call it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.clean_copy import clean_copy
from tests.programs import PROGRAMS, from_app
from tests.programs import app as of_app

# These run where Flask and Playwright are: see tests/test_naive_run.py, tests/test_audit.py and tests/test_grown.py.
collect_ignore = ["grown", "of_the_tools", *([] if importlib.util.find_spec("playwright") else ["test_naive.py"])]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(from_app("tests/progress.py").Progress())


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start one worker more than there are cores: some tests wait for a program."""
    return (yield) + 1


# The tests that take the longest. The first two make an environment each, while others need none.
LONG = (
    "test_tests_with_the_defaults",
    "test_linters_and_tests_without_options",
    "test_the_image_is_built_and_runs",
    "test_the_tests_of_a_grown_app_are_green",
    "test_a_year",
    "test_linters_with_the_defaults_and_in_place",
    "test_every_attack_on_the_naive_app_succeeds",
    "test_the_tests_of_the_tools_pass_in_a_generated_app",
    "test_every_edit_is_kept_or_marked",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first, so that no core is idle at the end.

    pytest-xdist cuts the list into a part for each worker. Each part begins with some of these, and then has its tests
    without the default app, which takes a while to make.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for name in LONG for item in items if getattr(item, "originalname", "") == name]
    others, parts = [item for item in items if item not in long], []
    for number in range(workers):
        first = long[number::workers]
        size = (len(items) - sum(map(len, parts))) // (workers - number) - len(first)
        rest, others = others[: max(size, 0)], others[max(size, 0) :]
        rest.sort(key=lambda item: "default_app" in getattr(item, "fixturenames", ()))
        parts.append([*first, *rest])
    items[:] = [item for part in parts for item in part]


def pytest_sessionstart() -> None:
    if "CI_GENERATION_ONLY" not in os.environ and (absent := of_app.missing(PROGRAMS)):
        pytest.exit(of_app.advice(absent), returncode=3)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


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
        environment = (
            {"PYTHONUTF8": "1"}
            | os.environ
            | {"PWD": str(self.out), "HOME": str(self.home), "USERPROFILE": str(self.home)}
        )
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


def check_all_passed(printed: str) -> str:
    """The last line of pytest's that counts tests: every one passed, none was skipped."""
    counts = re.findall(r"=+ (.*\b\d+ passed.*) in .*=+", printed)[-1]
    assert re.fullmatch(r"\d+ passed", counts), counts
    return counts


@dataclass
class App:
    """A generated app with its own virtual environment, made by its own Makefile."""

    folder: Path

    @property
    def took(self) -> Path:
        """A file with the seconds that its packages and programs took to install."""
        return self.folder.parent.parent / "seconds"

    def quick_tests(self, folder: Path) -> str:
        """Run a part of the tests of another app, which have to pass, and give the last line that counts them."""
        quick = [f"tests/{name}.py" for name in ("test_02_csrf", "test_04_cookies", "test_pages")]
        pytest = self.folder / ".venv/bin/pytest"
        return check_all_passed(self.run(pytest, "--sample=10", "--in-process", "tests/lint", *quick, cwd=folder))

    def make(self, *targets: str, cwd: Path | None = None, **environment: str) -> str:
        """Run targets, which have to succeed, and give what they print; ``cwd`` is another folder with the Makefile."""
        return self.run(
            "make", *targets, f"PYTHON={sys.executable}", f"VENV={self.folder}/.venv", cwd=cwd, **environment
        )

    def run(self, *command: str | Path, cwd: Path | None = None, **environment: str) -> str:
        """Run a command in the app's folder, or in another, which has to succeed, and give what it prints."""
        process = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=outside() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=2400,
        )
        assert process.returncode == 0, process.stdout[-20_000:]
        return process.stdout


@pytest.fixture(scope="session")
def default_app(template: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The app as ``--no-input`` generates it, once for all workers of pytest-xdist.

    Tests run in it at the same time, so none writes into it but for caches.
    """
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "default"
    with FileLock(f"{folder}.lock"):
        app = App(folder / "out/secure-flask-app")
        if not app.folder.exists():
            folder.mkdir(exist_ok=True)  # an attempt of another worker may have failed
            Cookiecutter(template, folder / "out", folder / "home").app()
        if not app.took.exists():
            begun = time.monotonic()
            app.make("programs")
            app.took.write_text(f"{time.monotonic() - begun:.0f}")
    return app


def outside() -> dict[str, str]:
    """The environment without what the pytest, the make or the git hook that runs this has put there."""
    ours = ("FLASK", "GIT_", "MAKE", "MFLAGS", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def edit(folder: Path, changes: dict[str, tuple[str, str]]) -> None:
    """In each file, which holds the first text once, put the second in its place."""
    for name, (before, after) in changes.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, name
        (folder / name).write_text(text.replace(before, after), encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    """Every file under the folder: its path, with forward slashes, and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# For git, before a command that commits.
AUTHOR = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")


def commit(folder: Path) -> None:
    """Commit everything there, in a repository that is made if there is none."""
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder, check=True)
    for command in (["add", "--all"], [*AUTHOR, "commit", "--quiet", "--message=all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
