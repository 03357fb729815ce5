"""The check of forms tells what needs a token from what needs none."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tests.lint.forms import Reasons, read_by_hand

SIGNED = "The sender signs the body."
NEEDS_ONE: Reasons = {None}
EXEMPT: Reasons = {"", SIGNED}  # its OPTIONS need no token either
GET: Reasons = {""}

READ = "request.form['a']"
VIEW = f"@bp.post('/a')\ndef view():\n    return {READ}\n"
META = "class F(FlaskForm):\n    class Meta:\n        csrf = False\n\n\ndef view():\n    F()\n"
HELPER = f"def helper():\n    return {READ}\n\n\n@bp.post('/a')\n@exempt('…')\ndef view():\n    return helper()\n"


def found(code: str, views: dict[int, Reasons]) -> list[str | None]:
    return [reason for _, _, reason in read_by_hand(ast.parse(textwrap.dedent(code)), views)]


@pytest.mark.parametrize(
    ("code", "views", "wanted"),
    [
        (VIEW, {1: NEEDS_ONE}, [None]),
        (VIEW, {1: EXEMPT}, [SIGNED]),
        (VIEW, {1: EXEMPT | NEEDS_ONE}, [None]),  # one of its routes is exempt
        (VIEW, {}, [None]),
        (VIEW.replace("['a']", ".getlist('a')"), {1: EXEMPT}, [SIGNED]),
        (VIEW.replace("def", "async def"), {1: EXEMPT}, [SIGNED]),
        (HELPER, {5: EXEMPT}, [SIGNED]),
        (HELPER, {5: NEEDS_ONE}, [None]),
        (f"{HELPER}\n\n@bp.post('/b')\ndef other():\n    return helper()\n", {5: EXEMPT, 11: NEEDS_ONE}, [None]),
        (f"{HELPER}\n\nbp.before_request(helper)\n", {5: EXEMPT}, [None]),
        (f"class View(MethodView):\n    def post(self):\n        return {READ}\n", {2: EXEMPT}, [SIGNED]),
        (META, {6: GET}, []),
        (META, {6: EXEMPT}, [SIGNED]),
        (META, {6: NEEDS_ONE}, [None]),
        ("def view():\n    F(request.args, meta={'csrf': False})\n", {1: GET}, []),
        ("def view():\n    F(request.args, meta={'csrf': False})\n", {1: GET | NEEDS_ONE}, [None]),
        ("def view():\n    F(formdata=request.form).data\n", {1: NEEDS_ONE}, []),
    ],
)
def test_2_S3_a_form_is_read_by_hand_only_where_no_token_is_needed(
    code: str, views: dict[int, Reasons], wanted: list[str | None]
) -> None:
    assert found(code, views) == wanted
