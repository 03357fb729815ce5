"""The templates hold nothing that goes around the escaping, no form without a token, no address written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app.security import templating
from tests.lint.code import check_code, trees_of
from tests.lint.links import hosts_of
from tests.lint.templates import check_template, check_templates
from tests.test_07_templates import ECHO


def test_7_S2_7_S3_2_S4_10_S3_the_templates_hold_none_of_it(app: Flask) -> None:
    assert list(check_templates(app, templating.ALLOWED, hosts=hosts_of(app))) == []


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
        ("<script type='application/ld+json'>{{ x|tojson }}</script>", []),
        ("<script type='application/ld+json'>{{ x }}</script>", ["TM02"]),
        ("<script type='application/ld+json'></script><script>{{ x|tojson }}</script>", ["TM02"]),
        ("<script type=importmap>{{ x|tojson }}</script>", ["TM02"]),
        ("<meta http-equiv=refresh content='0; url={{ x }}'>", ["TM02"]),
        ("<meta content='{{ wait }}' http-equiv='Refresh'>", ["TM02"]),
        ("<meta http-equiv=refresh content='5; url={{ x|safe_url }}'>", []),
        ("<meta http-equiv=refresh content=\"5; url={{ url_for('pages.home') }}\"><meta content='{{ x }}'>", []),
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
        ("<form method=post action='https://pay.example/'></form><form method=post>", ["CF04"]),
        ("<form method=post action='https://pay.example/'>{{ f.hidden_tag() }}</form>", ["CF04"]),
        ("<form action='//pay.example/'>{{ f.csrf_token }}</form>{{ f.csrf_token }}", ["UR03", "CF04"]),
        ("<form method=post>{{ f.csrf_token }}<button formaction='HTTPS://pay.example/'></form>", ["CF04"]),
        ("<form action='https://pay.example/'><input value='{{ csrf_token() }}'></form>", ["CF04"]),
        ("<form action='https://pay.example/'></form><form method=post>{{ f.csrf_token }}</form>", []),
        ("<button formaction='https://pay.example/'></button>{{ csrf_token() }}<form></form>", []),
        ("<meta content='{{ csrf_token() }}'><form action='https://pay.example/'></form>", []),
        ("<img src='//tiles.example/a.png'><img src='HTTPS://tiles.example/a.png'><img src='/a.png'>", ["UR03"] * 2),
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


@pytest.mark.parametrize(
    ("name", "template", "lines"),
    [
        ("x.html", "<a href='https://shop.example/uploads'>", [1]),
        ("x.html", "\n<form method=get\n action=https://shop.example>", [3]),
        ("x.html", "<a href='HTTPS://Shop.Example:443/'>", [1]),
        ("x.html", "<a href='//shop.example/uploads'>", [1]),
        ("x.html", "<link rel=canonical href='https://shop.example/'>", [1]),
        ("x.html", "<meta http-equiv=refresh content='0; url=https://shop.example/'>", [1]),
        ("x.html", "<p data-next='https://shop.example/uploads'>", [1]),
        ("x.html", "<a href='{{ 'https://shop.example/uploads' }}'>", [1]),
        ("x.html", "<a href='https://user@shop.example/'><a href='http://localhost:5000/'>", [1, 1]),
        ("mail.txt", "Hello,\nhttps://shop.example/reset/{{ token }}", [2]),
        ("x.html", "<a href='https://shop.example.org/'><a href='https://other.example/shop.example/'>", []),
        ("x.html", "<a href='http://localhost:8025/'>", []),
        ("x.html", "<a href='{{ url_for('pages.home', _external=True) }}'>", []),
    ],
)
def test_10_S3_the_check_finds_addresses_of_the_app_in_templates(
    tmp_path: Path, name: str, template: str, lines: list[int]
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / name).write_text(template)
    found = check_templates(Flask("shop", root_path=str(tmp_path)), (), hosts={"shop.example"})
    ours = [finding for finding in found if "an address of this app" in finding.evidence]
    assert [(finding.id, finding.evidence.split(":")[:2]) for finding in ours] == [
        ("UR03", [name, str(line)]) for line in lines
    ]
