"""Where the time of a request goes: ``python where.py FOLDER``, in the environment of a generated app.

Prints, as JSON, for each page the share of each package in the time of the requests, with a profiler running.
"""

from __future__ import annotations

import cProfile
import json
import logging
import pstats
import sys
import tempfile
from collections import Counter
from pathlib import Path

import contender

REQUESTS = 300
OURS = "the app itself"


def package_of(file: str, folder: Path) -> str:
    parts = Path(file).parts
    if "site-packages" in parts:  # of the environment in the app's folder
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return OURS if Path(file).is_relative_to(folder) else "Python"


def shares(app: contender.Flask, page: str, folder: Path) -> dict[str, float]:
    """Return the percentage of each package, without the test client."""
    browser = contender.Browser(app)
    browser.arrive(page)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(REQUESTS):
        browser.get(page).close()
    profile.disable()
    taken: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if not file.endswith(("werkzeug/test.py", "flask/testing.py", "contender.py")):
            taken[package_of(file, folder)] += own
    return {name: 100 * each / taken.total() for name, each in taken.most_common()}


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        app = contender.whole(folder, "", Path(place))
        logging.disable(logging.CRITICAL)
        print(json.dumps({page: shares(app, page, folder) for page in ("home", "json", "member")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
