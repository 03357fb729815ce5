"""What the audit must know of your app, from ``[tool.audit]`` in pyproject.toml.

``settings`` has a value for each of your settings without a default; it must not be the real one. The tests take it
too. ``fields`` has, by path, the fields that you have added to a form of the template::

    [tool.audit]
    settings = { PAYMENT_ACCOUNT = "test" }
    fields = { "/register" = { terms = "y" } }
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

# The checkout that this file is in. In an image, the app is somewhere else.
PROJECT = Path(__file__).resolve().parents[2]


@cache
def _table() -> dict[str, Any]:
    file = PROJECT / "pyproject.toml"
    if not file.exists():
        raise FileNotFoundError(f"there is no {file}, so this is no checkout: docs/production.md has the command")
    table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("audit", {})
    return table


def settings() -> dict[str, object]:
    """Return your values of required settings."""
    return dict(_table().get("settings", {}))


def fields(path: str) -> dict[str, str]:
    """Return your fields of the form at a path."""
    return dict(_table().get("fields", {}).get(path, {}))
