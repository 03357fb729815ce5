"""``make bench`` prints what generating an app and auditing it cost, in seconds. It judges nothing: machines differ.

Commands that are compared take turns, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.clean_copy import APP, clean_copy
from tests.conftest import App, Cookiecutter, commit, outside


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shown(what: str, taken: list[float]) -> str:
    return f"{what:<40} median {statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})"


def main(runs: int) -> None:
    """Measure each thing ``runs`` times."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        clean_copy(work / "whole")
        commit(work / "whole")  # as it is when it comes from an address
        one_file = work / "one"
        (one_file / APP).mkdir(parents=True)
        (one_file / "cookiecutter.json").write_text('{"project_slug": "one"}')
        (one_file / APP / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
        taken: dict[str, list[float]] = {"one": [], "whole": []}
        for run in range(runs):
            for name, seconds in taken.items():
                tool = Cookiecutter(work / name, work / f"{name}-{run}", work / "home")
                seconds.append(timed(tool.app))
        ratio = statistics.median(taken["whole"]) / statistics.median(taken["one"])
        print(shown("generating a template of one file", taken["one"]))
        print(shown("generating an app", taken["whole"]), f"= {ratio:.2f} x", flush=True)

        (app,) = (work / "whole-0").iterdir()
        App(app).make(f"{app}/.venv/installed")
        audit = [f"{app}/.venv/bin/python", "-m", "tools.audit"]
        audits = [
            timed(lambda: subprocess.run(audit, cwd=app, env=outside(), check=True, stdout=subprocess.DEVNULL))
            for _ in range(runs)
        ]
        print(shown("make audit", audits))
        shutil.rmtree(app)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
