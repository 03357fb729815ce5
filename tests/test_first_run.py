"""The first commands of a newcomer: what they say on a bare machine, what they install, and where they lead."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import App, Cookiecutter, commit, outside
from tests.programs import PROGRAMS
from tests.programs import app as of_app
from tests.test_lessons import apply, commands, page_of, right_fix

ROOT = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make") or "make"

# What a bare machine has all the same.
TOOLS = ("cat", "cp", "env", "mkdir", "sh", "sleep", "touch", "true")
# A stub that writes down how it was called.
RECORD = '#!/bin/sh\necho "${0##*/} $*" >>"$RECORD"\n'
# The rest of apt-get: what it installs is then there.
APT = 'echo "runlevel $RUNLEVEL, offline $SYSTEMD_OFFLINE" >>"$RECORD"\n[ "$2" != install ] || cp "$0" "$STUBS/{}"\n'

DEBIAN = {"ID": "debian"}
UBUNTU = {"ID": "neon", "ID_LIKE": "ubuntu debian"}


class Machine:
    """A machine on which nothing is installed. ``run`` gives a command's exit code and what it prints there."""

    def __init__(self, folder: Path, manager: str, release: dict[str, str] = DEBIAN, user: int = 1000) -> None:
        self.bin, self.record = folder / "bin", folder / "record"
        self.bin.mkdir()
        self.record.touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.stub(manager)
        (folder / "sitecustomize.py").write_text(
            f"import os, platform, sys\nos.geteuid = lambda: {user}\n"
            f"platform.freedesktop_os_release = lambda: {release!r}\n"
            + "sys.platform = 'darwin'\n"
            * (manager == "brew")
        )
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RECORD": str(self.record),
            "STUBS": str(self.bin),
        }

    def stub(self, name: str, rest: str = "") -> None:
        (self.bin / name).write_text(RECORD + rest)
        (self.bin / name).chmod(0o755)

    def run(self, folder: Path, *command: str | Path, **environment: str) -> tuple[int, str]:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
        )
        return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def generated(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated app. No test writes into it."""
    place = tmp_path_factory.mktemp("generated")
    return Cookiecutter(template, place / "out", place / "home").app()


LINES = {
    "apt-get": "sudo apt-get install chromium nginx redis-server clamav-daemon npm",
    "dnf": "sudo dnf install chromium nginx valkey clamd npm",
    "none": "the package manager of your system",
}
MORE = {
    "apt-get": " imagemagick fonts-dejavu-core webp git ghostscript make poppler-utils systemd",
    "dnf": " ImageMagick libwebp-tools git ghostscript make poppler-utils systemd",
    "none": "",
}


@pytest.mark.parametrize("manager", LINES)
@pytest.mark.parametrize("whose", ["template", "app"])
def test_without_rights_make_test_says_in_one_line_what_to_install_and_runs_no_test(
    template: Path, generated: Path, tmp_path: Path, whose: str, manager: str
) -> None:
    folder = template if whose == "template" else generated
    machine = Machine(tmp_path, manager)
    code, said = machine.run(folder, MAKE, "test", f"PYTHON={sys.executable}")
    line, *of_make = said.splitlines()
    assert code == 2
    assert line.startswith("Missing: ")
    assert line.endswith(f". Install with: {LINES[manager]}{MORE[manager] * (whose == 'template')}")
    assert [told for told in of_make if not told.startswith("make: ***")] == []
    assert machine.record.read_text() == ""
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize(
    ("manager", "line"), [("apt-get", "sudo apt-get install nginx"), ("brew", "brew install nginx")]
)
def test_where_the_system_has_no_chromium_that_works_playwright_brings_one_later(
    generated: Path, tmp_path: Path, manager: str, line: str
) -> None:
    machine = Machine(tmp_path, manager, UBUNTU)
    code, said = machine.run(generated, sys.executable, "-m", "tests.programs")
    assert code == 1
    assert said.startswith("Missing: nginx, redis-server, clamd, npm. Install with: " + line)


def test_on_windows_the_line_names_wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr("os.name", "nt")
        line = of_app.advice(PROGRAMS[:1])
    assert "WSL" in line


@pytest.mark.parametrize("user", [0, 1000], ids=["root", "sudo"])
def test_with_rights_apt_get_brings_what_is_missing_and_starts_no_service(
    template: Path, tmp_path: Path, user: int
) -> None:
    machine = Machine(tmp_path, "apt-get", user=user)
    names = [program.names[0] for program in PROGRAMS]
    machine.stub("apt-get", "".join(map(APT.format, names)))
    machine.stub("systemctl")
    if user:
        machine.stub("sudo", 'shift\nexec "$@"\n')
    machine.stub("git")  # this is there
    code, said = machine.run(template, sys.executable, "-m", "tests.programs")
    packages = f"{LINES['apt-get']}{MORE['apt-get']}".removeprefix("sudo apt-get install ").replace(" git ", " ")
    first, *_ = said.splitlines()
    assert (code, first) == (0, f"Installing {packages.replace(' ', ', ')} (apt-get)")
    record = [line for line in machine.record.read_text().splitlines() if not line.startswith("sudo")]
    assert [line for line in record if line.startswith(("apt-get", "systemctl"))] == [
        "apt-get --yes update",
        f"apt-get --yes install --no-install-recommends {packages}",
        "systemctl --quiet disable nginx redis-server clamav-daemon clamav-freshclam",
    ]
    assert {line for line in record if line.startswith("runlevel")} == {"runlevel 1, offline 1"}
    assert machine.run(template, sys.executable, "-m", "tests.programs") == (0, "")


def test_what_apt_get_fails_to_bring_is_said_in_one_line(generated: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path, "apt-get", user=0)
    code, said = machine.run(generated, sys.executable, "-m", "tests.programs")
    assert code == 1
    assert said.splitlines()[1:] == [
        f"Missing: chromium, nginx, redis-server, clamd, npm. Install with: {LINES['apt-get']}"
    ]


@pytest.mark.parametrize("whose", ["template", "app"])
def test_a_python_without_venv_is_told_before_one_is_made(
    template: Path, generated: Path, tmp_path: Path, whose: str
) -> None:
    folder = template if whose == "template" else generated
    machine = Machine(tmp_path, "apt-get")
    with (tmp_path / "sitecustomize.py").open("a") as file:
        file.write("sys.modules['ensurepip'] = None\n")
    _, said = machine.run(folder, MAKE, ".venv/installed", f"PYTHON={sys.executable}")
    package = f"python3.{sys.version_info.minor}-venv"
    assert said.splitlines()[0] == f"Missing: venv. Install with: sudo apt-get install {package}"
    assert not (folder / ".venv").exists()


def test_pytest_stops_with_that_line_if_a_chosen_test_starts_a_missing_program(
    default_app: App, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, "apt-get")

    def pytest_there(*arguments: str, **environment: str) -> tuple[int, str]:
        command = [default_app.folder / ".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return machine.run(default_app.folder, *command, **environment)

    line = "Missing: chromium, redis-server. Install with: sudo apt-get install chromium redis-server"
    both = ("tests/test_08_rate_limits.py", "tests/browser/test_pages.py")
    for how in ([], ["-n2"]):
        code, said = pytest_there(*both, "-k", "loss_of_redis or test_pages", *how)
        assert (code, said.count(line)) == (3, 1), said
        assert not re.search(r"passed|failed|error|skipped", said)
    code, said = pytest_there("tests/browser/test_pages.py", CHROMIUM="/nowhere")
    assert (code, said.count("CHROMIUM=/nowhere: there is no such program.")) == (3, 1), said
    # None has to be there for these.
    code, said = pytest_there("tests/test_08_rate_limits.py", "-k", "starts_without_its_redis")
    assert (code, bool(re.search(r"\d passed", said))) == (0, True), said


# In the place of Python: it makes a virtual environment of stubs.
PYTHON = f"""#!/bin/sh
case "$*" in
*tests.programs*) ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$STUBS/stubs/"* "$3/bin" ;;
*tests.clean_copy*) exec {shlex.quote(sys.executable)} "$@" ;;
*) echo "python $*" ;;
esac
"""
STUBS = {
    "python": PYTHON,
    "pip": "#!/bin/sh\n",
    "cookiecutter": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cookiecutter "$@"\n',
    "flask": '#!/bin/sh\necho "flask $*"\n',
}


def make(folder: Path, stubs: Path, *arguments: str) -> str:
    """Run make where Python, pip and Flask are stubs, and give what it prints."""
    (stubs / "stubs").mkdir(parents=True, exist_ok=True)
    for name, text in STUBS.items():
        (stubs / "stubs" / name).write_text(text)
        (stubs / "stubs" / name).chmod(0o755)
    command = [MAKE, *arguments, f"PYTHON={stubs / 'stubs/python'}"]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=outside() | {"STUBS": str(stubs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_the_first_block_of_the_readme_is_make_demo_and_make_test() -> None:
    block = re.findall(r"(?ms)^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"))[0]
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]


def test_a_reader_gets_from_the_readmes_first_line_to_a_solved_lesson(
    template: Path, default_app: App, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """With each command as it is written. The packages of the demo are those of ``default_app``, installed once."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    chapters = dict(re.findall(r"(?ms)^## (.*?)\n(.*?)(?=^## |\Z)", readme))
    (first, *_), (into, *rest) = (commands(chapters[name]) for name in ("Two commands", "Learn from it"))
    assert (first, into) == ("make demo", "cd demo")
    clone, begun = tmp_path / "clone", time.monotonic()
    shutil.copytree(template, clone)
    commit(clone)
    said = make(clone, tmp_path / "bin", *first.split()[1:])
    assert "Starting at http://127.0.0.1:8000 " in said
    again = make(clone, tmp_path / "bin", "demo", "PORT=8123")  # which keeps the demo
    for told, port in ((said, "8000"), (again, "8123")):
        assert "The demo is in demo/." in told
        assert f"flask --app app run --port {port}\n" in told
        assert not re.search(r"cruft|demo/demo", told)
    assert "8000" not in again

    demo, venv = clone / into.split()[1], f"{default_app.folder}/.venv"
    names = {f"GIT_{who}_{what}": "ann@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    page = page_of(demo, 1).partition("\n## The mitigation")[0]
    typed = [*rest, *commands(page)]
    for command in typed:
        if command.endswith("DO=check"):  # the reader has written the right fix
            apply(demo, right_fix(1))
        command = f"! {command}" if "tools.audit" in command else command  # it finds the fault, and exits with 1
        command = command.replace(".venv", venv).replace("make lesson", f"make VENV={venv} lesson")
        said += default_app.run("sh", "-c", command, cwd=demo, **names)
    assert re.findall("THE ATTACK [A-Z]+|The fix holds", said) == [
        "THE ATTACK WINS",
        "The fix holds",
        "THE ATTACK FAILS",
    ]
    walk = "; ".join([first, into, *typed])
    took = f"{time.monotonic() - begun:.0f} s, and before that {default_app.took.read_text()} s for the app's packages"
    record_property("from the README to a solved lesson", f"{walk}: {took}")


@pytest.mark.parametrize("accounts", ["yes", "no", "switched off"])
def test_make_run_makes_what_a_colleague_s_clone_lacks_first(
    cookiecutter: Cookiecutter, tmp_path: Path, accounts: str
) -> None:
    app = cookiecutter.app(f"accounts={accounts}" if accounts != "switched off" else "accounts=yes")
    if accounts == "switched off":  # which leaves the folder
        assert cookiecutter.run("-f", "accounts=no").returncode == 0
        assert (app / "app/accounts").is_dir()
    (app / ".env").unlink()
    told = make(app, tmp_path / "bin", "run", "PORT=8123")
    said = [line for line in told.splitlines() if line.startswith(("flask", "python", "Making", "There", "Starting"))]
    upgrade = ["flask --app app db upgrade"] * (accounts == "yes")
    assert said == [
        "Making .venv and installing the packages of requirements.txt and requirements-dev.txt:",
        "There is no .env (git never has it): making one with a new secret key",
        "python -m app.security.secret_key new",
        "Starting at http://127.0.0.1:8123 (Ctrl-C stops it)",
        *upgrade,
        "flask --app app run --port 8123",
    ]


@pytest.mark.parametrize("out", [".", "apps/of the shop"])
def test_the_next_steps_work_as_typed_where_cookiecutter_was_called(cookiecutter: Cookiecutter, out: str) -> None:
    process = cookiecutter.run("-o", out)
    assert process.stdout == ""  # which cruft prints a patch to
    assert "cruft" not in process.stderr
    cd, git, run, test = [line for line in process.stderr.splitlines() if line.startswith("  ")]
    assert run.split("#")[0].split() == ["make", "run"]
    assert test.split("#")[0].split() == ["make", "test"]
    author = {"GIT_CONFIG_GLOBAL": str(cookiecutter.home / "gitconfig")}
    (cookiecutter.home / "gitconfig").write_text("[user]\nname = Ann\nemail = ann@example.com\n")
    typed = f"{cd}\n{git}\npwd\ngit status --porcelain\n"
    ended = subprocess.run(
        ["sh", "-e"],
        input=typed,
        cwd=cookiecutter.out,
        env=outside() | author,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == str((cookiecutter.out / out / "secure-flask-app").resolve())


def test_in_a_repository_no_step_makes_another(cookiecutter: Cookiecutter) -> None:
    cookiecutter.out.mkdir()
    (cookiecutter.out / "README.md").touch()
    commit(cookiecutter.out)
    assert "git" not in cookiecutter.run().stderr.replace("keep that out of git", "")


def test_called_from_elsewhere_the_folder_is_told_in_full(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    process = cookiecutter.run("-o", str(tmp_path / "elsewhere"))
    assert f"  cd {tmp_path.resolve()}/elsewhere/secure-flask-app\n" in process.stderr
