"""The programs that the template's tests start: its app's, which the app's own tests/programs.py tells, and some more.

``python3 -m tests.programs`` installs what is missing, or says what to install.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent


def from_app(path: str) -> SimpleNamespace:
    """A module of the app, run and not imported: that would leave a __pycache__ in the template's folder."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "{{cookiecutter.project_slug}}" / path)))


app = from_app("tests/programs.py")
PROGRAMS = [
    *app.PROGRAMS.values(),
    # Of its programs, "convert" is also the name of others.
    app.Program(("identify",), ("imagemagick fonts-dejavu-core", "ImageMagick", "imagemagick")),
    app.Program(("cwebp",), ("webp", "libwebp-tools", "webp")),
    app.Program(("git",), ("git", "git", "git")),
    app.Program(("gs",), ("ghostscript", "ghostscript", "ghostscript")),
    app.Program(("make",), ("make", "make", "make")),
    app.Program(("pdfattach",), ("poppler-utils", "poppler-utils", "poppler")),
]

if sys.platform == "linux":
    PROGRAMS.append(app.Program(("systemd-analyze",), ("systemd", "systemd", "")))

if __name__ == "__main__":
    app.main([app.VENV] if sys.argv[1:] == ["venv"] else [app.VENV, *PROGRAMS])
