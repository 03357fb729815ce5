"""What Python code must not hold: markup that goes around the escaping, templates from data, unchecked redirects.

Found by reading it: 7.S3, 7.S4, 9.S2, 10.S3 and 10.S4. ``tests/lint/test_code.py`` reads the app, and the audit reads
any other.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from app.security.findings import Finding
from tests.lint.links import links_to
from tests.lint.nodes import nodes_of
from tests.lint.saving import KEPT, READ, misused_files

# Folders that are not the own code of an app.
FOREIGN = frozenset(("venv", ".venv", "env", "site-packages", "node_modules", "tests", "test", "build", "dist"))

TESTS = re.compile(r"(test_.*|.*_test|tests?|conftest|setup)\.py")

RAW_NAMES = frozenset(("Markup", "HTMLString", "__html__"))
COMPILING_NAMES = frozenset(("from_string", "render_template_string", "stream_template_string"))
RENDERING_NAMES = frozenset(("render_template", "stream_template", "get_template", "render_text"))

SAVE_FIX = "Store it with uploads.save_all, which checks it: its name is random."
READ_FIX = "Use send_from_directory or safe_join, which stay in their folder."

FAULTS = {
    "TM03": "goes around the escaping.",
    "TM04": "takes a template that is not named in the code.",
    "UR04": "takes an address that url_for has not made.",
}


def own_files(folder: Path, *patterns: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of an app's folder that are its own code, with their names in it."""
    # The audit of another app that this template made is no part of it.
    audits = {path.parent for path in folder.rglob("audit/subject.py")}
    for path in sorted(found for pattern in patterns for found in folder.rglob(pattern)):
        parts = path.relative_to(folder).parts
        foreign = any(part in FOREIGN or part.startswith(".") for part in parts) or audits & set(path.parents)
        if not foreign and not TESTS.fullmatch(path.name):
            yield "/".join(parts), path


def trees_of(folder: Path) -> dict[str, ast.Module]:
    """Return the Python files of an app's folder, by their names in it."""
    trees = {}
    for name, path in own_files(folder, "*.py"):
        with contextlib.suppress(SyntaxError, ValueError):  # no Python can run it either
            trees[name] = ast.parse(path.read_bytes())
    return trees


def check_code(
    trees: Mapping[str, ast.Module], allowed: Collection[str] = (), hosts: Collection[str] = (), *, strict: bool = True
) -> Iterator[Finding]:
    """Read Python files. ``allowed`` is like templating.ALLOWED, ``hosts`` are the app's own names.

    Unless ``strict``, what compiles a text that is written in the code is no finding.
    """
    for name, tree in trees.items():
        for line, call, what in misused_files(tree):
            # A foreign app has no save_all, and app/storage is what it calls.
            if what != KEPT or (strict and not name.startswith(("storage/", "security/uploads.py"))):
                fix = READ_FIX if what == READ else SAVE_FIX
                yield Finding("UP02", "missing", f"{name}:{line}: {call} {what}", fix)
        for line, link in _links_in(tree, hosts):
            evidence = f"{name}:{line}: {link}, an address of this app, is written by hand."
            yield Finding("UR03", "missing", evidence, "Use url_for, with _external=True where the host is needed.")
        fine = {*_chosen(tree), *(() if strict else _fixed(tree))}
        for node in nodes_of(tree):
            if node not in fine and (found := _fault(node)) and f"{name}: {found[1]}" not in allowed:
                finding_id, what, fix = found
                evidence = f"{name}:{getattr(node, 'lineno', 0)}: {what} {FAULTS[finding_id]}"
                yield Finding(finding_id, "missing", evidence, fix)


def _chosen(tree: ast.Module) -> Iterator[ast.AST]:
    """Give the redirects of views that declare their hosts, unless a request names the target."""
    defined = [
        node for node in nodes_of(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    decorators = {id(mark): node for node in defined for mark in node.decorator_list}
    for mark in nodes_of(tree):
        if _called(mark) == "may_redirect_to":
            for node in nodes_of(decorators.get(id(mark), tree)):  # else it declares a blueprint, or a partial
                if _called(node) == "redirect" and "request." not in ast.unparse(node):
                    yield node


def _called(node: ast.AST) -> str | None:
    func = getattr(node, "func", None) if isinstance(node, ast.Call) else None
    return getattr(func, "id", None) or getattr(func, "attr", None)


def _fixed(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the names of functions that compile or redirect, where nothing but the code says what."""
    constants = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes_of(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias for alias in node.names if alias.name in COMPILING_NAMES)
        elif isinstance(node, ast.Call) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) or (isinstance(first, ast.Name) and first.id in constants):
                yield from (node, node.func)


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a node assigns, also by ``app.name = …``, ``config["name"] = …``, ``f(name=…)``, ``{"name": …}``."""
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


def _links_in(tree: ast.Module, hosts: Collection[str]) -> Iterator[tuple[int, str]]:
    documents = {id(node.value) for node in nodes_of(tree) if isinstance(node, ast.Expr)}  # no code: docstrings
    for node in nodes_of(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield from ((node.lineno + line, link) for line, link in links_to(hosts, node.value))


def _fault(node: ast.AST) -> tuple[str, str, str] | None:
    """Return a finding's id, what was seen, and the fix."""
    name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
    if name in RAW_NAMES:
        return "TM03", name, "Pass the text to a template, which escapes it."
    if name in COMPILING_NAMES or (isinstance(node, ast.ImportFrom) and _imports_jinja_template(node)):
        return "TM04", str(name or "Template"), "Use a template file, or templating.fill_placeholders."
    if name == "Template" and ast.unparse(node) == "jinja2.Template":
        return "TM04", "Template", "Use a template file, or templating.fill_placeholders."
    if isinstance(node, ast.Call) and node.args:
        called, target = _called(node), node.args[0]
        if called in RENDERING_NAMES and not isinstance(target, ast.Constant):
            return "TM04", called, "Write the template's name."
        if called == "redirect" and not re.match(r"(\w+\.)?url_for\(", ast.unparse(target)):
            return (
                "UR04",
                called,
                "Use url_for; redirect_to for a target from a request; @may_redirect_to for a host in the code.",
            )
    return None


def _imports_jinja_template(node: ast.ImportFrom) -> bool:
    return node.module == "jinja2" and any(alias.name == "Template" for alias in node.names)
