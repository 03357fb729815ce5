"""The names of uploaded files: data to show and to save under, never a path on this server (9.S2).

A name comes from a stranger. It may try to climb (``../../etc/passwd``), to lie (``photo<U+202E>gnp.exe`` shows as
``photoexe.png``), to break a header or a terminal (line ends, escapes), or to hit a device (``NUL.txt`` on Windows).
Source: OWASP File Upload Cheat Sheet, "Filename Safety"; ASVS 5.0 V5.4.1, V5.4.2.
"""

from __future__ import annotations

import re
import unicodedata

# File systems allow 255; what is left is for the " (1)" and ".crdownload" that browsers add.
MAX_NAME_BYTES = 200

# Control and format characters: line ends, escapes, bidirectional overrides, zero-width characters.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# The two joiners are format characters too, but Persian words and family emoji are spelled with them.
_JOINERS = "\u200c\u200d"

_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*]')
_RESERVED_NAMES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)


def display_name(name: str) -> str:
    """Make the client's ``name`` fit to be shown and to be saved under, on every system; keep its extension."""
    name = "".join(c for c in name if c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    name = unicodedata.normalize("NFC", name)
    name = re.split(r"[/\\]", name)[-1]
    name = _RESERVED_CHARACTERS.sub("_", name).strip(" .")
    if _RESERVED_NAMES.match(name):
        name = f"_{name}"
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    room = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    stem = stem.encode()[: max(room, 0)].decode(errors="ignore").rstrip(" .")
    return f"{stem or 'file'}{dot}{ending}"


def extension(name: str) -> str:
    """Give what stands after the last dot, in lower case; empty without one."""
    return name.rpartition(".")[2].lower() if "." in name else ""
