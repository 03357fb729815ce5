"""Mitigation 7, safe template rendering: what a visitor typed is shown as text, and never run as code.

Every template escapes what it prints, whatever its name ends in. What autoescaping can't do is done here as well:
addresses in ``href`` and ``src`` (``safe_url``), and the placeholders in texts of users (``fill_placeholders``).
Source: OWASP Cross Site Scripting Prevention Cheat Sheet; ASVS 5.0 V1.2.1, V1.2.2, V1.3.7.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from string import Template

from flask import Flask, current_app, render_template
from jinja2 import StrictUndefined

NUMBER = 7
TITLE = "Safe template rendering"
SUMMARY = "Whatever anybody types is shown as plain text: it can't become part of a page or of its code."

# "file: what is used there" → why it may be. tests/lint finds every other place.
ALLOWED = {
    "security/templating.py: render_template": "Passes on the name that render_text was given.",
    "security/urls.py: redirect": "The function that decides where redirects may lead.",
    "security/headers.py: redirect": "Leads from http to https on the canonical host.",
}

SAFE_SCHEMES = frozenset({"http", "https", "mailto"})
REFUSED_URL = "about:invalid"


def init_app(app: Flask) -> None:
    """Escape in every template, and fail on a misspelt name instead of printing nothing."""
    environment = app.jinja_env
    # Flask escapes .html and the like alone; a text template sent as HTML by mistake would be a hole.
    environment.autoescape = True
    environment.undefined = StrictUndefined
    environment.filters["safe_url"] = safe_url
    environment.globals["has_endpoint"] = has_endpoint


def safe_url(value: object) -> str:
    """Give an address back if a browser can't run it, else ``about:invalid``: for ``href`` and ``src`` from data.

    Escaping does not stop ``javascript:``. Relative addresses pass, and the schemes of ``SAFE_SCHEMES``.
    """
    url = str(value)
    # Browsers ignore control characters and spaces in front of and within a scheme.
    scheme, colon, _ = re.split(r"[/?#\\]", re.sub(r"[\x00-\x20\x7f-\x9f]", "", url))[0].partition(":")
    return url if not colon or scheme.lower() in SAFE_SCHEMES else REFUSED_URL


def has_endpoint(name: str) -> bool:
    """Whether the app has this endpoint: templates ask before they link to an optional part."""
    return name in current_app.view_functions


def render_text(template: str, **context: object) -> str:
    """Render a template; one named ``….txt``, for a plain-text mail, without the entities of HTML.

    It is escaped like all others, and then decoded as a whole: so no template prints without escaping, and only a
    text that no browser renders comes out of here unescaped.
    """
    text = render_template(template, **context)
    return html.unescape(text) if template.endswith(".txt") else text


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Fill ``$name`` and ``${name}`` in a text that a user wrote; unknown names stay as they are.

    For letters, signatures and the like. Such a text must never become a Jinja template, which could read the
    settings and run code. A placeholder here is a name and nothing else, no attribute, index, call or format.
    The result is text: it is escaped where a template prints it.
    """
    return Template(text).safe_substitute(values)
