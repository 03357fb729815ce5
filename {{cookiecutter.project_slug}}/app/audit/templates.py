"""What templates and code must not hold, found by reading them: 2.S4, 7.S2-7.S4, 10.S3 and 10.S4.

Autoescaping protects what a template prints into text and into quoted attributes. These checks find the places where
it is switched off or is not enough, forms without a token, and addresses that nobody checks.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

from flask import Flask
from jinja2 import BaseLoader, Environment, TemplateNotFound, TemplateSyntaxError, nodes

from app.audit.findings import Finding
from app.security.templating import ALLOWED

HERE = Path(__file__).resolve().parent

# Folders that are not an app's own code.
FOREIGN = frozenset(("venv", ".venv", "env", "site-packages", "node_modules", "tests", "test", "build", "dist"))

TESTS = re.compile(r"(test_.*|.*_test|tests?|conftest|setup)\.py")

URL_ATTRIBUTES = frozenset(
    ("action", "background", "cite", "data", "formaction", "href", "manifest", "ping", "poster", "src", "srcset")
)
TOKENS = frozenset(("csrf_token", "hidden_tag"))
RAW_NAMES = frozenset(("Markup", "HTMLString", "__html__"))
COMPILING_NAMES = frozenset(("from_string", "render_template_string", "stream_template_string"))
RENDERING_NAMES = frozenset(("render_template", "stream_template", "get_template", "render_text"))

FAULTS = {
    "TM03": "goes around the escaping.",
    "TM04": "takes a template that is not named in the code.",
    "UR04": "takes an address that url_for has not made.",
}

USE_ESCAPING = "Print the value with {{ }} alone, or say in templating.ALLOWED why not."

# Stands in the HTML for a printed expression: the name of its outermost filter or function.
_MARK = re.compile("\ue000([^\ue001]*)\ue001")
_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")


def check_templates(app: Flask, project: Path | None = None) -> Iterator[Finding]:
    """Read all templates of an app, of a foreign one those in its project."""
    for name, source in templates_of(app, project).items():
        try:
            yield from check_template(app.jinja_env, name, source)
        except TemplateSyntaxError as error:
            what = f"The template can't be read, so nothing is known of it ({type(error).__name__}: {error.message})."
            yield Finding("TM02", "missing", f"{name}:{error.lineno}: {what}", "Mend its syntax.")


def check_template(environment: Environment, name: str, source: str) -> Iterator[Finding]:
    """Read one template."""
    tree = environment.parse(source, name)
    raw = [(found.lineno, "|safe") for found in tree.find_all(nodes.Filter) if found.name == "safe"]
    raw += [(found.lineno, "autoescape") for found in tree.find_all(nodes.EvalContextModifier)]
    raw += [(line, "raw") for line, kind, _ in environment.lex(source, name) if kind == "raw_begin"]
    for line, what in raw:
        if f"{name}: {what}" not in ALLOWED:
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


def own_files(folder: Path, *patterns: str) -> Iterator[tuple[str, Path]]:
    """Give the files of an app's folder that are its own code, with their names in it."""
    # The audit itself is no part of what it examines, nor is one in another app that this template made.
    audits = {HERE, *(path.parent for path in folder.rglob("audit/subject.py"))}
    for path in sorted(found for pattern in patterns for found in folder.rglob(pattern)):
        parts = path.relative_to(folder).parts
        if (
            not any(part in FOREIGN or part.startswith(".") for part in parts)
            and not TESTS.fullmatch(path.name)
            and not audits & set(path.parents)
        ):
            yield "/".join(parts), path


def trees_of(folder: Path) -> dict[str, ast.Module]:
    """Give the Python files of an app's folder, by their names in it."""
    trees = {}
    for name, path in own_files(folder, "*.py"):
        with contextlib.suppress(SyntaxError, ValueError):  # no Python can run it either
            trees[name] = ast.parse(path.read_bytes())
    return trees


def templates_of(app: Flask, project: Path | None = None) -> dict[str, str]:
    """Give the source of every template, also of those in the blueprints' own folders.

    Of a foreign app, those of its extensions are left out, and each is named by its place in the project.
    """
    found = {}
    for loader in (loader for each in (app, *app.blueprints.values()) if (loader := each.jinja_loader)):
        for name in _names_of(loader):
            with contextlib.suppress(TemplateNotFound, UnicodeDecodeError):  # a picture, or another loader's
                source, file, _ = loader.get_source(app.jinja_env, name)
                place = Path(file).resolve() if file and project else None
                if project is None or place is None:
                    found[name] = source
                elif place.is_relative_to(project):
                    found[place.relative_to(project).as_posix()] = source
    return found


def _names_of(loader: BaseLoader) -> list[str]:
    try:
        return loader.list_templates()
    except TypeError:  # a loader that can't list any
        return []


def check_code(trees: Mapping[str, ast.Module], *, strict: bool = True) -> Iterator[Finding]:
    """Read Python files. Unless ``strict``, what compiles a text that is written in the code is no finding."""
    for name, tree in trees.items():
        fixed = set() if strict else set(_fixed(tree))
        for node in ast.walk(tree):
            if node not in fixed and (found := _fault(node)) and f"{name}: {found[1]}" not in ALLOWED:
                finding_id, what, mend = found
                evidence = f"{name}:{getattr(node, 'lineno', 0)}: {what} {FAULTS[finding_id]}"
                yield Finding(finding_id, "missing", evidence, mend)


def _fixed(tree: ast.Module) -> Iterator[ast.AST]:
    """Give the names of functions that compile or redirect, where nothing but the code says what."""
    constants = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias for alias in node.names if alias.name in COMPILING_NAMES)
        elif isinstance(node, ast.Call) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) or (isinstance(first, ast.Name) and first.id in constants):
                yield from (node, node.func)


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Give what a node assigns, also by ``app.name = …``, ``config["name"] = …``, ``f(name=…)`` and ``{"name": …}``."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            name = getattr(target, "id", None) or getattr(target, "attr", None)
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                name = target.slice.value
            yield str(name), node.value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value


def _fault(node: ast.AST) -> tuple[str, str, str] | None:
    """Give a finding's id, what was seen, and the mend."""
    name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
    if name in RAW_NAMES:
        return "TM03", name, "Give the text to a template, which escapes it."
    if name in COMPILING_NAMES or (isinstance(node, ast.ImportFrom) and _imports_jinja_template(node)):
        return "TM04", str(name or "Template"), "Use a template file, or templating.fill_placeholders."
    if isinstance(node, ast.Attribute) and ast.unparse(node) == "jinja2.Template":
        return "TM04", "Template", "Use a template file, or templating.fill_placeholders."
    if isinstance(node, ast.Call) and node.args:
        called = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        target = node.args[0]
        if called in RENDERING_NAMES and not isinstance(target, ast.Constant):
            return "TM04", called, "Write the template's name."
        if called == "redirect" and not ast.unparse(target).startswith("url_for("):
            return "UR04", called, "Use url_for for a page of this app, urls.redirect_to for what a request asks for."
    return None


def _imports_jinja_template(node: ast.ImportFrom) -> bool:
    return node.module == "jinja2" and any(alias.name == "Template" for alias in node.names)


def _with_marks(environment: Environment, name: str, source: str) -> str:
    """Give the HTML of a template, with marks for expressions and without its statements."""
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
        self.code = ""

    def _finding(self, finding_id: str, what: str, mend: str) -> Finding:
        return Finding(finding_id, "missing", f"{self.name}:{self.getpos()[0]}: {what}", mend)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_endtag("form" if tag == "form" else "")
        self.code = tag if tag in ("script", "style") else ""
        if tag == "form" and ("method", "post") in [(name, (value or "").lower()) for name, value in attrs]:
            self.form = self._finding("CF04", "A form sends no CSRF token.", "Add {{ form.hidden_tag() }}.")
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
        if tag == "form" and self.form:
            self.findings.append(self.form)
            self.form = None

    def handle_data(self, data: str) -> None:
        if self.code and _MARK.search(data):
            self.findings.append(self._finding("TM02", f"Data becomes code in {self.code}.", "Use a data attribute."))
        self._look_for_token(data)

    def close(self) -> None:
        super().close()
        self.handle_endtag("form")

    def _look_for_token(self, text: str) -> None:
        if TOKENS & set(_MARK.findall(text)):
            self.form = None

    def _look_at_url(self, name: str, value: str) -> None:
        made = _MARK.match(value)
        rest = value[made.end() :] if made else ""
        if made and made[1] in ("url_for", "safe_url") and rest[:1] in ("", "?", "#"):
            if set(_MARK.findall(rest)) - {"urlencode"}:
                self.findings.append(self._finding("TM02", "Data goes on with an address.", "Give it to url_for."))
            return
        if _MARK.search(value):
            self.findings.append(self._finding("TM02", f"Data chooses {name}, javascript: included.", "Use |safe_url."))
        elif not re.match("https?://|mailto:|tel:|data:image/|#|$", value):
            self.findings.append(self._finding("UR03", f'{name}="{value}" is written by hand.', "Use url_for."))
