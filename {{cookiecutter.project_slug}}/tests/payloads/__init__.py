"""The attacks' data: files of payloads, one a line."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent


def lines(name: str) -> list[str]:
    """The lines of a file as they are, without comments and empty ones."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


def strings(name: str) -> list[str]:
    """The lines of a file, read as JSON strings: so they can hold what no text file should."""
    return [json.loads(f'"{line}"') for line in lines(name)]


def parts(corpus: list[str], number: int) -> list[list[str]]:
    """The corpus in ``number`` parts: a test of each lets processors share the work, and --sample take one."""
    return [corpus[part::number] for part in range(number)]
