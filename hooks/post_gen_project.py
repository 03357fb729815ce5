"""Finish a generated app: drop what the answers leave out, name it, give it a key of its own, say what comes next.

Python comes here as it is in the template, where it runs unrendered: Jinja would take the braces in it for its own.
What depends on an option stands between ``# % if cookiecutter.accounts`` and ``# % endif``, and is settled below.

Runs in the app's folder, also through cruft, where that is a temporary one without git. It prints to standard error,
because ``cruft diff`` prints a patch to standard output.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter|tojson }}""")
STATE = Path(".generating")
OPTIONAL = re.compile(r"(\n*) *# % if cookiecutter\.(\w+)\n(.*?)(\n*) *# % endif\n(\n*)", re.DOTALL)

# The pre-gen hook lets nothing through that could end a Python literal.
NAMES = {
    "NAME": ANSWERS["project_name"],
    "SLUG": ANSWERS["project_slug"],
    "DESCRIPTION": ANSWERS["description"],
    "AUTHOR": ANSWERS["author_name"],
    "SECURITY_CONTACT": ("" if ":" in ANSWERS["security_contact"] else "mailto:") + ANSWERS["security_contact"],
}


def drop_left_out() -> list[Path]:
    """Remove what the pre-gen hook listed, and put back what it set aside. Gives the files that came back.

    A file set aside that is what the template writes is the template's own, and goes too (an option switched off).
    """
    aside = [path for path in (STATE / "kept").rglob("*") if path.is_file()]
    edited = [path for path in aside if not is_same(path, path.relative_to(STATE / "kept"))]
    for name in (STATE / "left-out.txt").read_text(encoding="ascii").splitlines():
        path = Path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    kept = []
    for path in edited:
        home = path.relative_to(STATE / "kept")
        home.parent.mkdir(parents=True, exist_ok=True)
        path.rename(home)
        kept.append(home)
    shutil.rmtree(STATE)
    return sorted(kept)


def is_same(path: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(path, other, shallow=False)


def choose_requirements() -> None:
    without_accounts = Path("requirements-no-accounts.txt")
    if ANSWERS["accounts"]:
        without_accounts.unlink()
    else:
        without_accounts.replace("requirements.txt")


def settle_python() -> None:
    """Keep or drop what stands between the marks, and write the names into app/project.py."""
    for path in (*Path("app").rglob("*.py"), *Path("tests").rglob("*.py")):
        before = path.read_bytes().decode()
        # The search for the pattern takes long in the files that hold no mark, which are most.
        after = OPTIONAL.sub(keep_or_drop, before) if "# % if cookiecutter." in before else before
        if path == Path("app/project.py"):
            after = re.sub(r'(?m)^(\w+) = ".*"$', lambda match: f'{match[1]} = "{NAMES[match[1]]}"', after)
        if after != before:
            path.write_bytes(after.rstrip("\n").encode() + b"\n")


def keep_or_drop(match: re.Match[str]) -> str:
    """Give the lines between two marks, or none; of the blank lines on both sides of a mark, the more."""
    above, option, lines, last, below = match.groups()
    below = "\n" + below
    return f"{above}{lines}{max(last, below)}" if ANSWERS[option] else max(above, below)


def make_key() -> None:
    """Write ``.env`` with a fresh key, for the owner's eyes only; one that is there is never touched (1.S1, 1.S2)."""
    try:
        # O_EXCL also refuses to write through a link that somebody put there.
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "w", encoding="ascii", newline="\n") as env:
        env.write(f"SECRET_KEY={secrets.token_urlsafe(48)}\n")


kept = drop_left_out()
choose_requirements()
settle_python()
make_key()

if kept:
    print("Your answers leave these out, but they differ from the template's, so they stay:", file=sys.stderr)
    print(*(f"  {path.as_posix()}" for path in kept), sep="\n", file=sys.stderr)
print(
    f"""
The app is in {Path.cwd().name}, with a secret key of its own in .env (keep that out of git). Next:

  cd {Path.cwd().name}
  make run     # http://127.0.0.1:8000
  make test    # every attack
""",
    file=sys.stderr,
)
