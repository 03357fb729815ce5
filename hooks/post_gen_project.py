"""Finish a generated app: drop what the answers leave out, name it, give it a key, link it to the template's commit.

Python comes here as it is in the template, where it runs unrendered: Jinja would take the braces in it for its own.
A line that depends on an option ends in ``# % if cookiecutter.accounts``, and is settled below.

Runs in the app's folder, also through cruft, where that is a temporary one without git. It prints to standard error,
because ``cruft diff`` prints a patch to standard output.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys

ANSWERS = dict(json.loads(r"""{{ cookiecutter.items()|list|tojson }}"""))  # pairs: tojson would sort a mapping
NEXT = """
The app is in {folder}, with a secret key of its own in .env (keep that out of git). Next:

  cd {quoted}
{init}  make run     # http://127.0.0.1:8000
  make test    # every attack
"""
NO_REPOSITORY = "  git init && git add . && git commit -m Generated   # make drift needs a repository\n"

# Every file with such a mark, and the one with the names. A mark that stays elsewhere fails the template's tests.
SETTLED = ("app/__init__.py", "app/settings.py", "app/project.py", "tests/programs.py")
# The pre-gen hook lets nothing through that could end a Python literal.
NAMES = {
    "NAME": ANSWERS["project_name"],
    "SLUG": ANSWERS["project_slug"],
    "DESCRIPTION": ANSWERS["description"],
    "AUTHOR": ANSWERS["author_name"],
    "SECURITY_CONTACT": re.sub("^(?!.*:)", "mailto:", ANSWERS["security_contact"]),
}


def link() -> str:
    """Write ``.cruft.json``, by which cruft and ``make drift`` find this template again.

    Return what prevents it, or "". It is byte for byte what ``cruft create`` writes, which alone gives ``_commit``.
    """
    if "_commit" in ANSWERS:
        return ""
    out, source, checkout = (ANSWERS.pop(name) for name in ("_output_dir", "_repo_dir", "_checkout"))
    # The template's path, if it is relative, starts where cookiecutter was called: there, or where -o leads away from.
    folders = [os.path.abspath(os.path.join(start, source)) for start in (out, os.environ.get("PWD", out))]
    folder = next((path for path in folders if os.path.exists(os.path.join(path, ".git"))), folders[0])
    import subprocess  # only here: it takes a while to import, and through cruft nothing needs it

    # A git hook that runs this tells its children of its own repository, index and objects.
    clean = {name: value for name, value in os.environ.items() if not re.match("GIT_(?!CONFIG)", name)}

    def git(*arguments: str) -> list[str]:
        command = ["git", f"--git-dir={folder}/.git", f"--work-tree={folder}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=clean).stdout.splitlines()

    try:
        head, *changes = git("status", "--porcelain=v2", "--branch", "--untracked-files=normal")
        # A clone is cookiecutter's own copy of an address, which may hold a password.
        address = folder if source == ANSWERS["_template"] else git("config", "remote.origin.url")[0]
    except (OSError, subprocess.CalledProcessError) as error:
        return f"git says: {' '.join(str(getattr(error, 'stderr', error)).split())}"
    if any(line[0] != "#" for line in changes):
        return "its folder holds what is not committed"
    address = re.sub(r"^(https?://)(?:[^/]*@)?([^?]*).*", r"\1\2", address)
    commit = head.removeprefix("# branch.oid ")
    context = {"cookiecutter": ANSWERS | {"_template": address, "_commit": commit}}
    state = {"template": address, "commit": commit, "checkout": checkout, "context": context, "directory": None}
    with open(".cruft.json", "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(state, ensure_ascii=False, indent=2) + "\n")
    return ""


def next_steps() -> str:
    """What to type, from where cookiecutter was called: there the shell's PWD still is."""
    app = root = os.path.realpath(".")
    while root != os.path.dirname(root) and not os.path.exists(os.path.join(root, ".git")):
        root = os.path.dirname(root)
    folder = app.removeprefix(os.path.join(os.path.realpath(os.environ.get("PWD", "..")), ""))
    init = "" if os.path.exists(os.path.join(root, ".git")) else NO_REPOSITORY
    return NEXT.format(folder=folder, quoted=shlex.quote(folder), init=init)


# Remove what the answers leave out, and bring back what an older app (-f) had there, which the pre-gen hook saved.
kept = []
for path in [path for path, option in ANSWERS["_optional"] if ANSWERS[option] in (False, "none")]:
    if os.path.isdir(path):
        from shutil import rmtree  # only here: it takes a while to import, and most generations leave nothing out

        rmtree(path)
    else:
        os.remove(path)
    if os.path.lexists(f"{path}.generating"):
        os.rename(f"{path}.generating", path)
        kept.append(path)

# Keep or drop each marked line, and write the names.
marked = r"\1\n" if ANSWERS["accounts"] else ""
for path in SETTLED:
    with open(path, "r+", encoding="utf-8", newline="\n") as file:
        text = re.sub(r"(?m)^(.*?) *# % if cookiecutter\.accounts\n", marked, file.read())
        text = re.sub(r'(?m)^(\w+) = "(.*)"$', lambda at: f'{at[1]} = "{NAMES.get(at[1], at[2])}"', text)
        file.seek(0)
        file.truncate()
        file.write(text)

if ANSWERS["accounts"]:
    os.remove("requirements-no-accounts.txt")
else:
    os.replace("requirements-no-accounts.txt", "requirements.txt")

# A key for the owner's eyes only. One that is there is never touched, nor a link followed (1.S1, 1.S2).
if not os.path.lexists(".env"):
    with open(".env", "x", encoding="ascii", newline="\n", opener=lambda *args: os.open(*args, 0o600)) as env:
        env.write(f"SECRET_KEY={os.urandom(48).hex()}\n")  # the system's generator, which the secrets module wraps

unlinked = link()

if kept:
    print("Your answers leave these out, but they were here before, so they stay:", file=sys.stderr)
    print(*(f"  {path}" for path in kept), sep="\n", file=sys.stderr)
if unlinked and os.path.exists(".cruft.json"):
    print("The .cruft.json that was here stays, but it is out of date: the commit of the template", file=sys.stderr)
    print(f"is unknown, because {unlinked}.", file=sys.stderr)
if "SECURE_FLASK_DEMO" not in os.environ:
    print(next_steps(), file=sys.stderr)
