"""The attacks' data: files of payloads, one a line. ``PAYLOAD_SAMPLE=10`` takes every tenth, for a quick run."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER = Path(__file__).parent
SAMPLE = int(os.environ.get("PAYLOAD_SAMPLE", "1"))


def lines(name: str) -> list[str]:
    """The lines of a file as they are, without comments and empty ones."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("# ")][::SAMPLE]


def strings(name: str) -> list[str]:
    """The lines of a file, read as JSON strings: so they can hold what no text file should."""
    return [json.loads(f'"{line}"') for line in lines(name)]
