"""Mitigation 7, safe template rendering: user input is shown as text and never run as code.

Every template escapes its output, whatever its file extension. This module also covers what autoescaping can't:
URLs in ``href`` and ``src`` (``safe_url``), and placeholders in users' texts (``fill_placeholders``).
Source: OWASP Cross Site Scripting Prevention Cheat Sheet; ASVS 5.0 V1.2.1-V1.2.3, V1.3.7.
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
SUMMARY = "User input is shown as plain text: it can't become markup or code."

# "file: what it uses" → why that is allowed. tests/lint reports every other use.
ALLOWED = {
    "security/templating.py: render_template": "Passes on the name that render_text was given.",
    "security/urls.py: redirect": "This function decides where redirects may lead.",
    "security/headers.py: redirect": "Redirects from http to https on the canonical host.",
}

SAFE_SCHEMES = frozenset({"http", "https", "mailto"})
REFUSED_URL = "about:invalid"


def init_app(app: Flask) -> None:
    """Enable autoescaping in every template, and raise an error for an undefined name instead of printing nothing."""
    environment = app.jinja_env
    # Flask escapes only .html and similar files; a text template sent as HTML by mistake would allow XSS.
    environment.autoescape = True
    environment.undefined = StrictUndefined
    environment.filters["safe_url"] = safe_url
    environment.globals["has_endpoint"] = has_endpoint


def safe_url(value: object) -> str:
    """Return a URL if a browser can't run it, else ``about:invalid``. Use it for ``href`` and ``src`` from data.

    Escaping does not stop ``javascript:``. Relative URLs and the schemes of ``SAFE_SCHEMES`` are allowed.
    """
    url = str(value)
    # Browsers ignore control characters and spaces before and within a scheme.
    scheme, colon, _ = re.split(r"[/?#\\]", re.sub(r"[\x00-\x20\x7f-\x9f]", "", url))[0].partition(":")
    return url if not colon or scheme.lower() in SAFE_SCHEMES else REFUSED_URL


def has_endpoint(name: str) -> bool:
    """Return whether the app has this endpoint. Templates check it before they link to an optional part."""
    return name in current_app.view_functions


def render_text(template: str, **context: object) -> str:
    """Render a template. The result of a ``.txt`` template, for a plain-text mail, contains no HTML entities.

    It is escaped like all others and then unescaped as a whole. So no template renders without escaping, and only
    text that no browser renders is returned unescaped.
    """
    text = render_template(template, **context)
    return html.unescape(text) if template.endswith(".txt") else text


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$name`` and ``${name}`` in a user's text and return the result; unknown names are left as they are.

    Use it for letters, signatures and the like. Such a text must never become a Jinja template, which could read the
    settings and run code. A placeholder is only a name: no attribute, index, call or format.
    The result is plain text: a template escapes it when it prints it.
    """
    return Template(text).safe_substitute(values)
