"""The nodes of a syntax tree. Most checks look at all of them, and walking takes longer than most checks."""

from __future__ import annotations

import ast
import functools


@functools.cache
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return all nodes of a tree. The result is cached, so the tree must not change."""
    return tuple(ast.walk(tree))
