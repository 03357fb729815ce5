"""7 Templates: can what somebody typed become part of a page, or run?"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from flask import render_template
from jinja2 import ChoiceLoader, DictLoader, StrictUndefined, TemplateNotFound, UndefinedError

from app.audit.findings import Finding
from app.audit.steps import step
from app.audit.subject import HOST, NoAnswer, NotApplicable, Subject
from app.security import templating

RUNNING = (
    "javascript:x()",
    "JavaScript:x()",
    "java\nscript:x()",
    " \x01javascript:x()",
    "data:text/html,x",
    "vbscript:x",
)
PROBE = "<&\"'>"
NAMES = ("audit.html", "audit.txt", "audit.xml", "audit")


@step(
    "7.S1",
    "Every template escapes, whatever its name, and a misspelt name is an error",
    "Set autoescape and StrictUndefined, as app/security/templating.py did",
    "V1.2.1",
)
def templates_escape(subject: Subject) -> Iterator[str]:
    """Render a value, and a name that is not there."""
    for name in NAMES:
        if set("<>\"'") & set(_rendered(subject, name, "{{ probe }}")):
            yield f"A template named {name} prints without escaping."
    try:
        _rendered(subject, "audit.html", "{{ misspelt }}")
    except UndefinedError:
        pass
    else:
        yield "A misspelt name prints nothing."
    if not issubclass(subject.app.jinja_env.undefined, StrictUndefined):
        yield "The environment is not strict about names."
    if subject.own:
        with (
            _template(subject, "audit.html", "{{ probe }}"),
            subject.app.test_request_context(base_url=f"https://{HOST}"),
        ):
            if "<" in templating.render_text("audit.html", probe=PROBE):
                yield "What renders mails renders pages without escaping."


@step(
    "7.S2",
    "Nothing prints into code, raw blocks or bare attributes",
    "Quote the attribute; carry data to scripts by tojson in a data attribute",
    "V1.2.1",
    "V1.2.2",
    "V1.2.3",
)
def nothing_prints_into_code(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates."""
    _any_template(subject)
    yield from subject.static("TM02")
    if safe_url := subject.app.jinja_env.filters.get("safe_url"):
        for url in RUNNING:
            if re.sub(r"[\x00-\x20]", "", str(safe_url(url))).lower().startswith(("javascript:", "data:", "vbscript:")):
                yield f"safe_url lets {url!r} pass."
        if not set("<>") & set(str(safe_url("/<x>"))) or hasattr(safe_url("/<x>"), "__html__"):
            yield "safe_url takes what it passes for markup."


@step(
    "7.S3",
    "|safe and Markup only where the list of exceptions says why",
    "Print the value with {{ }} alone, or say in templating.ALLOWED why not",
    "V1.2.1",
)
def nothing_goes_round_the_escaping(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates and all code."""
    yield from subject.static("TM03")
    if subject.own:
        yield from subject.unused_exceptions()


@step("7.S4", "No template is made from data", "Use a template file, or templating.fill_placeholders", "V1.3.7")
def no_template_from_data(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates and all code."""
    yield from subject.static("TM04")
    if not subject.own:
        return
    letter, values = "${a.__class__} {a.__class__} ${a[0]} $a ${b}", {"a": "x"}
    if templating.fill_placeholders(letter, values) != letter.replace("$a ", "x "):
        yield "The placeholders of a user's text reach into what fills them."
    dropped = Path(subject.app.config["UPLOAD_DIR"], "audit-dropped.html")
    dropped.write_text("dropped", encoding="utf-8")
    try:
        subject.app.jinja_env.get_template(dropped.name)
    except TemplateNotFound:
        pass
    else:
        yield "A template that lies among the uploads is found."
    finally:
        dropped.unlink()


@step("7.S5", "Escaping is proved at run time", "Set autoescape to True", "V1.2.1")
def escaping_is_proved(subject: Subject) -> Iterator[str]:
    """Let a view render a probe, and read the response."""
    subject.needs_page()
    with (
        _template(subject, "audit-probe.txt", "{{ probe }}"),
        subject.view(subject.page.endpoint, lambda: render_template("audit-probe.txt", probe=PROBE)),
    ):
        answer = subject.browser().open(subject.page.rule)
    if answer.status_code != 200 or not answer.text:
        raise NoAnswer(f"no view can be reached ({subject.page.rule} answers {answer.status_code})")
    if "<" in answer.text:
        yield f"A view that renders {PROBE!r} by a template named audit-probe.txt sends it as it is."
    if subject.own:
        environment = subject.app.jinja_env
        with mock.patch.object(environment, "autoescape", lambda name: str(name).endswith(".html")):
            if not any(found.id == "TM01" for found in templating.check(subject.app)):
                yield "The proof on the home page looks at pages alone, not at other templates."
        with mock.patch.object(environment, "autoescape", False):
            if not any(found.id == "TM01" for found in templating.check(subject.app)):
                yield "The proof on the home page proves nothing."


@contextlib.contextmanager
def _template(subject: Subject, name: str, source: str) -> Iterator[None]:
    """Let the app have one more template."""
    loader = subject.app.jinja_env.loader
    subject.app.jinja_env.loader = ChoiceLoader([DictLoader({name: source}), *([loader] if loader else [])])
    try:
        yield
    finally:
        subject.app.jinja_env.loader = loader


def _rendered(subject: Subject, name: str, source: str) -> str:
    return subject.app.jinja_env.overlay(loader=DictLoader({name: source})).get_template(name).render(probe=PROBE)


def _any_template(subject: Subject) -> None:
    if not subject.templates:
        raise NotApplicable("the app has no templates")
