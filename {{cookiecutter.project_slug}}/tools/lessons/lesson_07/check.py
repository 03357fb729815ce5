"""Other ways to write a template or markup into a name, and names that must come back as they are."""

from __future__ import annotations

import html
from collections.abc import Iterator
from urllib.parse import quote

from tools.lessons.lab import Lab

# Simplest first: the first template that runs shows what the fix overlooks.
TEMPLATES = {
    "{{ config.SECRET_KEY }}": "The name is still run as a template. Escaping leaves braces as they are.",
    "{{ 7 * 191 }}": "A list of forbidden words is never complete: the name is still run as a template, which "
    "reaches the key without them.",
    "{% print(7 * 191) %}": "{% … %} runs too. Do not clean the name: pass it to a template as a value.",
}
NAMES = ("Ann", "Zoë O'Neill", "{{ braces }} & {% percent %}", "<b>bold</b>")


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve() as shop:
        visitor, key = shop.visitor(), str(shop.app.config["SECRET_KEY"])
        for template, fault in TEMPLATES.items():
            text = visitor.get(f"/hello?name={quote(template)}").text
            if "1337" in text or key in text:
                yield f"{fault} Tried: {template}"
                return
        for name in NAMES:
            answer = visitor.get(f"/hello?name={quote(name)}")
            text = html.unescape(answer.text)
            if "<b>" in answer.text:
                yield "The name is no template any more, but it is markup, as <script> would be. Escape it."
            elif name not in text:
                yield f"The page no longer greets {name} by that name ({answer.status})."
