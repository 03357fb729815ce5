"""Copy the template without what working in place leaves behind: ``python -m tests.clean_copy TARGET``.

cookiecutter copies every file it finds in the template's folder: caches, uploads, even a ``.env``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APP = "{{cookiecutter.project_slug}}"


def clean_copy(target: Path) -> None:
    """Copy to ``target``, made anew, the files that git knows or would add."""
    shutil.rmtree(target, ignore_errors=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


if __name__ == "__main__":
    clean_copy(Path(sys.argv[1]))
