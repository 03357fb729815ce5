"""The nodes of a syntax tree. Most checks look at all of them, and walking takes longer than most checks."""

from __future__ import annotations

import ast
import functools


@functools.cache
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return all nodes of a tree, which nobody changes."""
    return tuple(ast.walk(tree))
