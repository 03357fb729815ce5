"""Form fields that code reads without a FlaskForm, so that nothing checks them and their token (2.S3).

A view that needs no token may read them as it likes: so may what is used by nothing else in its file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from tests.lint.code import assignments
from tests.lint.nodes import nodes_of

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Why code runs without a token: the reasons of exemptions, "" for a GET, None for a view that needs one.
Reasons = set[str | None]


def read_by_hand(tree: ast.Module, views: Mapping[int, Reasons]) -> Iterator[tuple[int, str, str | None]]:
    """Yield the line, what is wrong there, and the reason if no token is needed.

    ``views`` are the views and hooks of this file, by the first lines of their functions. What only a GET runs is
    left out.
    """
    found = [(node, what) for node in nodes_of(tree) if (what := _fault(node))]
    reasons = _without_token(tree, views) if found else {}
    for node, what in sorted(found, key=lambda each: each[0].lineno):  # type: ignore[attr-defined]
        if (reason := reasons.get(id(node))) != "":
            yield node.lineno, what, reason  # type: ignore[attr-defined]


def _fault(node: ast.AST) -> str:
    for name, value in assignments(node):
        if name == "csrf" and isinstance(value, ast.Constant) and value.value is False:
            return "A form disables its token"
    read = node.value if isinstance(node, ast.Subscript | ast.Attribute) else None
    is_form = isinstance(read, ast.Attribute) and read.attr == "form" and ast.unparse(read.value) == "request"
    if not is_form or getattr(node, "attr", "get") not in ("get", "getlist"):
        return ""
    return "Form fields are read directly, without a FlaskForm"


def _without_token(tree: ast.Module, views: Mapping[int, Reasons]) -> dict[int, str]:
    """Return the ids of the nodes that never run with a token, with the reason, "" if only a GET runs them."""
    parts = {part.name: part for part in tree.body if isinstance(part, (*FUNCTIONS, ast.ClassDef))}
    names = {part: {node.id for node in ast.walk(part) if isinstance(node, ast.Name)} for part in tree.body}
    known = {name: _union(views.get(line) for line in _first_lines(part)) for name, part in parts.items()}
    used = [name for name in parts if not known[name]]
    for name in used * len(used):  # what a view uses, and what that uses in turn
        users = [part for part in names if name in names[part] and part is not parts[name]]
        known[name] = _union(known.get(getattr(user, "name", "")) or {None} for user in users)
    found: dict[int, str] = {}
    for name, part in parts.items():
        if known[name] and None not in known[name]:
            found |= dict.fromkeys(map(id, ast.walk(part)), max(filter(None, known[name]), default=""))
    return found


def _first_lines(part: ast.AST) -> Iterator[int]:
    """Yield the first line, maybe a decorator's, of each function in a part of a file."""
    for node in ast.walk(part):
        if isinstance(node, FUNCTIONS):
            yield min(each.lineno for each in (node, *node.decorator_list))


def _union(several: Iterator[Reasons | None]) -> Reasons:
    return set().union(*filter(None, several))
