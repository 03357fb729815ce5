"""What comes out for each choice of options, twice, over an older app, and through cruft."""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import Cookiecutter, files

# What each option adds. Written by hand: it is what the README promises, whatever the hooks do.
ADDED = {
    "accounts": [r"app/accounts/.*", r"docs/accounts\.md", r"tests/accounts/.*", r"deploy/postgres\.sql"],
    "docker": [r"\.dockerignore", r"deploy/(Dockerfile|(compose|kubernetes)\.yaml)"],
    "ci": [r"\.github/.*"],
    "lessons": [r"(docs|tools)/lessons/.*"],
}
COMBINATIONS = list(itertools.product(("yes", "no"), ("yes", "no"), ("github", "none"), ("yes", "no")))
NO = ("no", "none")
SECRET = re.compile(r"SECRET_KEY=([0-9a-f]{96})\n", re.ASCII)

MARK = re.compile(rb"# % |\{\{ ?cookiecutter|_cookiecutter")


def settled(source: str, *, accounts: bool) -> list[str]:
    """Lines of Python with those of the option in or out; how many blank ones there are is for the formatter to say."""
    lines = [line.partition("  # % if cookiecutter.accounts") for line in source.splitlines() if line]
    return [code for code, mark, _ in lines if accounts or not mark]


def answers(combination: tuple[str, ...]) -> list[str]:
    return [f"{option}={answer}" for option, answer in zip(ADDED, combination, strict=True)]


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_each_combination_holds_its_files_and_no_rest_of_the_template(
    cookiecutter: Cookiecutter, template: Path, combination: tuple[str, ...]
) -> None:
    app = cookiecutter.app(*answers(combination))
    source, got = files(template / APP), files(app)

    left_out = [
        pattern for option, answer in zip(ADDED, combination, strict=True) if answer in NO for pattern in ADDED[option]
    ]
    expected = {name for name in source if not any(re.fullmatch(pattern, name) for pattern in left_out)}
    expected = expected - {"requirements-no-accounts.txt"} | {".env"}
    assert got.keys() == expected

    for name, content in got.items():
        if name.endswith(".py"):
            ast.parse(content, name)
            if name != "app/project.py":
                wanted = settled(source[name].decode(), accounts=combination[0] == "yes")
                assert [line for line in content.decode().splitlines() if line] == wanted
        elif name not in (".env", "requirements.txt") and not MARK.search(source[name]):
            assert content == source[name], f"{name} has something in it that Jinja took for its own"
        assert not MARK.search(content), name
        assert not re.search(rb"\n\n\Z|\r", content), name
    tomllib.loads(got["pyproject.toml"].decode())

    accounts = combination[0] not in NO
    assert got["requirements.txt"] == source["requirements.txt" if accounts else "requirements-no-accounts.txt"]
    # The audit asks whether an app has accounts, and names what it then looks at; some recipes need them.
    told = ("tools/audit/", "docs/cookbook.md")
    own = b"".join(content for name, content in got.items() if not name.startswith(told))
    assert (b"sqlalchemy" in own.lower()) is accounts

    for command in (["check"], ["format", "--check"]):
        ruff = subprocess.run([sys.executable, "-m", "ruff", *command, "--no-cache"], cwd=app, capture_output=True)
        assert ruff.returncode == 0, ruff.stdout.decode()


def test_every_path_that_an_option_leaves_out_is_in_the_template(template: Path) -> None:
    optional = json.loads((template / "cookiecutter.json").read_text())["_optional"]
    assert {option for _, option in optional} == ADDED.keys()
    assert [path for path, _ in optional if not (template / APP / path).exists()] == []


def test_few_lines_of_python_depend_on_an_option(template: Path) -> None:
    """An option is a folder. What joins it to the app is marked, a line at a time."""
    python = [content for name, content in files(template / APP).items() if name.endswith(".py")]
    assert sum(len(re.findall(rb"# % ", content)) for content in python) <= 5


def test_the_hooks_stay_short(template: Path, record_property: pytest.RecordProperty) -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (template / "hooks").glob("*.py"))
    record_property("hooks", f"{lines} lines")
    assert lines <= 220


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("MIT", "MIT License"),
        ("BSD-3-Clause", "BSD 3-Clause License"),
        ("Apache-2.0", "                                 Apache License"),
        ("Proprietary", "Copyright (c) Ann O'Brien. All rights reserved."),
    ],
)
def test_each_license_is_one_text(cookiecutter: Cookiecutter, name: str, line: str) -> None:
    text = (cookiecutter.app(f"license={name}", "author_name=Ann O'Brien") / "LICENSE").read_text()
    assert text.splitlines()[0] == line
    assert ("Ann O'Brien" in text) is (name != "Apache-2.0")
    assert len(re.findall(r"MIT License|BSD 3-Clause|Apache License\n|All rights reserved\.", text)) == 1


def test_two_apps_differ_in_nothing_but_their_key(cookiecutter: Cookiecutter, template: Path, tmp_path: Path) -> None:
    elsewhere = Cookiecutter(template, tmp_path / "elsewhere", tmp_path / "other-home")
    one, other = files(cookiecutter.app()), files(elsewhere.app())
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == [".env"]


def test_1_S1_the_key_is_random(cookiecutter: Cookiecutter) -> None:
    keys = [SECRET.fullmatch((cookiecutter.app(f"project_slug=app-{n}") / ".env").read_text())[1] for n in range(3)]
    assert len(set(keys)) == 3
    # 96 characters of 16 kinds hold 384 bits; that many random ones are about evenly spread (4 bits each).
    counts = Counter("".join(keys)).values()
    assert -sum(n / 288 * math.log2(n / 288) for n in counts) > 3.8


def test_1_S2_the_key_is_in_env_alone(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    process = cookiecutter.run("-v", "--debug-file", str(tmp_path / "debug.log"))
    (app,) = cookiecutter.out.iterdir()
    assert (app / ".env").stat().st_mode & 0o777 == (0o600 if os.name == "posix" else 0o666)
    key = SECRET.fullmatch((app / ".env").read_text())[1].encode()
    holders = [name for name, content in files(tmp_path).items() if key in content]
    assert holders == [f"out/{app.name}/.env"]
    assert key.decode() not in process.stdout + process.stderr
    assert subprocess.run(["git", "init", "-q", app], check=True).returncode == 0
    assert subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=app).returncode == 0


@pytest.mark.parametrize("how", [["-f"], ["-f", "-s"], ["-f", "--replay"]], ids=" ".join)
def test_1_S2_an_env_that_is_there_stays(cookiecutter: Cookiecutter, how: list[str]) -> None:
    env = cookiecutter.app() / ".env"
    env.write_text("SECRET_KEY=ours\n")
    before = env.stat()
    process = cookiecutter.run(*how, no_input="--replay" not in how)
    assert process.returncode == 0, process.stderr
    assert env.read_text() == "SECRET_KEY=ours\n"
    assert (env.stat().st_ino, env.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.skipif(os.name != "posix", reason="making a link needs a right on Windows")
def test_1_S2_the_key_is_not_written_through_a_link(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    env = cookiecutter.app() / ".env"
    env.unlink()
    env.symlink_to(tmp_path / "elsewhere.txt")
    assert cookiecutter.run("-f").returncode == 0
    assert not (tmp_path / "elsewhere.txt").exists()


def test_generating_again_brings_the_template_s_files_back_and_keeps_the_team_s(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    before = files(app)
    (app / "wsgi.py").write_text("broken")
    (app / "app/views/shop.py").write_text("ours")
    (app / "instance/uploads").mkdir(parents=True)
    (app / "instance/uploads/a").write_text("theirs")
    assert cookiecutter.run("-f").returncode == 0
    assert files(app) == before | {"app/views/shop.py": b"ours", "instance/uploads/a": b"theirs"}


def test_replaying_over_an_app_changes_nothing(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app("accounts=no", "project_name=Shop", "ci=none")
    before = files(app)
    assert cookiecutter.run("-f", "--replay", no_input=False).returncode == 0
    assert files(app) == before


def test_the_team_s_files_of_a_left_out_name_stay(cookiecutter: Cookiecutter) -> None:
    answers = ["accounts=no", "docker=no", "ci=none", "lessons=no"]
    app = cookiecutter.app(*answers)
    ours = ["app/accounts/models.py", "app/accounts/roles.py", ".github/workflows/deploy.yml", "deploy/Dockerfile"]
    for name in ours:
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("ours")
    (app / "docs/lessons").symlink_to("../app")
    before = files(app)
    process = cookiecutter.run("-f", *answers)
    assert files(app) == before
    assert (app / "docs/lessons").readlink() == Path("../app")
    for path in ("app/accounts", ".github", "deploy/Dockerfile", "docs/lessons"):
        assert f"  {path}\n" in process.stderr


def test_an_option_switched_off_leaves_what_was_there_and_says_so(cookiecutter: Cookiecutter) -> None:
    """As cookiecutter itself removes nothing; cruft does, which knows what the team edited."""
    app = cookiecutter.app()
    (app / "deploy/compose.yaml").write_text("edited")
    before = files(app)
    process = cookiecutter.run("-f", "docker=no")
    after = files(app)
    for name in (".dockerignore", "deploy/Dockerfile", "deploy/compose.yaml"):
        assert after[name] == before[name]
    assert "they stay:\n  .dockerignore\n  deploy/Dockerfile\n  deploy/compose.yaml\n" in process.stderr


@pytest.mark.parametrize("in_its_place", ["the template's", None])
def test_a_run_that_broke_off_loses_no_file_of_the_team(cookiecutter: Cookiecutter, in_its_place: str | None) -> None:
    app = cookiecutter.app("docker=no")
    # As a crash leaves it: the team's file saved, and the template's in its place, or not yet or no longer.
    (app / "deploy/Dockerfile.generating").write_text("ours")
    if in_its_place:
        (app / "deploy/Dockerfile").write_text(in_its_place)
    assert cookiecutter.run("-f", "docker=no").returncode == 0
    assert (app / "deploy/Dockerfile").read_text() == "ours"
    assert not (app / "deploy/Dockerfile.generating").exists()


@pytest.mark.parametrize("name", [".env", ".env.production", "instance/app.db", "deploy/tls/privkey.pem"])
def test_what_an_app_left_in_the_template_s_own_folder_gets_into_no_app(
    template: Path, tmp_path: Path, cookiecutter: Cookiecutter, name: str
) -> None:
    """Its key would be in every app, and over that of an older one."""
    app = cookiecutter.app()
    before = files(app)
    shutil.copytree(template, tmp_path / "used")
    (tmp_path / "used" / APP / name).parent.mkdir(exist_ok=True)
    (tmp_path / "used" / APP / name).write_text("SECRET_KEY=of the template's developer")
    for source in (tmp_path / "used", Path("../used")):
        cookiecutter.template = source
        process = cookiecutter.run("-f")
        assert process.returncode == 1
        assert f"own folder, and left {Path(name).parent.name or name} there, which would be copied. " in process.stderr
        assert files(app) == before


def test_a_bad_answer_harms_no_older_app(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    before = files(app)
    assert cookiecutter.run("-f", "author_name=").returncode == 1
    assert files(app) == before


def test_without_f_an_older_app_is_not_touched(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    before = files(app)
    process = cookiecutter.run()
    assert process.returncode == 1
    assert "already exists" in process.stdout
    assert files(app) == before


def test_a_failed_run_that_is_kept_holds_no_file(cookiecutter: Cookiecutter) -> None:
    assert cookiecutter.run("--keep-project-on-failure", "author_name=").returncode == 1
    assert files(cookiecutter.out) == {}


def test_keep_project_on_failure_changes_no_success(cookiecutter: Cookiecutter) -> None:
    assert (cookiecutter.app("--keep-project-on-failure") / ".env").exists()


def test_answers_typed_at_the_prompts(cookiecutter: Cookiecutter) -> None:
    typed = ["Shop of Ann", "", "Sells things.", "Ann", "ann@example.com", "3", "n", "y", "2", "n"]
    process = cookiecutter.run(no_input=False, typed="\n".join([*typed, ""]))
    assert process.returncode == 0, process.stderr
    app = cookiecutter.out / "shop-of-ann"
    assert "Apache License" in (app / "LICENSE").read_text()
    there = {name: (app / name).exists() for name in ("app/accounts", "deploy/Dockerfile", ".github", "docs/lessons")}
    assert there == {"app/accounts": False, "deploy/Dockerfile": True, ".github": False, "docs/lessons": False}


# What other systems do otherwise, as far as it can be had here: Windows renames over no file and knows no modes, and
# its files are read and written in a code page unless a program says otherwise.
ELSEWHERE = """
import os

rename = os.rename

def rename_to_a_free_name(source, target, **options):
    if os.path.exists(target):
        raise FileExistsError(target)
    rename(source, target, **options)

os.rename = rename_to_a_free_name
os.chmod = lambda *arguments, **options: None
"""
CODE_PAGE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}


def test_on_windows_by_its_rules_the_same_app_comes_out(
    cookiecutter: Cookiecutter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated, and again over it with options switched off beside a file of the team's."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/sitecustomize.py").write_text(ELSEWHERE)
    cookiecutter.home.mkdir()
    answers = "default_context: {project_name: Fahrradgeschäft 自転車, project_slug: shop}"
    (cookiecutter.home / ".cookiecutterrc").write_text(answers, encoding="utf-8")

    def both(*arguments: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
        results = []
        for out in (tmp_path / "windows", tmp_path / "here"):
            cookiecutter.out = out
            with monkeypatch.context() as there:
                if out.name == "windows":
                    there.setenv("PYTHONPATH", str(tmp_path / "rules"))
                    for name, value in CODE_PAGE.items():
                        there.setenv(name, value)
                assert cookiecutter.run(*arguments).returncode == 0
            results.append(files(out / "shop"))
            del results[-1][".env"]
            (out / "shop/deploy/compose.yaml").write_text("ours")
        return results[0], results[1]

    windows, here = both()
    assert windows == here
    windows, here = both("-f", "accounts=no", "docker=no", "ci=none", "lessons=no")
    assert windows == here
    assert here["deploy/compose.yaml"] == b"ours"
