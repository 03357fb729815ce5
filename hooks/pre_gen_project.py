"""Refuse bad answers before a file is written: a line for each, with what is wrong and what would do.

The answers become folder names, Python literals and Markdown, so anything that could end a literal, hide from a
reader or reach outside the folder stops here. cookiecutter has already made the empty folder and removes it when this
hook fails, unless it was there before (``-f``). It has to make one even for ``../elsewhere``: cookiecutter.json gives
such a slug a harmless folder, and ``__slug_given`` tells what was answered.

Then set aside the files of an older app (``-f``) that an option leaves out: cookiecutter is about to write its own over
them, and the post-gen hook to remove those. What the team wrote under the same name comes back afterwards.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata

ANSWERS = json.loads(r"""{{ cookiecutter|tojson }}""")

HOST = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
CONTACT = re.compile(
    r"((mailto:)?[\w.+-]{1,64}@HOST|https://HOST(:\d{1,5})?(/[\w.~:/?#@!$&()*+,;=%-]*)?)".replace("HOST", HOST),
    re.ASCII | re.IGNORECASE,
)

# The state between the two hooks. It must not be inside a temporary folder: files are moved, not copied.
STATE = ".generating"

# What an app leaves in its folder. In the template's it would be copied, and over those of an older app (-f).
OF_AN_APP = re.compile(r"\.env(\.(?!example$).*)?|instance|tls|\.venv|__pycache__|\..+_cache")
SOURCE = "{{ '{{cookiecutter.project_slug}}' }}"

LEFT_OUT = {
    "accounts": ["app/accounts", "tests/accounts"],
    "docker": [".dockerignore", "deploy/Dockerfile", "deploy/compose.yaml"],
    "ci": [".github"],
    "lessons": ["docs/lessons"],
}


def fault_in_text(value: object, columns: int) -> str | None:
    """What keeps a value from being one line of text in any language, at most ``columns`` wide."""
    if not isinstance(value, str) or not any(character.isalnum() for character in value):
        return "has no letter or digit"
    if value != value.strip():
        return "starts or ends with white space"
    if sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in value) > columns:
        return f"is {len(value)} characters long, which does not fit {columns} columns"
    for character in value:
        # C: control, format (invisible, or turning the direction), private, surrogate; Z: any space but the plain one.
        if character in '"\\{}<>`' or (unicodedata.category(character)[0] in "CZ" and character != " "):
            return f"has {character!r} (U+{ord(character):04X}) in it"
    return None


def fault_in_slug(value: object) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        return "is not lower-case letters and digits with single hyphens between them"
    if len(value) > 50:
        return f"is {len(value)} characters long, more than 50"
    return "is a device name on Windows" if value in ANSWERS["_device_names"].split() else None


def fault_in_contact(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= 90 and CONTACT.fullmatch(value):
        return None
    return "is neither an e-mail address nor an https URL of at most 90 characters"


def fault_in_choice(value: object, choices: tuple[object, ...]) -> str | None:
    return None if value in choices else "is not on offer"


def main() -> None:
    slug = ANSWERS.get("__slug_given", ANSWERS["project_slug"])
    yes_or_no = (True, False)
    licenses = ("MIT", "BSD-3-Clause", "Apache-2.0", "Proprietary")
    checks = [
        ("project_name", fault_in_text(ANSWERS["project_name"], 50), "Secure Flask App"),
        ("project_slug", fault_in_slug(slug), "secure-flask-app"),
        ("description", fault_in_text(ANSWERS["description"], 100), "An app that lends bicycles."),
        ("author_name", fault_in_text(ANSWERS["author_name"], 50), "Ann O'Brien"),
        ("security_contact", fault_in_contact(ANSWERS["security_contact"]), "security@example.com"),
        ("license", fault_in_choice(ANSWERS["license"], licenses), " or ".join(licenses)),
        ("accounts", fault_in_choice(ANSWERS["accounts"], yes_or_no), "yes or no"),
        ("docker", fault_in_choice(ANSWERS["docker"], yes_or_no), "yes or no"),
        ("ci", fault_in_choice(ANSWERS["ci"], ("github", "none")), "github or none"),
        ("lessons", fault_in_choice(ANSWERS["lessons"], yes_or_no), "yes or no"),
    ]
    if rest := left_in_template():
        sys.exit(
            f"The app was run in the template's own folder, and left {', '.join(rest)} there, which would be copied. "
            "Use a clone (git clone, of that folder), or remove them: git clean -xfd"
        )
    given = ANSWERS | {"project_slug": slug}
    faults = [f"{name}: {shown(given[name])} {fault}. Would do: {example}" for name, fault, example in checks if fault]
    if faults:
        sys.exit("\n".join(faults))
    left_out = [path for option, paths in LEFT_OUT.items() if ANSWERS[option] in (False, "none") for path in paths]
    if left_out or os.path.isdir(STATE):  # the latter is of a run that broke off
        set_aside(left_out)


def left_in_template() -> list[str]:
    """What an app that was run in the template's folder, and not in one of its own, left there."""
    if "_commit" in ANSWERS:
        return []  # cruft, which generates from a clone
    # The path, if it is relative, starts where cookiecutter was called: there, or where -o leads away from.
    out = ANSWERS["_output_dir"]
    found = set()
    for source in {os.path.join(start, ANSWERS["_repo_dir"], SOURCE) for start in (out, os.environ.get("PWD", out))}:
        for _, folders, names in os.walk(source):
            found |= set(filter(OF_AN_APP.fullmatch, folders + names))
            folders[:] = [name for name in folders if name not in found]
    return sorted(found)


def shown(value: object) -> str:
    """The value with nothing in it that a terminal would act on, cut to a length that leaves the line readable."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def set_aside(left_out: list[str]) -> None:
    from pathlib import Path  # only here: it takes a while to import, and most generations leave nothing out

    state = Path(STATE)
    state.mkdir(exist_ok=True)
    (state / "left-out.txt").write_text("\n".join(left_out), encoding="ascii")
    for name in left_out:
        for path in [Path(name), *Path(name).rglob("*")]:
            kept = state / "kept" / path
            # One that is there already is of a run that broke off: then the file in its old place is the template's.
            if path.is_file() and not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.rename(kept)


main()
