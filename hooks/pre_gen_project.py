"""Refuse bad answers before a file is written: a line for each, with what is wrong and what would do.

The answers become folder names, Python literals and Markdown, so anything that could end a literal, hide from a
reader or reach outside the folder stops here. cookiecutter has already made the empty folder and removes it when this
hook fails, unless it was there before (``-f``). It has to make one even for ``../elsewhere``: cookiecutter.json gives
such a slug a harmless folder, and ``__slug_given`` tells what was answered.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata

ANSWERS = json.loads(r"""{{ cookiecutter|tojson }}""")
ANSWERS["project_slug"] = ANSWERS["__slug_given"]

SLUG = r"(?!(DEVICE)$)(?=.{1,50}$)[a-z0-9]+(-[a-z0-9]+)*".replace("DEVICE", ANSWERS["_device_names"].replace(" ", "|"))
NO_SLUG = "is not 1 to 50 lower-case letters, digits and single inner hyphens, or is a Windows device name"
HOST = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
URL = r"https://HOST(:\d{1,5})?(/[\w.~:/?#@!$&()*+,;=%-]*)?"
CONTACT = r"(?ai)(?=.{1,90}$)((mailto:)?[\w.+-]{1,64}@HOST|URL)".replace("URL", URL).replace("HOST", HOST)
NO_CONTACT = "is neither an e-mail address nor an https URL of at most 90 characters"

# cookiecutter itself refuses a choice that is not on offer, except in a replay file. There, these look as here.
CHOICES = dict.fromkeys(("accounts", "docker", "lessons"), "true or false") | {
    "license": '"MIT" or "BSD-3-Clause" or "Apache-2.0" or "Proprietary"',
    "ci": '"github" or "none"',
}

# What an app leaves in its folder. In the template's it would be copied, and over those of an older app (-f).
OF_AN_APP = re.compile(r"\.env(\.(?!example$).*)?|instance|tls|\.venv|__pycache__|\..+_cache")


def fault_in_text(value: object, columns: int) -> str | None:
    """What keeps a value from being one line of text in any language, at most ``columns`` wide."""
    text = str(value)
    if not any(map(str.isalnum, text)):
        return "has no letter or digit"
    if text != text.strip():
        return "starts or ends with white space"
    if sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text) > columns:
        return f"is {len(text)} characters long, which does not fit {columns} columns"
    # Not printable: what controls, is invisible or turns the direction, and any space but the plain one.
    bad = next((character for character in text if character in '"\\{}<>`' or not character.isprintable()), None)
    return bad and f"has {bad!r} (U+{ord(bad):04X}) in it"


def fault_in_form(value: object, form: str, fault: str) -> str | None:
    return None if re.fullmatch(form, str(value)) else fault


if "_commit" not in ANSWERS:  # else it is cruft, which generates from a clone
    left: set[str] = set()
    # The path, if it is relative, starts where cookiecutter was called: there, or where -o leads away from.
    for start in (ANSWERS["_output_dir"], os.environ.get("PWD", "")):
        source = os.path.join(start, ANSWERS["_repo_dir"], "{{ '{{cookiecutter.project_slug}}' }}")
        for _, folders, names in os.walk(source):
            left.update(filter(OF_AN_APP.fullmatch, folders + names))
    if left:
        sys.exit(
            f"The app was run in the template's own folder, and left {', '.join(sorted(left))} there, which would be "
            "copied. Use a clone (git clone, of that folder), or remove them: git clean -xfd"
        )

checks = [
    ("project_name", fault_in_text(ANSWERS["project_name"], 50), "Secure Flask App"),
    ("project_slug", fault_in_form(ANSWERS["project_slug"], SLUG, NO_SLUG), "secure-flask-app"),
    ("description", fault_in_text(ANSWERS["description"], 100), "An app that lends bicycles."),
    ("author_name", fault_in_text(ANSWERS["author_name"], 50), "Ann O'Brien"),
    ("security_contact", fault_in_form(ANSWERS["security_contact"], CONTACT, NO_CONTACT), "security@example.com"),
]
for name, choices in CHOICES.items():
    if json.dumps(ANSWERS[name]) not in choices.split(" or "):
        checks.append((name, "is not one of the choices", choices))
faults = [f"{name}: {ANSWERS[name]!r:.60} {fault}. Example: {example}" for name, fault, example in checks if fault]
if faults:
    sys.exit("\n".join(faults))

# Save what an older app (-f) has under a name that an option leaves out: cookiecutter is about to write there, and the
# post-gen hook to remove that and to bring this back. What was saved before is of a run that broke off.
for path, option in ANSWERS["_optional"]:
    saved = f"{path}.generating"
    if ANSWERS[option] in (False, "none") and os.path.lexists(path) and not os.path.lexists(saved):
        os.rename(path, saved)
