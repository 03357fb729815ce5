"""The audit's rows, of the app as it was generated and as it is now."""

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
    """What ``python app/audit`` said in a folder. ``failed`` is the line with which it ended, if it could not run."""

    mitigations: list[dict[str, Any]]
    failed: str = ""

    @classmethod
    def of(cls, folder: Path) -> Rows:
        """Run the audit that the app in ``folder`` brings, which changes nothing there."""
        command = [sys.executable, "app/audit", "--format", "json"]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        if not (folder / ".env").exists():  # a clone, which has no key, is worth a report too
            environment.setdefault("SECRET_KEY", secrets.token_hex(48))
        try:
            ended = subprocess.run(  # noqa: S603 - this Python, with arguments that no shell sees
                command,
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
            return cls([], lines[-1] if lines else f"app/audit ended with {ended.returncode} and gave no report.")

    def state(self, number: int) -> str:
        """Give the state of a mitigation's row."""
        return next((row["state"] for row in self.mitigations if row["number"] == number), "not looked at")


def told(before: Rows, now: Rows) -> Iterator[str]:
    """Give the ten rows, and under those that changed what was found, and what mends it."""
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
                    yield f"         and {more} more of these: make audit"
                yield f"         fix: {step['findings'][0]['fix']}"


def weakened(before: Rows, now: Rows) -> list[int]:
    """Give the numbers of the mitigations whose row is worse than it was."""
    rank = {row["number"]: STATES.index(row["state"]) for row in before.mitigations}
    return [row["number"] for row in now.mitigations if STATES.index(row["state"]) > max(1, rank.get(row["number"], 0))]
