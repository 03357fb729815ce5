"""The code makes no markup, renders no template that data chooses, and redirects through ``app/security/urls.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from app.security import templating
from tests.lint.code import check_code, trees_of
from tests.lint.links import hosts_of


def test_7_S3_7_S4_10_S4_the_code_holds_none_of_it(app: Flask) -> None:
    assert list(check_code(trees_of(Path(app.root_path)), templating.ALLOWED, hosts_of(app))) == []


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("from markupsafe import Markup", ["TM03"]),
        ("from flask import Markup as M", ["TM03"]),
        ("markupsafe.Markup(x)", ["TM03"]),
        ("def __html__(self): pass", ["TM03"]),
        ("render_template_string(x)", ["TM04"]),
        ("from flask import render_template_string as r", ["TM04"]),
        ("app.jinja_env.from_string(x)", ["TM04"]),
        ("from jinja2 import Template", ["TM04"]),
        ("jinja2.Template(x)", ["TM04"]),
        ("render_template(x)", ["TM04"]),
        ("render_template(f'{x}.html')", ["TM04"]),
        ("render_template('x.html', x=x)", []),
        ("from string import Template", []),
    ],
)
def test_7_S3_7_S4_the_check_finds_faults_in_code(tmp_path: Path, code: str, ids: list[str]) -> None:
    (tmp_path / "view.py").write_text(code)
    assert [finding.id for finding in check_code(trees_of(tmp_path))] == ids


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("redirect('/uploads')", ["UR04"]),
        ("redirect(request.args['next'])", ["UR04"]),
        ("flask.redirect(target)", ["UR04"]),
        ("redirect(url_for('uploads.index'), 303)", []),
        ("flask.redirect(flask.url_for('uploads.index'))", []),
        ("redirect(not_url_for('uploads.index'))", ["UR04"]),
        ("redirect_to(request.args.get('next'), 'pages.home')", []),
        ("@may_redirect_to('pay.example', reason='r')\ndef view(): return redirect(link)", []),
        ("@urls.may_redirect_to('pay.example', reason='r')\nclass View:\n    def get(self): return redirect(link)", []),
        ("may_redirect_to('pay.example', reason='r')(bp)\nredirect(link)", []),
        ("@may_redirect_to('pay.example', reason='r')\ndef view(): pass\ndef other(): return redirect(link)", ["UR04"]),
        ("@may_redirect_to('pay.example', reason='r')\ndef view(): return redirect(request.args['next'])", ["UR04"]),
        ("@may_redirect_to('pay.example', reason='r')\ndef view(): return Markup(x)", ["TM03"]),
    ],
)
def test_10_S4_the_check_finds_redirects_in_code(tmp_path: Path, code: str, ids: list[str]) -> None:
    (tmp_path / "view.py").write_text(code)
    assert [finding.id for finding in check_code(trees_of(tmp_path))] == ids


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("x = 'https://shop.example/uploads'", ["UR03"]),
        ("x = {'next': f'https://shop.example/uploads/{id}'}", ["UR03"]),
        ("x = 'http://localhost:8000/uploads'", ["UR03"]),
        ("x = 'see https://SHOP.example:443/a and //127.0.0.1/b'", ["UR03", "UR03"]),
        ("def view():\n    'As on https://shop.example/uploads.'", []),
        ("x = 'https://www.shop.example.org/'", []),
        ("x = 'https://evil.example/?next=https%3A//shop.example/'", []),
        ("x = 'redis://localhost:6379/0', 'http://localhost:9200/', 'http://127.0.0.1:11434'", []),
        ("x = 'shop.example', '//', 'https://', 'http://['", []),
    ],
)
def test_10_S3_the_check_finds_addresses_of_the_app_in_code(tmp_path: Path, code: str, ids: list[str]) -> None:
    (tmp_path / "view.py").write_text(code)
    assert [finding.id for finding in check_code(trees_of(tmp_path), (), {"shop.example"})] == ids
