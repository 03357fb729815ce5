"""What templates must not hold: unescaped or unquoted data, forms without a token, addresses that nobody checks.

Autoescaping protects what a template prints into text and into quoted attributes. These checks find the places where
it is switched off or is not enough: 2.S4, 7.S2-7.S4 and 10.S3. ``tests/lint/test_templates.py`` reads the templates of
the app, and the audit reads those of any other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path

from flask import Flask
from jinja2 import BaseLoader, Environment, TemplateNotFound, TemplateSyntaxError, nodes

from app.security.findings import Finding
from tests.lint.links import links_to

URL_ATTRIBUTES = frozenset(
    ("action", "background", "cite", "data", "formaction", "href", "manifest", "ping", "poster", "src", "srcset")
)
TOKENS = frozenset(("csrf_token", "hidden_tag"))

USE_ESCAPING = "Print the value with {{ }} alone, or add a reason to templating.ALLOWED."

# Stands in the HTML for a printed expression: the name of its outermost filter or function.
_MARK = re.compile("\ue000([^\ue001]*)\ue001")
OTHER_SITE = re.compile("(?i)(?:https?:)?//")
# The type of a script that no browser runs: it holds data.
DATA_BLOCK = re.compile(r"(?i)application/(?:[\w.-]+\+)?json")
_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")


def check_templates(
    app: Flask, allowed: Collection[str], project: Path | None = None, hosts: Collection[str] = ()
) -> Iterator[Finding]:
    """Read all templates of an app, of a foreign one those in its project.

    ``allowed`` is like templating.ALLOWED, ``hosts`` are the app's own names.
    """
    for name, source in templates_of(app, project).items():
        for line, link in links_to(hosts, source):
            evidence = f"{name}:{line + 1}: {link}, an address of this app, is written by hand."
            yield Finding("UR03", "missing", evidence, "Use url_for.")
        try:
            yield from check_template(app.jinja_env, name, source, allowed)
        except TemplateSyntaxError as error:
            what = f"The template can't be read, so nothing is known of it ({type(error).__name__}: {error.message})."
            yield Finding("TM02", "missing", f"{name}:{error.lineno}: {what}", "Fix its syntax.")


def check_template(
    environment: Environment, name: str, source: str, allowed: Collection[str] = ()
) -> Iterator[Finding]:
    """Read one template."""
    tree = environment.parse(source, name)
    raw = [(found.lineno, "|safe") for found in tree.find_all(nodes.Filter) if found.name == "safe"]
    raw += [(found.lineno, "autoescape") for found in tree.find_all(nodes.EvalContextModifier)]
    raw += [(line, "raw") for line, kind, _ in environment.lex(source, name) if kind == "raw_begin"]
    for line, what in raw:
        if f"{name}: {what}" not in allowed:
            yield Finding(
                "TM02" if what == "raw" else "TM03",
                "missing",
                f"{name}:{line}: {what} goes around the escaping.",
                USE_ESCAPING,
            )
    for found in tree.find_all((nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)):
        if not isinstance(found.template, nodes.Const):  # type: ignore[attr-defined]
            yield Finding("TM04", "missing", f"{name}:{found.lineno}: Data chooses a template.", "Write its name.")
    reader = _HTMLReader(name)
    reader.feed(_with_marks(environment, name, source))
    reader.close()
    yield from reader.findings


def templates_of(app: Flask, project: Path | None = None) -> dict[str, str]:
    """Return the source of every template, also of those in the blueprints' own folders, but not of extensions'.

    Those of a foreign app are named by their place in its ``project``.
    """
    found, root = {}, project or Path(app.root_path).resolve()
    for loader in (loader for each in (app, *app.blueprints.values()) if (loader := each.jinja_loader)):
        for name in _names_of(loader):
            with contextlib.suppress(TemplateNotFound, UnicodeDecodeError):  # a picture, or another loader's
                source, file, _ = loader.get_source(app.jinja_env, name)
                place = Path(file).resolve() if file else root / name
                if place.is_relative_to(root):
                    found[place.relative_to(root).as_posix() if project else name] = source
    return found


def _names_of(loader: BaseLoader) -> list[str]:
    try:
        return loader.list_templates()
    except TypeError:  # a loader that can't list any
        return []


def _with_marks(environment: Environment, name: str, source: str) -> str:
    """Return the HTML of a template, with marks for expressions and without its statements."""
    text, expression = "", None
    for _, kind, value in environment.lex(source, name):
        if kind == "variable_begin":
            expression = ""
        elif kind == "variable_end":
            printed = environment.parse("{{" + (expression or "") + "}}").find(nodes.Output)
            text += f"\ue000{_outermost(printed.nodes[0]) if printed else ''}\ue001"
            expression = None
        elif expression is not None:
            expression += value
        else:
            text += value if kind == "data" else "\n" * value.count("\n")
    return text


def _outermost(node: nodes.Node) -> str:
    if isinstance(node, nodes.Call):
        return _outermost(node.node)
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.name if isinstance(node, nodes.Filter | nodes.Name) else ""


class _HTMLReader(HTMLParser):
    """Reads the HTML of a template with marks in it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.findings: list[Finding] = []
        self.form: Finding | None = None  # what there is to say of the open form, until its token is seen
        self.leak: Finding | None = None  # what there is to say of it if it has a token
        self.has_token: bool | None = None  # None outside of forms
        self.code = ""
        self.harmless: set[str] = set()  # the filters that make data harmless in this code

    def _finding(self, finding_id: str, what: str, fix: str) -> Finding:
        return Finding(finding_id, "missing", f"{self.name}:{self.getpos()[0]}: {what}", fix)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_endtag("form" if tag == "form" else "")
        self.code = tag if tag in ("script", "style") else ""
        self.harmless = {"tojson"} if DATA_BLOCK.fullmatch(dict(attrs).get("type") or "") else set()
        self.has_token = False if tag == "form" else self.has_token
        posts = tag == "form" and ("method", "post") in [(name, (value or "").lower()) for name, value in attrs]
        target = dict(attrs).get("action" if tag == "form" else "formaction") or ""
        if OTHER_SITE.match(target) and self.has_token is not None:
            # With the token, that site could act for the visitor.
            what = f"A form sends this app's CSRF token to {target}."
            self.leak = self._finding("CF04", what, "Leave the token out of this form.")
        elif posts:
            self.form = self._finding("CF04", "A form sends no CSRF token.", "Add {{ form.hidden_tag() }}.")
        content = _MARK.findall(dict(attrs).get("content") or "") if tag == "meta" else []
        if "refresh" in (dict(attrs).get("http-equiv") or "").lower() and set(content) - {"url_for", "safe_url"}:
            self.findings.append(self._finding("TM02", "Data chooses where the page leads.", "Use |safe_url."))
        for name, value in attrs:
            if value is not None and name in URL_ATTRIBUTES:
                self._look_at_url(name, value)
            if _MARK.search(value or "") and (name.startswith("on") or name in ("style", "srcdoc")):
                self.findings.append(self._finding("TM02", f"Data becomes code in {name}.", "Use a data attribute."))
            self._look_for_token(value or "")
        text = self.get_starttag_text() or ""
        # tojson leaves double quotes alone.
        in_double_quotes = _MARK.findall(" ".join(re.findall('"[^"]*"', text)))
        if _MARK.search(_QUOTED.sub("", text)) or "tojson" in in_double_quotes:
            self.findings.append(self._finding("TM02", "Data can end its attribute.", "Quote it ('…' for tojson)."))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.code = ""

    def handle_endtag(self, tag: str) -> None:
        self.code = ""
        if tag == "form":
            found = self.leak if self.has_token else self.form
            self.findings += [found] if found else []
            self.form, self.leak, self.has_token = None, None, None

    def handle_data(self, data: str) -> None:
        if self.code and set(_MARK.findall(data)) - self.harmless:
            self.findings.append(self._finding("TM02", f"Data becomes code in {self.code}.", "Use a data attribute."))
        self._look_for_token(data)

    def close(self) -> None:
        super().close()
        self.handle_endtag("form")

    def _look_for_token(self, text: str) -> None:
        if TOKENS & set(_MARK.findall(text)) and self.has_token is not None:
            self.has_token = True

    def _look_at_url(self, name: str, value: str) -> None:
        made = _MARK.match(value)
        rest = value[made.end() :] if made else ""
        if made and made[1] in ("url_for", "safe_url") and rest[:1] in ("", "?", "#"):
            if set(_MARK.findall(rest)) - {"urlencode"}:
                self.findings.append(self._finding("TM02", "Data goes on with an address.", "Give it to url_for."))
            return
        if _MARK.search(value):
            self.findings.append(self._finding("TM02", f"Data chooses {name}, javascript: included.", "Use |safe_url."))
        elif not re.match("(?i:https?)://|mailto:|tel:|data:image/|#|$", value):
            fix = f"Write https:{value}." if OTHER_SITE.match(value) else "Use url_for."
            self.findings.append(self._finding("UR03", f'{name}="{value}" is written by hand.', fix))
