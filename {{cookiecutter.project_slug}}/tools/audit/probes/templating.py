"""7 Templates: can user input become markup or code?"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from flask import render_template
from jinja2 import ChoiceLoader, DictLoader, StrictUndefined, TemplateNotFound, UndefinedError

from app.security import templating
from app.security.findings import Finding
from tools.audit.steps import probe
from tools.audit.subject import HOST, NoAnswer, NotApplicable, Subject

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


@probe("7.S1")
def templates_escape(subject: Subject) -> Iterator[str]:
    """Render a value with markup, and an undefined name."""
    for name in NAMES:
        if set("<>\"'") & set(_rendered(subject, name, "{{ probe }}")):
            yield f"A template named {name} prints without escaping."
    try:
        _rendered(subject, "audit.html", "{{ misspelt }}")
    except UndefinedError:
        pass
    else:
        yield "An undefined name prints nothing."
    if not issubclass(subject.app.jinja_env.undefined, StrictUndefined):
        yield "The environment does not use StrictUndefined."
    if subject.own:
        with (
            _template(subject, "audit.html", "{{ probe }}"),
            subject.app.test_request_context(base_url=f"https://{HOST}"),
        ):
            if "<" in templating.render_text("audit.html", probe=PROBE):
                yield "render_text, which renders mails, does not escape HTML."


@probe("7.S2")
def nothing_prints_into_code(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates."""
    _any_template(subject)
    yield from subject.static("TM02")
    if safe_url := subject.app.jinja_env.filters.get("safe_url"):
        for url in RUNNING:
            if re.sub(r"[\x00-\x20]", "", str(safe_url(url))).lower().startswith(("javascript:", "data:", "vbscript:")):
                yield f"safe_url allows {url!r}."
        if not set("<>") & set(str(safe_url("/<x>"))) or hasattr(safe_url("/<x>"), "__html__"):
            yield "safe_url returns markup."


@probe("7.S3")
def nothing_goes_round_the_escaping(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates and all code."""
    yield from subject.static("TM03")
    if subject.own:
        yield from subject.unused_exceptions()


@probe("7.S4")
def no_template_from_data(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates and all code."""
    yield from subject.static("TM04")
    if not subject.own:
        return
    letter, values = "${a.__class__} {a.__class__} ${a[0]} $a ${b}", {"a": "x"}
    if templating.fill_placeholders(letter, values) != letter.replace("$a ", "x "):
        yield "Placeholders in a user's text can access attributes of their values."
    dropped = Path(subject.app.config["UPLOAD_DIR"], "audit-dropped.html")
    dropped.parent.mkdir(exist_ok=True)
    dropped.write_text("dropped", encoding="utf-8")
    try:
        subject.app.jinja_env.get_template(dropped.name)
    except TemplateNotFound:
        pass
    else:
        yield "A template among the uploads can be loaded."
    finally:
        dropped.unlink()


@probe("7.S5")
def escaping_is_proved(subject: Subject) -> Iterator[str]:
    """Make a view render markup, and read the response."""
    subject.needs_page()
    with (
        _template(subject, "audit-probe.txt", "{{ probe }}"),
        subject.view(subject.page.endpoint, lambda: render_template("audit-probe.txt", probe=PROBE)),
    ):
        answer = subject.browser().open(subject.page.rule)
    if answer.status_code != 200 or not answer.text:
        raise NoAnswer(f"no view can be reached ({subject.page.rule} answers {answer.status_code})")
    if "<" in answer.text:
        yield f"A view that renders {PROBE!r} with a template named audit-probe.txt does not escape it."


@contextlib.contextmanager
def _template(subject: Subject, name: str, source: str) -> Iterator[None]:
    """Add a template to the app, within a ``with`` block."""
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
