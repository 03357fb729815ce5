"""Print the pages of the site's reference as JSON: each name with its Markdown. Runs in a generated app's folder."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from app import create_app
from app.events import EVENTS
from app.security.declarations import declared_by
from app.security.rate_limits import KIND, LIMITS, STATIC_LIMIT, UNLIMITED
from app.settings import Settings
from app.visitors import PUBLIC
from flask.cli import FlaskGroup, ScriptInfo
from tools.audit.mitigations import MITIGATIONS

WIDE = "---\nhide: [toc]\n---"  # room for the tables

SETTINGS = """# Settings

A value comes from the environment, else from `.env`. Times are in seconds, sizes in bytes, and commas separate the
parts of a list. An invalid value stops the start, and so does an unknown name in `.env`. gunicorn reads `HOST`,
`PORT`, `THREADS` and `WEB_CONCURRENCY` from the environment alone: see `gunicorn.conf.py`."""

COMMANDS = """# Commands

## make

In the folder of a generated app; `make` alone lists them too:"""

FLASK = """## flask

Each begins with `flask --app app`. `--help` at its end lists its options."""

ROUTES = """# Routes

The routes of a new app, and the rate limit of one client. *Default* is the setting `RATELIMIT_DEFAULT`. A kind of
limit, in brackets, is shared by all views that name it, and counts the requests that change something."""

FINDINGS = """# Findings

What `make audit` reports. An id is stable, so a team can search for it. Its letters name the mitigation and its
number the step: `CF05` is about 2.S5. A finding is *missing* for a missing protection, *relaxed* for one that was
relaxed on purpose, and a *note* for a fact that weakens no step."""

DEPLOYMENT = """## Facts of a deployment

What the settings and files of one deployment relax. A server logs them at its start."""

EVENTS_PAGE = """# Security events

What the logger `security` writes, one line for each event, in the words of the OWASP Logging Vocabulary.
`app/events.py` lists them, and `security_event` of `app/logs.py` writes one."""


def table(*columns: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown. A bar in a cell would end the cell."""
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in cells)


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def settings() -> Iterator[str]:
    rows = []
    for name, field in Settings.model_fields.items():
        least, most = (next((getattr(at, of) for at in field.metadata if hasattr(at, of)), 0) for of in ("ge", "le"))
        limits = ", ".join([f"at least {least}"] * bool(least) + [f"at most {most}"] * bool(most))
        meaning = f"{field.description} ({limits})" if limits else field.description
        rows.append((code(name), code(shown(field.default)), meaning, code((field.examples or [""])[0])))
    yield SETTINGS
    yield table("setting", "default", "meaning", "example", rows=rows)


def shown(default: object) -> str:
    """Return a default as it is written in .env."""
    if isinstance(default, bool):
        return str(int(default))
    text = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
    return text.replace(os.getcwd(), "…")


def commands() -> Iterator[str]:
    yield COMMANDS
    yield table("command", "what it does", rows=targets(Path("Makefile")))
    yield "In a clone of the template:"
    yield table("command", "what it does", rows=targets(Path(__file__).parents[2] / "Makefile"))
    cli = FlaskGroup(create_app=create_app)
    yield FLASK
    rows = leaves(cli, click.Context(cli, obj=ScriptInfo(create_app=create_app)), "")
    yield table("command", "what it does", rows=rows)


def targets(makefile: Path) -> Iterator[tuple[str, str]]:
    """Yield each target of a Makefile, and what its comment says."""
    for name, text in re.findall(r"(?m)^([a-z-]+):.*?## (.*)$", makefile.read_text(encoding="utf-8")):
        yield code(f"make {name}"), text


def leaves(group: click.Group, context: click.Context, above: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a group and of the groups in it, with its arguments, and the start of its help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, context, f"{above}{name} ")
        elif command:
            arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
            yield code(" ".join([above + name, *arguments])), command.get_short_help_str(200)


def routes() -> Iterator[str]:
    app = create_app()
    rows = []
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        is_static, last = rule.endpoint == "static", methods[-1]  # the POST, if there is one
        kind = declared_by(app, rule.endpoint, last, KIND, STATIC_LIMIT if is_static else "default", inherited=True)
        limit = f"{LIMITS[kind]} ({kind})" if kind in LIMITS else kind
        if reason := declared_by(app, rule.endpoint, last, UNLIMITED):
            limit = f"none: {reason}"
        who = "everybody" if is_static or declared_by(app, rule.endpoint, last, PUBLIC) else "members"
        rows.append((code(rule.rule), ", ".join(methods), code(rule.endpoint), who, limit))
    yield ROUTES
    yield table("path", "methods", "endpoint", "for", "limit", rows=rows)


def findings() -> Iterator[str]:
    yield FINDINGS
    for number, mitigation in MITIGATIONS.items():
        rows = [(code(s.finding_id), s.id, s.title, s.fix, ", ".join(s.asvs)) for s in mitigation.steps]
        yield f"## {number} {mitigation.title}"
        yield table("id", "step", "what it requires", "how to fix it", "ASVS 5.0", rows=rows)
    yield DEPLOYMENT
    yield table("id", "severity", "what was observed", "how to fix it", rows=sorted(facts()))


def facts() -> Iterator[tuple[str, str, str, str]]:
    """Yield what the functions ``check(app)`` may report, as their code has it."""
    for path in sorted(Path("app").rglob("*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and function.name == "check":
                texts: dict[str, str] = {}
                for node in statements(function.body):
                    match node:
                        case ast.Assign(targets=[ast.Name(id=name)], value=value):
                            texts[name] = in_words(value, texts)
                        case ast.Expr(value=ast.Yield(value=ast.Call(args=[*parts]))):
                            finding, severity, evidence, fix = (in_words(part, texts) for part in parts)
                            yield code(finding), severity, evidence, fix


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        yield from statements(getattr(node, "body", []))


def in_words(node: ast.expr, texts: dict[str, str]) -> str:
    """Return a text of the code. What is known only while the app runs is an ellipsis."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return texts.get(name, "…")
        case ast.JoinedStr(values=parts):
            return "".join(in_words(part, texts) for part in parts)
    return "…"


def events() -> Iterator[str]:
    rows = [(code(name), logging.getLevelName(level), text) for name, (level, text) in EVENTS.items()]
    yield EVENTS_PAGE
    yield table("event", "level", "meaning", rows=rows)


if __name__ == "__main__":
    pages = (settings, commands, routes, findings, events)
    print(json.dumps({page.__name__: "\n\n".join([WIDE, *page()]) for page in pages}))
