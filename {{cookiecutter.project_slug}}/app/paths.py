"""The paths of this project on the disk."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTANCE = ROOT / "instance"
ENV_FILE = ROOT / ".env"
MIGRATIONS = Path(__file__).resolve().parent / "migrations"  # of your own tables


def make_private_folder(folder: Path) -> None:
    """Make a folder and its missing parents, which only this user can open."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
