"""The templates hold nothing that goes around the escaping, no form without a token, no address written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app.security import templating
from tests.lint.code import check_code, trees_of
from tests.lint.templates import check_template, check_templates
from tests.test_07_templates import ECHO


def test_7_S2_7_S3_2_S4_10_S3_the_templates_hold_none_of_it(app: Flask) -> None:
    assert list(check_templates(app, templating.ALLOWED)) == []


@pytest.mark.parametrize("place", templating.ALLOWED)
def test_7_S3_every_exception_is_still_needed(app: Flask, place: str) -> None:
    rest = templating.ALLOWED.keys() - {place}
    assert [*check_templates(app, rest), *check_code(trees_of(Path(app.root_path)), rest)]


def test_the_echo_passes_the_audit(app: Flask) -> None:
    assert list(check_template(app.jinja_env, "echo", ECHO)) == []


@pytest.mark.parametrize(
    ("template", "ids"),
    [
        ("{{ x }}<p title='{{ x }}'>", []),
        ("{{ x|safe }}", ["TM03"]),
        ("{{ (x ~ y)|safe|upper }}", ["TM03"]),
        ("{% if x|safe %}{% endif %}", ["TM03"]),
        ("{% autoescape false %}{{ x }}{% endautoescape %}", ["TM03"]),
        ("{% raw %}{{ x }}{% endraw %}", ["TM02"]),
        ("{% include x %}", ["TM04"]),
        ("{% include ['a.html', 'b.html'] %}", ["TM04"]),
        ("{% extends x %}", ["TM04"]),
        ("{% from x import y %}", ["TM04"]),
        ("{% include 'a.html' %}", []),
        ("<p title={{ x }}>", ["TM02"]),
        ("<p {{ x }}>", ["TM02"]),
        ("<p {{ x }}='y'>", ["TM02"]),
        ("<p onclick='f({{ x }})'>", ["TM02"]),
        ("<p style='color: {{ x }}'>", ["TM02"]),
        ("<script>var x = {{ x|tojson }}</script>", ["TM02"]),
        ("<style>p { color: {{ x }} }</style>", ["TM02"]),
        ('<p data-x="{{ x|tojson }}">', ["TM02"]),
        ("<p data-x='{{ x|tojson }}'>", []),
        ("<a href='{{ x }}'>", ["TM02"]),
        ("<a href='javascript:{{ x }}'>", ["TM02"]),
        ("<a href='{{ x|safe_url }}{{ y }}'>", ["TM02"]),
        ("<a href='{{ x|safe_url|upper }}'>", ["TM02"]),
        ("<a href='{{ x|safe_url }}'>", []),
        ("<a href='{{ url_for(x) }}?y={{ y }}'>", ["TM02"]),
        ("<a href='{{ url_for(x) }}#{{ y|upper }}'>", ["TM02"]),
        ("<a href='{{ url_for(x) }}?y={{ y|urlencode }}'>", []),
        ("<form method=post>{{ f.email }}</form>", ["CF04"]),
        ("<form method='POST'></form>{{ f.hidden_tag() }}", ["CF04"]),
        ("<form method=post>{{ f.hidden_tag() }}</form><form method=post>", ["CF04"]),
        ("<form method=post>{{ f.csrf_token }}</form>", []),
        ("<form method=get></form><form></form>", []),
    ],
)
def test_7_S2_7_S3_2_S4_the_check_finds_faults_in_templates(app: Flask, template: str, ids: list[str]) -> None:
    assert [finding.id for finding in check_template(app.jinja_env, "x.html", template)] == ids


@pytest.mark.parametrize(
    ("template", "ids"),
    [
        ("<a href='/uploads'>", ["UR03"]),
        ("<a href='uploads'>", ["UR03"]),
        ("<form action='/uploads'>", ["UR03"]),
        ("<button formaction='/uploads'>", ["UR03"]),
        ("<img src=/static/icon.svg>", ["UR03"]),
        ("<a href='//evil.example'>", ["UR03"]),
        ("<a href='javascript:x()'>", ["UR03"]),
        ("<a href='{{ url_for('pages.home') }}'>", []),
        ("<a href=\"{{ url_for('pages.home') }}#main\">", []),
        ("<a href='#main'>", []),
        ("<a href='https://www.example.com/'>", []),
    ],
)
def test_10_S3_the_check_finds_addresses_in_templates(app: Flask, template: str, ids: list[str]) -> None:
    assert [finding.id for finding in check_template(app.jinja_env, "x.html", template)] == ids
