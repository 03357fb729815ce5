"""What requests cost as an app grows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.bench.requests import SLOW_ROUNDS, printed_by


def growth(python: Path, folder: Path) -> Iterator[str]:
    """Yield the table about the app in ``folder``: a row for what grows, a column for each size."""
    taken: dict[str, dict[str, list[float]]] = printed_by(python, "growing.py", folder, str(SLOW_ROUNDS))
    sizes = sorted({size for of in taken.values() for size in of}, key=int)
    yield from ("", "## Growth", "")
    yield from ("CPU milliseconds of a request, or of reading a folder, by the number of what grows:", "")
    yield f"| what grows | {' | '.join(f'{int(size):,}' for size in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    medians = {what: {size: statistics.median(of[size]) for size in sizes if size in of} for what, of in taken.items()}
    for what, of_size in medians.items():
        shown = (f"{of_size[size]:.2f}" if size in of_size else "" for size in sizes)
        yield f"| {what} | {' | '.join(shown)} |"
    yield from ("", "The folder of an owner is read each time, since a crash could make an index of it wrong.")
    yield "`UPLOAD_QUOTA_FILES` bounds the time: 100 files unless it is set."
    yield from ("", "With 100,000 clients, the memory of the limits is full. It is then searched once a second for")
    yield "what has expired. The figure spreads one such search over ten requests."
    for what, of_size in medians.items():
        yield from ("", "```mermaid", "xychart-beta", f'    title "{what}"')
        yield f"    x-axis [{', '.join(of_size)}]"
        yield f'    y-axis "CPU ms" 0 --> {max(of_size.values()):.2f}'
        yield from (f"    line [{', '.join(f'{each:.2f}' for each in of_size.values())}]", "```")
