"""7 Templates: can what somebody typed become part of a page, or run?"""

from __future__ import annotations

from collections.abc import Iterator

from flask import render_template
from jinja2 import ChoiceLoader, DictLoader, StrictUndefined, UndefinedError

from app.audit.steps import step
from app.audit.subject import NoAnswer, NotApplicable, Subject

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


@step(
    "7.S2",
    "Nothing prints into code, raw blocks or bare attributes",
    "Quote the attribute; carry data to scripts by tojson in a data attribute",
    "V1.2.1",
    "V1.2.3",
)
def nothing_prints_into_code(subject: Subject) -> Iterator[str]:
    """Read all templates."""
    _any_template(subject)
    yield from subject.static("TM02")


@step(
    "7.S3",
    "|safe and Markup only where the list of exceptions says why",
    "Print the value with {{ }} alone, or say in templating.ALLOWED why not",
    "V1.2.1",
)
def nothing_goes_round_the_escaping(subject: Subject) -> Iterator[str]:
    """Read all templates and all code."""
    yield from subject.static("TM03")


@step("7.S4", "No template is made from data", "Use a template file, or templating.fill_placeholders", "V1.3.7")
def no_template_from_data(subject: Subject) -> Iterator[str]:
    """Read all templates and all code."""
    yield from subject.static("TM04")


@step("7.S5", "Escaping is proved at run time", "Set autoescape to True", "V1.2.1")
def escaping_is_proved(subject: Subject) -> Iterator[str]:
    """Let a view render a probe, and read the response."""
    loader = subject.app.jinja_env.loader
    subject.app.jinja_env.loader = ChoiceLoader(
        [DictLoader({"audit-probe.txt": "{{ probe }}"}), *([loader] if loader else [])]
    )
    try:
        with subject.view(subject.page.endpoint, lambda: render_template("audit-probe.txt", probe=PROBE)):
            answer = subject.browser().open(subject.page.rule)
        if answer.status_code != 200 or not answer.text:
            raise NoAnswer(f"no view can be reached ({subject.page.rule} answers {answer.status_code})")
        if "<" in answer.text:
            yield f"A view that renders {PROBE!r} by a template named audit-probe.txt sends it as it is."
    finally:
        subject.app.jinja_env.loader = loader


def _rendered(subject: Subject, name: str, source: str) -> str:
    return subject.app.jinja_env.overlay(loader=DictLoader({name: source})).get_template(name).render(probe=PROBE)


def _any_template(subject: Subject) -> None:
    if not subject.templates:
        raise NotApplicable("the app has no templates")
