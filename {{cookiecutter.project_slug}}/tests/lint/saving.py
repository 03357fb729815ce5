"""A file that is saved under a name which its sender has chosen (9.S2): he chooses the folder too, or an older file.

Read function by function, in the order of the lines: what holds the name, and where it becomes the path of a new file.
A name is followed into the functions of the same file that get it as an argument. It is not followed into other files,
through what a function returns, or through attributes of objects.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from tests.lint.nodes import nodes_of

# What a request holds under the sender's control. A FileStorage's filename is one of them by its own name.
ASKED = frozenset(("args", "cookies", "form", "get_json", "headers", "json", "values"))
# The functions whose result is still the name. Of any other, secure_filename among them, nothing is known.
PASS_ON = frozenset(
    """
    Path PurePath str fspath join joinpath basename normpath abspath realpath resolve absolute unquote format lower
    upper strip lstrip rstrip removeprefix removesuffix replace encode decode get getlist with_name with_stem
    """.split()  # noqa: SIM905 - a table
)
MOVES = frozenset(f"shutil.{name}" for name in ("move", "copy", "copy2", "copyfile")) | {"os.rename", "os.replace"}
WRITES = frozenset(("write_bytes", "write_text", "touch"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
WHOLES = (ast.BinOp, ast.BoolOp, ast.JoinedStr, ast.FormattedValue, ast.Tuple, ast.List, ast.Starred, ast.Await)


def saved_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the call of each file that is saved under a name from its sender."""
    named = {node.name: node for node in nodes_of(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    yield from dict.fromkeys(_saved(module, frozenset(), named, set()))


def _saved(
    scope: ast.AST, names: frozenset[str], helpers: Mapping[str, Function], seen: set[tuple[str, frozenset[str]]]
) -> Iterator[tuple[int, str]]:
    """Yield what a scope saves: a module or a function.

    ``names`` are the variables around it that hold such a name, ``helpers`` the functions that it may call, and
    ``seen`` those that have been read, each with its parameters that get such a name.
    """
    inside = sorted(_own_nodes(scope), key=lambda node: (node.lineno, node.col_offset))  # type: ignore[attr-defined]
    for node in inside:
        for target, value in _bound(node):
            bound = {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
            names = names | bound if _is_chosen(value, names) else names - bound
        if isinstance(node, ast.Call) and any(_is_chosen(path, names) for path in _paths_written(node)):
            yield node.lineno, ast.unparse(node.func)
        called = ast.unparse(node.func).removeprefix("self.") if isinstance(node, ast.Call) else ""
        given = (
            _given(node, helpers[called], names) if isinstance(node, ast.Call) and called in helpers else frozenset()
        )
        if given and (called, given) not in seen:
            seen.add((called, given))
            yield from _saved(helpers[called], given, helpers, seen)
    for node in inside:
        if isinstance(node, FUNCTIONS):
            own = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            yield from _saved(node, names - own, helpers, seen)


def _given(call: ast.Call, function: Function, names: frozenset[str]) -> frozenset[str]:
    """Return the parameters of a function that get a name from the sender in a call."""
    parameters = [each.arg for each in function.args.posonlyargs + function.args.args if each.arg != "self"]
    arguments = [*zip(parameters, call.args, strict=False), *((each.arg, each.value) for each in call.keywords)]
    return frozenset(name for name, value in arguments if name and _is_chosen(value, names))


def _own_nodes(scope: ast.AST) -> list[ast.AST]:
    """Return the nodes of a scope, and of the functions in it only themselves."""
    found = [*ast.iter_child_nodes(scope)]
    for node in found:  # this also visits what the loop appends
        if not isinstance(node, FUNCTIONS):
            found.extend(ast.iter_child_nodes(node))
    return [node for node in found if isinstance(node, ast.expr | ast.stmt)]


def _bound(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AugAssign):
        yield node.target, ast.BinOp(node.target, node.op, node.value)
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
        yield node.target, node.value


def _paths_written(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the expressions in which a call gets the path of a file to write."""
    called, arguments = ast.unparse(call.func), call.args
    last = called.rpartition(".")[2]
    named = {str(each.arg): each.value for each in call.keywords}
    if last == "save":
        yield from [*arguments[:1], *(named[each] for each in ("dst", "fp") if each in named)]
    elif called in MOVES:
        yield from [*arguments[1:2], *(named[each] for each in ("dst",) if each in named)]
    elif last in WRITES and isinstance(call.func, ast.Attribute):
        yield call.func.value
    elif last == "open":
        # open(path, mode) or path.open(mode)
        modes = [str(each.value) for each in [*arguments, *named.values()] if isinstance(each, ast.Constant)]
        if called == "os.open" or any(len(mode) < 4 and set(mode) & set("wax+") for mode in modes):
            yield from [*arguments[:1], *(named[each] for each in ("file",) if each in named)]
            yield from [call.func.value] if isinstance(call.func, ast.Attribute) else []


def _is_chosen(node: ast.expr, names: frozenset[str]) -> bool:
    """Return whether an expression is, or contains, a name that the sender chose."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Attribute):
        if node.attr == "filename":
            return ast.unparse(node.value) != "self"
        asked = node.attr in ASKED and ast.unparse(node.value).rpartition(".")[2] == "request"
        return asked or (node.attr in ("name", "parent", "stem") and _is_chosen(node.value, names))
    if isinstance(node, ast.Subscript):
        # By a number, one gets a part of the name: usually its extension, which is from a list.
        part = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)
        return not part and _is_chosen(node.value, names)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get_json":
            return _is_chosen(node.func, names)
        if ast.unparse(node.func).rpartition(".")[2] not in PASS_ON:
            return False
        of = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return any(_is_chosen(each, names) for each in [*of, *node.args, *(each.value for each in node.keywords)])
    if isinstance(node, ast.IfExp):
        return _is_chosen(node.body, names) or _is_chosen(node.orelse, names)
    if isinstance(node, WHOLES):
        return any(_is_chosen(each, names) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr))
    return isinstance(node, ast.NamedExpr) and _is_chosen(node.value, names)
