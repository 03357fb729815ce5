"""What requests cost as an app grows: the third part of ``make bench``."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.requests import SLOW_ROUNDS
from tests.conftest import outside

GROWING = Path(__file__).with_name("growing.py")


def growth(python: Path, folder: Path) -> Iterator[str]:
    """Yield the table about the app in ``folder``: a row for what grows, a column for each size."""
    command = [python, GROWING, folder, str(SLOW_ROUNDS)]
    printed = subprocess.run(
        command, env=outside(), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    taken: dict[str, dict[str, list[float]]] = json.loads(printed)
    sizes = sorted({size for of in taken.values() for size in of}, key=int)
    yield from ("", "## Growth", "")
    yield from ("CPU milliseconds of a request, or of reading a folder, by the number of what grows:", "")
    yield f"| what grows | {' | '.join(f'{int(size):,}' for size in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    medians = {what: {size: statistics.median(of[size]) for size in sizes if size in of} for what, of in taken.items()}
    for what, of_size in medians.items():
        shown = (f"{of_size[size]:.2f}" if size in of_size else "" for size in sizes)
        yield f"| {what} | {' | '.join(shown)} |"
    for what, of_size in medians.items():
        yield from ("", "```mermaid", "xychart-beta", f'    title "{what}"')
        yield f"    x-axis [{', '.join(of_size)}]"
        yield f'    y-axis "CPU ms" 0 --> {max(of_size.values()):.2f}'
        yield from (f"    line [{', '.join(f'{each:.2f}' for each in of_size.values())}]", "```")
