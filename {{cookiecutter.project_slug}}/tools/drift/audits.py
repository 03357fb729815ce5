"""The rows of the audit: those of the app as it was generated, and those of the app as it is now."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MINUTE = 60  # seconds
SHOWN = 3  # findings of one step
STATES = ("not applicable", "implemented", "relaxed", "missing")  # the worst last


@dataclass(frozen=True)
class Rows:
    """The rows of the audit of one folder. ``failed`` is the last line of its output, if the audit could not run."""

    mitigations: list[dict[str, Any]]
    failed: str = ""

    @classmethod
    def of(cls, folder: Path) -> Rows:
        """Run the audit that the app in ``folder`` has. It changes nothing there."""
        # Up to version 0.1.0 of the template the audit was in app/audit.
        program = ["-m", "tools.audit"] if (folder / "tools/audit").is_dir() else ["app/audit"]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        if not (folder / ".env").exists():  # a fresh clone has no key, and can be audited all the same
            environment.setdefault("SECRET_KEY", secrets.token_hex(48))
        try:
            ended = subprocess.run(  # noqa: S603 - this Python, without a shell
                [sys.executable, *program, "--format", "json"],
                cwd=folder,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10 * MINUTE,
            )
            rows = json.loads(ended.stdout)["mitigations"]
            if all({"number", "title", "steps"} <= row.keys() and row["state"] in STATES for row in rows):
                return cls(rows)
            raise ValueError("rows of another kind")
        except subprocess.TimeoutExpired:
            return cls([], "The audit took longer than ten minutes.")
        except (ValueError, KeyError, TypeError, AttributeError):
            lines = ended.stderr.strip().splitlines()
            return cls([], lines[-1] if lines else f"The audit ended with {ended.returncode} and without a report.")

    def state(self, number: int) -> str:
        """Return the state of a mitigation."""
        return next((row["state"] for row in self.mitigations if row["number"] == number), "not audited")


def compared(before: Rows, now: Rows) -> Iterator[str]:
    """Yield the ten rows; below each step that changed, its findings and how to fix them."""
    steps = {step["id"]: step["state"] for row in before.mitigations for step in row["steps"]}
    for row in now.mitigations:
        was = before.state(row["number"])
        arrow = row["state"] if was == row["state"] else f"{was} -> {row['state']}"
        yield f"{row['number']:>2} {row['title']:<28} {arrow}"
        for step in row["steps"]:
            if step["findings"] and steps.get(step["id"]) != step["state"]:
                yield f"   {step['id']:<5} {step['title']}: {step['state']}"
                yield from (f"         {found['id']} {found['evidence']}" for found in step["findings"][:SHOWN])
                if (more := len(step["findings"]) - SHOWN) > 0:
                    yield f"         and {more} more: make audit"
                first = step["findings"][0]
                yield f"         fix: {first.get('fix') or first['mend']}"  # "mend" up to version 0.1.0


def weakened(before: Rows, now: Rows) -> list[int]:
    """Return the numbers of the mitigations that are worse than they were."""
    rank = {row["number"]: STATES.index(row["state"]) for row in before.mitigations}
    return [row["number"] for row in now.mitigations if STATES.index(row["state"]) > max(1, rank.get(row["number"], 0))]
