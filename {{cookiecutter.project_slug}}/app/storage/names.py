"""The names of uploaded files: for display and downloads, never a path on this server (9.S2).

A name is untrusted. It may traverse paths (``../../etc/passwd``), spoof the extension (``photo<U+202E>gnp.exe`` looks
like ``photoexe.png``), inject into headers or terminals (line breaks, escapes) or name a device (``NUL.txt``, Windows).
Source: OWASP File Upload Cheat Sheet, "Filename Safety"; ASVS 5.0 V5.4.1, V5.4.2.
"""

from __future__ import annotations

import re
import unicodedata

# File systems allow 255; the rest is for the " (1)" and ".crdownload" that browsers append.
MAX_NAME_BYTES = 200

# Control and format characters: line breaks, escapes, bidirectional overrides, zero-width characters.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# The two joiners are format characters too, but Persian words and family emoji need them.
_JOINERS = "\u200c\u200d"

_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*]')
_RESERVED_NAMES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)


def display_name(name: str) -> str:
    """Return the client's ``name``, made safe to show and to save under on every system; its extension is kept."""
    name = name if len(name) < 1000 else name[:500] + name[-500:]  # normalizing many accents in a row takes seconds
    name = "".join(c for c in name if c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    name = unicodedata.normalize("NFC", name)
    name = re.split(r"[/\\]", name)[-1]
    name = _RESERVED_CHARACTERS.sub("_", name).strip(" .")
    if _is_device(name):
        name = f"_{name}"
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    room = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    stem = stem.encode()[: max(room, 0)].decode(errors="ignore").rstrip(" .")
    if _is_device(stem):  # only the cut made it one
        stem = f"_{stem}"
    return f"{stem if stem.strip(f' {_JOINERS}') else 'file'}{dot}{ending}"


def _is_device(name: str) -> bool:
    return bool(_RESERVED_NAMES.match(re.sub(f"[{_JOINERS}]", "", name)))


def extension(name: str) -> str:
    """Return the part after the last dot, in lower case; '' if there is no dot."""
    return name.rpartition(".")[2].lower() if "." in name else ""
