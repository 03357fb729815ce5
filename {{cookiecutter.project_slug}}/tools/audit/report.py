"""The audit's report as text for people, as JSON and SARIF for programs, as an HTML page for reviews."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from app.project import TEMPLATE_VERSION
from app.security.findings import Finding
from tools.audit.results import Report, State

HERE = Path(__file__).parent
MARKS: dict[State, str] = {"implemented": "+", "relaxed": "~", "missing": "!", "not applicable": "."}
SHOWN = 4  # findings of one step in the table
LEVELS = {"missing": "error", "relaxed": "warning", "note": "note"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

# Evidence that begins like this points to a line of the app's code or of a template.
_PLACE = re.compile(r"([\w./-]+\.(?:py|html|txt|xml)):(\d+): ")


def as_text(report: Report) -> str:
    """Return a table, with the findings below each step."""
    lines = [f"The audit of template version {TEMPLATE_VERSION}"]
    for row in report.rows:
        lines.append(f"\n{row.number:>2} {row.title:<28} {row.state}")
        for step in row.steps:
            reason = f" ({step.reason})" if step.reason else ""
            lines.append(f"   {MARKS[step.state]} {step.step.id:<5} {step.step.title}{reason}")
            for found in step.findings[:SHOWN]:
                lines.append(f"       {found.id} {found.severity}: {found.evidence}")
            if len(step.findings) > SHOWN:
                lines.append(f"       … and {len(step.findings) - SHOWN} more of these (see --format json)")
            lines += [f"       fix: {fix}" for fix in dict.fromkeys(found.fix for found in step.findings)]
    if report.deployment:
        lines.append("\n   This deployment")
    for fact in report.deployment:
        lines += [f"       {fact.id} {fact.severity}: {fact.evidence}", f"       fix: {fact.fix}"]
    states = [row.state for row in report.rows]
    counts = [f"{states.count(state)} {state}" for state in MARKS if state in states]
    if report.foreign:
        lines.append("\nWhere a fix names files in app/, it means those of an app generated from this template.")
    return "\n".join([*lines, "", f"{len(report.rows)} mitigations: {', '.join(counts)}"])


def as_json(report: Report) -> str:
    """Return the JSON that ``report.schema.json`` describes."""
    content = {
        "version": 1,
        "template_version": TEMPLATE_VERSION,
        "mitigations": [
            {
                "number": row.number,
                "title": row.title,
                "state": row.state,
                "steps": [
                    {
                        "id": step.step.id,
                        "title": step.step.title,
                        "state": step.state,
                        "reason": step.reason,
                        "asvs": list(step.step.asvs),
                        "findings": [vars(found) for found in step.findings],
                    }
                    for step in row.steps
                ],
            }
            for row in report.rows
        ],
        "deployment": [vars(found) for found in report.deployment],
    }
    return json.dumps(content, indent=2)


def as_sarif(report: Report) -> str:
    """Return SARIF 2.1.0 as GitHub code scanning accepts it: one rule per step, one result per finding."""
    steps = [result.step for row in report.rows for result in row.steps]
    rules = [
        {
            "id": step.finding_id,
            "name": step.id,
            "shortDescription": {"text": step.title},
            "help": {"text": step.fix},
            "properties": {"tags": ["security", *(f"ASVS-5.0-{each}" for each in step.asvs)]},
        }
        for step in steps
    ]
    rules += [{"id": fact.id, "shortDescription": {"text": "A fact of this deployment"}} for fact in report.deployment]
    results = [_result(found, report) for found in report.findings]
    driver = {"name": "tools.audit", "version": TEMPLATE_VERSION, "rules": rules}
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def as_html(report: Report) -> str:
    """Return one self-contained page, without scripts."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (HERE / "report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(report=report, marks=MARKS, version=TEMPLATE_VERSION)


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "html": as_html,
}


def _result(found: Finding, report: Report) -> dict[str, object]:
    file, line = next(_places(found, report), (f"{report.folder}/__init__.py", 1))
    return {
        "ruleId": found.id,
        "level": LEVELS[found.severity],
        "message": {"text": f"{found.evidence} Fix: {found.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": file.lstrip("/")},
                    "region": {"startLine": line},
                }
            },
        ],
    }


def _places(found: Finding, report: Report) -> Iterator[tuple[str, int]]:
    if place := _PLACE.match(found.evidence):
        below = "" if place[1].endswith(".py") else "/templates"
        folder = "" if report.foreign else f"{report.folder}{below}"
        yield f"{folder}/{place[1]}", max(1, int(place[2]))
