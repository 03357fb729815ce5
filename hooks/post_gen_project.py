"""Finish a generated app: drop what the answers leave out, name it, give it a key, link it to the template's commit.

Python comes here as it is in the template, where it runs unrendered: Jinja would take the braces in it for its own.
What depends on an option stands between ``# % if cookiecutter.accounts`` and ``# % endif``, and is settled below.

Runs in the app's folder, also through cruft, where that is a temporary one without git. It prints to standard error,
because ``cruft diff`` prints a patch to standard output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable

STATE = ".generating"

ACCOUNTS = "{{ cookiecutter.accounts }}" == "True"
IF, END = "# % if cookiecutter.accounts", "# % endif"

# Every file with such marks. A mark that stays in a file that is not here fails the template's tests.
MARKED = (
    "app/__init__.py",
    "app/settings.py",
    "tests/browser/conftest.py",
    "tests/browser/test_pages.py",
    "tests/conftest.py",
    "tests/test_02_csrf.py",
    "tests/test_07_templates.py",
    "tests/test_08_rate_limits.py",
    "tests/test_09_uploads.py",
    "tests/test_10_urls.py",
    "tests/test_pages.py",
    "tests/test_scanners.py",
)

# The pre-gen hook lets nothing through that could end a Python literal.
CONTACT = "{{ cookiecutter.security_contact }}"
NAMES = {
    "NAME": "{{ cookiecutter.project_name }}",
    "SLUG": "{{ cookiecutter.project_slug }}",
    "DESCRIPTION": "{{ cookiecutter.description }}",
    "AUTHOR": "{{ cookiecutter.author_name }}",
    "SECURITY_CONTACT": CONTACT if ":" in CONTACT else f"mailto:{CONTACT}",
}


def drop_left_out() -> list[str]:
    """Remove what the pre-gen hook listed, and put back what it set aside. Gives the files that came back.

    A file set aside that is what the template writes is the template's own, and goes too (an option switched off).
    """
    # Only here: each takes a while to import, and most generations leave nothing out.
    import filecmp
    import shutil
    from pathlib import Path

    aside = Path(STATE, "kept")
    kept = []
    for path in sorted(aside.rglob("*")):
        home = path.relative_to(aside)
        if path.is_file() and not (home.is_file() and filecmp.cmp(path, home, shallow=False)):
            kept.append(home)
    for name in Path(STATE, "left-out.txt").read_text(encoding="ascii").splitlines():
        if os.path.isdir(name):
            shutil.rmtree(name)
        else:
            Path(name).unlink(missing_ok=True)
    for home in kept:
        home.parent.mkdir(parents=True, exist_ok=True)
        (aside / home).rename(home)
    shutil.rmtree(STATE)
    return [home.as_posix() for home in kept]


def choose_requirements() -> None:
    if ACCOUNTS:
        os.remove("requirements-no-accounts.txt")
    else:
        os.replace("requirements-no-accounts.txt", "requirements.txt")


def settle_python() -> None:
    """Keep or drop what stands between the marks, and write the names into app/project.py."""
    for path in MARKED:
        rewrite(path, settled)
    rewrite("app/project.py", named)


def rewrite(path: str, change: Callable[[list[str]], list[str]]) -> None:
    with open(path, "r+", encoding="utf-8", newline="") as file:
        lines = change(file.read().splitlines())
        file.seek(0)
        file.truncate()
        file.writelines(f"{line}\n" for line in lines)


def settled(lines: list[str]) -> list[str]:
    """The lines without the marks and what they leave out; the longer run of blank lines beside a mark stays."""
    result = []
    keep = True
    above = blank = 0
    for line in lines:
        if (mark := line.strip()) in (IF, END):
            keep = ACCOUNTS or mark == END
            above, blank = max(above, blank), 0
        elif line.endswith(IF):
            if ACCOUNTS:
                result.append(line.removesuffix(IF).rstrip())
        elif keep and line:
            result += [""] * max(above, blank) + [line]
            above = blank = 0
        elif keep:
            blank += 1
    return result


def named(lines: list[str]) -> list[str]:
    constants = [line.partition(" = ") for line in lines]
    return [f'{name} = "{NAMES[name]}"' if name in NAMES else name + rest + value for name, rest, value in constants]


def make_key() -> None:
    """Write ``.env`` with a fresh key, for the owner's eyes only; one that is there is never touched (1.S1, 1.S2)."""
    try:
        # O_EXCL also refuses to write through a link that somebody put there.
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "w", encoding="ascii", newline="\n") as env:
        # The system's generator, which the secrets module wraps.
        env.write(f"SECRET_KEY={os.urandom(48).hex()}\n")


def link() -> str:
    """Write ``.cruft.json``, by which cruft and ``make drift`` find this template again. Gives what prevents it, or "".

    It is byte for byte what ``cruft create`` writes, which does that itself and, alone, gives ``_commit``.
    """
    answers = dict(json.loads(r"""{{ cookiecutter.items()|list|tojson }}"""))  # pairs: tojson would sort a mapping
    if "_commit" in answers:
        return ""
    out, source, checkout = (answers.pop(name) for name in ("_output_dir", "_repo_dir", "_checkout"))
    # The template's path, if it is relative, starts where cookiecutter was called: there, or where -o leads away from.
    folders = [os.path.abspath(os.path.join(start, source)) for start in (out, os.environ.get("PWD", out))]
    folder = next((path for path in folders if os.path.exists(os.path.join(path, ".git"))), None)
    if not folder:
        return "its folder is not in git"
    import subprocess  # only here: it takes a while to import, and a folder without git needs none of it

    def git(*arguments: str) -> list[str]:
        command = ["git", f"--git-dir={folder}/.git", f"--work-tree={folder}", *arguments]
        # A git hook that runs this tells its children of its own repository, index and objects.
        environment = {name: value for name, value in os.environ.items() if not re.match("GIT_(?!CONFIG)", name)}
        # No shell sees this.
        ended = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment)  # noqa: S603
        return ended.stdout.splitlines()

    try:
        status = git("status", "--porcelain=v2", "--branch", "--untracked-files=normal")
        # A clone is cookiecutter's own copy of an address, which may hold a password.
        address = folder if source == answers["_template"] else git("config", "remote.origin.url")[0]
    except OSError as error:
        return f"git can't be asked ({error})"
    except subprocess.CalledProcessError as error:
        return f"git says: {' '.join(error.stderr.split())}"
    if any(line[0] != "#" for line in status):
        return "its folder holds what is not committed"
    commit = status[0].removeprefix("# branch.oid ")
    address = re.sub(r"^(https?://)(?:[^/]*@)?([^?]*).*", r"\1\2", address)
    state: dict[str, object] = {"template": address, "commit": commit, "checkout": checkout}
    state["context"] = {"cookiecutter": answers | {"_template": address, "_commit": commit}}
    state["directory"] = None
    with open(".cruft.json", "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(state, ensure_ascii=False, indent=2) + "\n")
    return ""


def next_steps() -> str:
    """What to type, from where cookiecutter was called: there the shell's PWD still is."""
    app = root = os.path.realpath(".")
    while root != os.path.dirname(root) and not os.path.exists(os.path.join(root, ".git")):
        root = os.path.dirname(root)
    folder = app.removeprefix(os.path.join(os.path.realpath(os.environ.get("PWD", "..")), ""))
    in_git = os.path.exists(os.path.join(root, ".git"))
    repository = (
        "" if in_git else "  git init && git add . && git commit -m Generated   # make drift needs a repository\n"
    )
    return f"""
The app is in {folder}, with a secret key of its own in .env (keep that out of git). Next:

  cd {shlex.quote(folder)}
{repository}  make run     # http://127.0.0.1:8000
  make test    # every attack
"""


kept = drop_left_out() if os.path.isdir(STATE) else []
choose_requirements()
settle_python()
make_key()
unlinked = link()

if kept:
    print("Your answers leave these out, but they differ from the template's, so they stay:", file=sys.stderr)
    print(*(f"  {path}" for path in kept), sep="\n", file=sys.stderr)
if unlinked and os.path.exists(".cruft.json"):
    print("The .cruft.json that was here stays, and no longer fits: which commit of the template", file=sys.stderr)
    print(f"this is can't be told, since {unlinked}.", file=sys.stderr)
if "SECURE_FLASK_DEMO" not in os.environ:
    print(next_steps(), file=sys.stderr)
