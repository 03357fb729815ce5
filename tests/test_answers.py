"""Each answer is checked before anything is written; a good one reaches the code unchanged."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Cookiecutter, files

SLUG = "is not 1 to 50 lower-case letters, digits and single inner hyphens, or is a Windows device name"
CONTACT = "is neither an e-mail address nor an https URL of at most 90 characters"

BAD = [
    ("project_slug", "../elsewhere", SLUG),
    ("project_slug", "one/two", SLUG),
    ("project_slug", "..", SLUG),
    ("project_slug", ".", SLUG),
    ("project_slug", "", SLUG),
    ("project_slug", "Shop", SLUG),
    ("project_slug", "my_shop", SLUG),
    ("project_slug", "-shop", SLUG),
    ("project_slug", "shop-", SLUG),
    ("project_slug", "my--shop", SLUG),
    ("project_slug", "my shop", SLUG),
    ("project_slug", "shop\n", SLUG),
    ("project_slug", "café", SLUG),
    ("project_slug", "$(id)", SLUG),
    ("project_slug", "x" * 51, SLUG),
    ("project_slug", "x" * 10_000, SLUG),
    ("project_slug", "con", SLUG),
    ("project_slug", "lpt1", SLUG),
    ("project_name", "", "has no letter or digit"),
    ("project_name", "-!-", "has no letter or digit"),
    ("project_name", 'My "best" shop', "has '\"' (U+0022) in it"),
    ("project_name", "My\\shop", "has '\\\\' (U+005C) in it"),
    ("project_name", '"""; import os #', "has '\"' (U+0022) in it"),
    ("project_name", "My {shop}", "has '{' (U+007B) in it"),
    ("project_name", "<b>shop", "has '<' (U+003C) in it"),
    ("project_name", "my `shop`", "has '`' (U+0060) in it"),
    ("project_name", "my\nshop", "has '\\n' (U+000A) in it"),
    ("project_name", "my\tshop", "has '\\t' (U+0009) in it"),
    ("project_name", "my\x1b[2Jshop", "has '\\x1b' (U+001B) in it"),
    ("project_name", "my\u202eshop", "has '\\u202e' (U+202E) in it"),
    ("project_name", "my\u200bshop", "has '\\u200b' (U+200B) in it"),
    ("project_name", "my\u2028shop", "has '\\u2028' (U+2028) in it"),
    ("project_name", "my\u00a0shop", "has '\\xa0' (U+00A0) in it"),
    ("project_name", "my\ue000shop", "has '\\ue000' (U+E000) in it"),
    ("project_name", "my\udcffshop", "has '\\udcff' (U+DCFF) in it"),
    ("project_name", " shop", "starts or ends with white space"),
    ("project_name", "x" * 51, "is 51 characters long, which does not fit 50 columns"),
    ("project_name", "x" * 10_000, "is 10000 characters long, which does not fit 50 columns"),
    ("project_name", "店" * 26, "is 26 characters long, which does not fit 50 columns"),
    ("description", "x" * 101, "is 101 characters long, which does not fit 100 columns"),
    ("description", "<script>alert(1)</script>", "has '<' (U+003C) in it"),
    ("author_name", 'Ann "the pen"', "has '\"' (U+0022) in it"),
    ("author_name", "", "has no letter or digit"),
    ("security_contact", "", CONTACT),
    ("security_contact", "me", CONTACT),
    ("security_contact", "me@localhost", CONTACT),
    ("security_contact", "http://example.com", CONTACT),
    ("security_contact", "javascript:alert(1)", CONTACT),
    ("security_contact", "https://user@example.com/", CONTACT),
    ("security_contact", 'https://example.com/"', CONTACT),
    ("security_contact", "me@example.com\nContact: https://evil.example", CONTACT),
    ("security_contact", f"https://example.com/{'x' * 90}", CONTACT),
]

GOOD = [
    ("project_name", "O'Brien's shop"),
    ("project_name", "Café Ελλάδα"),
    ("project_name", "東京の店 2"),
    ("project_name", "سوق"),
    ("project_name", "🚀 shop"),
    ("project_name", "# shop & co"),
    ("project_name", "100 % $HOME $(id) !"),
    ("project_name", "x" * 50),
    ("description", "x" * 100),
    ("description", "字" * 50),
    ("author_name", "Zoë O’Neill-Núñez, Ltd."),
    ("project_slug", "a"),
    ("project_slug", "2-shops"),
    ("project_slug", "x" * 50),
    ("security_contact", "mailto:security@example.com"),
    ("security_contact", "https://example.com:8443/report?x=1&y=%20"),
]
CONSTANTS = {
    "project_name": "NAME",
    "project_slug": "SLUG",
    "description": "DESCRIPTION",
    "author_name": "AUTHOR",
    "security_contact": "SECURITY_CONTACT",
}


def shorten(value: object) -> str:
    return ascii(value)[:30]


@pytest.mark.parametrize(("option", "answer", "fault"), BAD, ids=shorten)
def test_a_bad_answer_gets_one_line_and_leaves_nothing(
    cookiecutter: Cookiecutter, option: str, answer: str, fault: str
) -> None:
    process = cookiecutter.run(f"{option}={answer}")
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if line.startswith(f"{option}: ")]
    assert f" {fault}. Example: " in line
    assert len(line) < 200
    assert line.isprintable()
    assert files(cookiecutter.out.parent).keys() == {f"home/.cookiecutter_replay/{cookiecutter.template.name}.json"}
    assert list(cookiecutter.out.iterdir()) == []


def test_all_bad_answers_are_told_together(cookiecutter: Cookiecutter) -> None:
    process = cookiecutter.run("project_slug=A", "author_name=", "security_contact=me")
    named = [line.split(":")[0] for line in process.stderr.splitlines() if ". Example: " in line]
    assert named == ["project_slug", "author_name", "security_contact"]


# cookiecutter takes what is given on its command line for a template, and stops before it asks the hook.
@pytest.mark.parametrize("answer", ["{{ nope }}", "{{", "{% if %}", "# % if x"])
@pytest.mark.parametrize("option", ["project_name", "project_slug"])
def test_jinja_that_fails_leaves_nothing(cookiecutter: Cookiecutter, option: str, answer: str) -> None:
    assert cookiecutter.run(f"{option}={answer}").returncode == 1
    assert list(cookiecutter.out.iterdir()) == []


@pytest.mark.parametrize("answer", ["accounts=perhaps", "docker=", "lessons=2", "license=GPL", "ci=gitlab"])
def test_a_choice_that_is_not_on_offer_leaves_nothing(cookiecutter: Cookiecutter, answer: str) -> None:
    process = cookiecutter.run(answer)
    assert process.returncode == 1
    assert answer.split("=")[0] in process.stderr.splitlines()[-1]
    assert list(cookiecutter.out.iterdir()) == []


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"accounts": "no"}, "accounts: 'no' is not one of the choices. Example: true or false"),
        ({"docker": None}, "docker: None is not one of the choices. Example: true or false"),
        (
            {"ci": ["github", "none"]},
            "ci: ['github', 'none'] is not one of the choices. Example: \"github\" or \"none\"",
        ),
        ({"project_name": {}}, "project_name: {} has no letter or digit. Example: Secure Flask App"),
        ({"project_name": "{{ 7*7 }}"}, "project_name: '{{ 7*7 }}' has '{' (U+007B) in it. Example: Secure Flask App"),
        ({"__slug_given": "../x"}, f"project_slug: '../x' {SLUG}. Example: secure-flask-app"),
    ],
    ids=shorten,
)
def test_an_edited_replay_file_is_checked_too(
    cookiecutter: Cookiecutter, answers: dict[str, object], told: str
) -> None:
    app = cookiecutter.app()
    before = files(app)
    replay = json.loads(cookiecutter.replay_file.read_text())
    replay["cookiecutter"].update(answers)
    cookiecutter.replay_file.write_text(json.dumps(replay))
    process = cookiecutter.run("-f", "--replay", no_input=False)
    assert process.returncode == 1
    assert told in process.stderr.splitlines()
    assert files(app) == before


def test_a_template_typed_at_the_prompt_is_not_evaluated(cookiecutter: Cookiecutter) -> None:
    process = cookiecutter.run(no_input=False, typed="{{ 7*7 }}\nshop\n" + "\n" * 8)
    assert "project_name: '{{ 7*7 }}' has '{' (U+007B) in it" in process.stderr
    assert list(cookiecutter.out.iterdir()) == []


def test_every_prompt_is_a_sentence(template: Path) -> None:
    context = json.loads((template / "cookiecutter.json").read_text())
    options = {name for name in context if not name.startswith("_")}
    assert context["__prompts__"].keys() == options
    for prompt in context["__prompts__"].values():
        assert " " in (prompt if isinstance(prompt, str) else prompt["__prompt__"])


@pytest.mark.parametrize(("option", "answer"), GOOD, ids=shorten)
def test_a_good_answer_reaches_the_code_unchanged(cookiecutter: Cookiecutter, option: str, answer: str) -> None:
    app = cookiecutter.app(
        f"{option}={answer}", "project_slug=shop", *[f"{option}={answer}"] * (option == "project_slug")
    )
    values = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse((app / "app/project.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
    }
    assert values.keys() == {*CONSTANTS.values(), "TEMPLATE_VERSION"}
    assert values[CONSTANTS[option]] == answer
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "app/project.py"]
        assert subprocess.run(ruff, cwd=app, capture_output=True).returncode == 0, command


def test_an_address_becomes_a_mailto_uri(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app("security_contact=a.b+c@mail.example.com")
    assert 'SECURITY_CONTACT = "mailto:a.b+c@mail.example.com"\n' in (app / "app/project.py").read_text()
