"""The macro ``field`` in Chromium: what screen readers are told of each kind of field, in a form of its own."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from flask import Flask, render_template, request
from flask_wtf import FlaskForm
from jinja2 import ChoiceLoader, DictLoader
from playwright.sync_api import Browser, Locator, Page, Route, expect
from wtforms import (
    BooleanField,
    DateField,
    FileField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired
from wtforms.widgets import CheckboxInput, ListWidget

from app import create_app
from app.visitors import public
from tests.browser.axe import faults
from tests.conftest import ORIGIN, browser_like
from tests.test_scanners import scanners  # noqa: F401 - a fixture

TEMPLATE = """
{% extends "base.html" %}{% from "_macros.html" import field, form_errors, submit %}
{% block title %}Order{% endblock %}
{% block main %}
  <h1>Order</h1>
  <form method="post" novalidate>
    {{ form.hidden_tag() }}{{ form_errors(form) }}
    {% for f in form if f.name != "csrf_token" %}
      {{ field(f, hint="About " ~ f.label.text, **({"data-min-length": 12} if f.name == "secret" else {})) }}
    {% endfor %}
    {{ submit("Send") }}
  </form>
{% endblock %}
"""
SIZES = [SelectChoice("s", "Small"), SelectChoice("l", "Large, with a label that does not fit on a line of a phone")]


def required() -> list[InputRequired]:
    return [InputRequired("Please fill this in.")]


class Order(FlaskForm):  # type: ignore[misc]
    name = StringField("Name", required())
    secret = PasswordField("Secret", required())
    message = TextAreaField("Message", required())
    colour = SelectField("Colour", required(), choices=[SelectChoice("", "Choose"), SelectChoice("r", "Red")])
    extras = SelectMultipleField("Extras", required(), choices=SIZES)
    day = DateField("Day", required())
    papers = FileField("Papers", required())
    agreed = BooleanField("Agreed", required())
    size = RadioField("Size", required(), choices=SIZES)
    toppings = SelectMultipleField(
        "Toppings", required(), choices=SIZES, widget=ListWidget(prefix_label=False), option_widget=CheckboxInput()
    )


CONTROLS = ("Name", "Secret", "Message", "Colour", "Extras", "Day", "Papers", "Agreed")
GROUPS = {"Size": "radiogroup", "Toppings": "group"}


@pytest.fixture
def app(app_config: dict[str, object]) -> Flask:
    app = create_app(app_config)
    app.jinja_env.loader = ChoiceLoader([app.jinja_env.loader, DictLoader({"tested.html": TEMPLATE})])

    @app.route("/tested-order", methods=["GET", "POST"])
    @public
    def order() -> str:
        form = Order(request.form)
        form.validate_on_submit()
        return render_template("tested.html", form=form)

    return app


def open_order(page: Page, app: Flask) -> None:
    """Open the form; the app answers the browser without a server between them."""
    client = browser_like(app)

    def answer(route: Route) -> None:
        asked = route.request
        kind = asked.headers.get("content-type")
        path = urlsplit(asked.url).path
        with client.open(path, method=asked.method, data=asked.post_data_buffer, content_type=kind) as got:
            route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.data)

    page.route(f"{ORIGIN}/**", answer)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{ORIGIN}/tested-order")


def told(page: Page) -> dict[str, Locator]:
    """Each field by what it is called."""
    controls = {name: page.get_by_label(name, exact=True) for name in CONTROLS}
    return controls | {name: page.get_by_role(role, name=name, exact=True) for name, role in GROUPS.items()}  # type: ignore[arg-type]


def test_each_kind_of_field_has_its_label_and_its_hint(app: Flask, page: Page) -> None:
    open_order(page, app)
    for name, control in told(page).items():
        expect(control).to_have_accessible_name(name)
        expect(control).to_have_accessible_description(f"About {name}")
        expect(control).not_to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("radio", name="Small", exact=True)).to_have_attribute("required", "")
    expect(page.get_by_role("checkbox", name="Small", exact=True)).not_to_have_attribute("required", "")


def test_each_kind_of_field_is_marked_with_its_error_and_keeps_what_was_typed(app: Flask, page: Page) -> None:
    open_order(page, app)
    page.get_by_label("Message", exact=True).fill("Hello\n<b>there</b>")
    page.get_by_label("Secret", exact=True).fill("hunter2")
    page.get_by_role("checkbox", name="Small", exact=True).check()
    page.get_by_role("button", name="Send").click()
    fine = {"Message", "Secret", "Toppings"}
    for name, control in told(page).items():
        expect(control).to_have_accessible_description(f"{'' if name in fine else 'Please fill this in. '}About {name}")
        if name != "Toppings":
            assert (control.get_attribute("aria-invalid") == "true") is (name not in fine)
    expect(page.get_by_role("alert")).to_have_text("Please correct what is marked below.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Hello\n<b>there</b>")
    expect(page.get_by_role("checkbox", name="Small", exact=True)).to_be_checked()
    assert "hunter2" not in page.content()


def test_in_a_group_of_checkboxes_each_is_marked(app: Flask, page: Page) -> None:
    open_order(page, app)
    page.get_by_role("button", name="Send").click()
    boxes = page.get_by_role("group", name="Toppings").get_by_role("checkbox").all()
    assert [box.get_attribute("aria-invalid") for box in boxes] == ["true", "true"]


def test_a_button_shows_the_password_until_the_form_is_sent(app: Flask, page: Page) -> None:
    open_order(page, app)
    secret = page.get_by_label("Secret", exact=True)
    show = page.get_by_role("button", name="Show Secret")
    secret.fill("hunter2")
    for pressed, kind in (("false", "password"), ("true", "text"), ("false", "password")):
        expect(show).to_have_attribute("aria-pressed", pressed)
        expect(secret).to_have_attribute("type", kind)
        show.press("Enter")
    page.evaluate("document.querySelector('main form').addEventListener('submit', event => event.preventDefault())")
    page.get_by_role("button", name="Send").click()
    expect(secret).to_have_attribute("type", "password")


def test_a_new_password_says_how_much_is_missing(app: Flask, page: Page) -> None:
    open_order(page, app)
    secret = page.get_by_label("Secret", exact=True)
    line = page.locator(".field", has=secret).get_by_role("status")
    for typed, words in {
        "a": "11 more characters needed.",
        "elevenchars": "1 more character needed.",
        "e\u0301" * 6: "6 more characters needed.",  # a letter and its accent are one character
        "\U0001f600" * 11: "1 more character needed.",
        "twelve chars": "Long enough. Longer, and of unrelated words, is stronger.",
    }.items():
        secret.fill(typed)
        expect(line).to_have_text(words)


def test_the_form_works_without_scripts(app: Flask, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_order(page, app)
    expect(page.locator("main button:visible")).to_have_text(["Send"])  # none that would do nothing
    page.get_by_role("button", name="Send").click()
    for control in told(page).values():
        expect(control).to_have_accessible_description(re.compile("Please fill this in"))
    context.close()


def test_axe_finds_no_fault_in_a_form(app: Flask, page: Page, scanners: Path) -> None:  # noqa: F811
    open_order(page, app)
    assert faults(page, scanners) == []
    page.get_by_role("button", name="Send").click()
    page.get_by_role("alert").wait_for()
    assert faults(page, scanners) == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
