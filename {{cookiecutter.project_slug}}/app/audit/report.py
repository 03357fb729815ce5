"""The audit's result as text for people, as JSON and SARIF for programs, as one HTML page for a review."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from app.audit.findings import Finding, Row, State

HERE = Path(__file__).parent
MARKS: dict[State, str] = {"implemented": "+", "relaxed": "~", "missing": "!", "not applicable": "."}
SHOWN = 4  # findings of one step in the table
LEVELS = {"missing": "error", "relaxed": "warning"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

# Evidence that begins so names a line of the app's code or of a template.
_PLACE = re.compile(r"([\w./-]+\.(?:py|html|txt|js|xml)):(\d+): ")


def as_text(rows: Sequence[Row]) -> str:
    """Give a table, with what was found under each step."""
    lines = []
    for row in rows:
        lines.append(f"\n{row.number:>2} {row.title:<28} {row.state}")
        for step in row.steps:
            lines.append(
                f"   {MARKS[step.state]} {step.id:<5} {step.title}{f' ({step.reason})' if step.reason else ''}"
            )
            for found in step.findings[:SHOWN]:
                lines.append(f"       {found.id} {found.severity}: {found.evidence}")
            if len(step.findings) > SHOWN:
                lines.append(f"       … and {len(step.findings) - SHOWN} more of these (see --format json)")
            if step.findings:
                lines.append(f"       mend: {step.findings[0].mend}")
    states = [row.state for row in rows]
    counts = [f"{states.count(state)} {state}" for state in MARKS if state in states]
    return "\n".join([*lines, "", f"{len(rows)} mitigations: {', '.join(counts)}"]).lstrip("\n")


def as_json(rows: Sequence[Row]) -> str:
    """Give what ``report.schema.json`` describes."""
    report = {
        "version": 1,
        "mitigations": [
            {
                "number": row.number,
                "title": row.title,
                "state": row.state,
                "steps": [
                    {
                        "id": step.id,
                        "title": step.title,
                        "state": step.state,
                        "reason": step.reason,
                        "asvs": list(step.asvs),
                        "findings": [vars(found) for found in step.findings],
                    }
                    for step in row.steps
                ],
            }
            for row in rows
        ],
    }
    return json.dumps(report, indent=2)


def as_sarif(rows: Sequence[Row]) -> str:
    """Give SARIF 2.1.0 as GitHub's code scanning takes it: a rule a step, a result a finding."""
    steps = [step for row in rows for step in row.steps]
    rules = [
        {
            "id": step.finding_id,
            "name": step.id,
            "shortDescription": {"text": step.title},
            "properties": {"tags": ["security", *(f"ASVS-5.0-{each}" for each in step.asvs)]},
        }
        for step in steps
    ]
    results = [_result(found) for step in steps for found in step.findings]
    run = {"tool": {"driver": {"name": "flask audit", "rules": rules}}, "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def as_html(rows: Sequence[Row]) -> str:
    """Give one page without scripts, which needs nothing else."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (HERE / "report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(rows=rows, marks=MARKS)


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "html": as_html,
}


def exit_code(rows: Sequence[Row], *, strict: bool) -> int:
    """Give 1 when something is missing, or with ``strict`` also when something is relaxed; else 0."""
    states = {row.state for row in rows}
    return int("missing" in states or (strict and "relaxed" in states))


def _result(found: Finding) -> dict[str, object]:
    file, line = next(_places(found), ("app/__init__.py", 1))
    return {
        "ruleId": found.id,
        "level": LEVELS[found.severity],
        "message": {"text": f"{found.evidence} Mend: {found.mend}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": file}, "region": {"startLine": line}}},
        ],
    }


def _places(found: Finding) -> Iterator[tuple[str, int]]:
    if place := _PLACE.match(found.evidence):
        folder = "app" if place[1].endswith(".py") or place[1].startswith("static/") else "app/templates"
        yield f"{folder}/{place[1]}", max(1, int(place[2]))
