"""Other keys that can be guessed, and random keys, which must be accepted."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Iterator

from tools.lessons.lab import Lab

# Simplest first: the first key that passes shows what the fix overlooks.
TUTORIALS = {
    "our-webshop-has-the-secret-key-4711": "A key with a placeholder word in it passes. A thief's list is longer "
    "than yours: look for the word within the key.",
    "My-Flask-App-Secret-Key-2026-07-14": "A placeholder word with capital letters in it passes: a thief's list "
    "has those too. Compare in lower case.",
    "insecure-example-key-changeme-insecure-example-key-changeme-1": "A long key of placeholder words passes. Length "
    "does not make a key random: a long one is in a list like any other.",
}
OTHERS = {
    "kT7#x9": "A key of 6 characters passes: all of them can be tried.",
    "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4": "A key that repeats itself passes.",
    "correcthorsebatterystaplecorrect": "A key of words in small letters passes.",
}


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    for keys in (TUTORIALS, OTHERS):
        for key, fault in keys.items():
            if not lab.refuses(SECRET_KEY=key):
                yield f"{fault} Tried: {key}"
                break
            if not lab.refuses(SECRET_KEY_FALLBACKS=key):
                yield f"As a former key (SECRET_KEY_FALLBACKS), a guessable one passes. Tried: {key}"
                break
    for encoding, key in {
        "hex": secrets.token_hex(16),
        "base64": base64.b64encode(bytes(range(0, 192, 8))).decode(),
        "a UUID": str(uuid.uuid4()),
    }.items():
        if lab.refuses(SECRET_KEY=key):
            yield f"A random key in {encoding} is refused. It can't be guessed. Tried: {key}"
