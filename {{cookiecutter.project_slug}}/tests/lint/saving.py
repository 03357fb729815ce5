"""A file that is saved or read under a name that a visitor has chosen (9.S2): the name can lead to any folder.

Read function by function, in the order of the lines: what holds the name, and where it becomes the path of a file.
A name is followed into the functions of the same file that get it as an argument. It is not followed into other files,
through what a function returns, or through attributes of objects. An upload is followed too: its view saves it, and
nothing checks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from tests.lint.nodes import nodes_of

# What may be known of a value: a request holds it, a file of a request has it as its name, it is composed of several
# parts, as paths are, or it is a file of a request.
Traits = frozenset[str]
Names = Mapping[str, Traits]
ASKED_FOR, FILENAME, COMPOSED, FILE = (frozenset({each}) for each in ("asked for", "filename", "composed", "file"))
NONE: Traits = frozenset()

# What a request holds under the sender's control.
ASKED = frozenset(("args", "cookies", "form", "get_json", "headers", "json", "values"))
# The functions whose result is still the name. Of any other, secure_filename among them, nothing is known.
PASS_ON = frozenset(
    """
    Path PurePath str fspath join joinpath basename normpath abspath realpath resolve absolute unquote format lower
    upper strip lstrip rstrip removeprefix removesuffix replace encode decode get getlist with_name with_stem
    """.split()  # noqa: SIM905 - a table
)
COMPOSING = frozenset(("Path", "PurePath", "join", "joinpath", "format", "with_name", "with_stem"))
OF_FILES = frozenset(("get", "getlist", "items", "values"))
MOVES = frozenset(f"shutil.{name}" for name in ("move", "copy", "copy2", "copyfile")) | {"os.rename", "os.replace"}
WRITES = frozenset(("write_bytes", "write_text", "touch"))
READS = frozenset(("read_bytes", "read_text", "open"))
READERS = frozenset(("open", "io.open", "os.open", "codecs.open", "send_file", "flask.send_file"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
WHOLES = (ast.BinOp, ast.BoolOp, ast.JoinedStr, ast.FormattedValue, ast.Tuple, ast.List, ast.Starred, ast.Await)

SAVED = "stores a file under a name that its sender has chosen."
READ = "reads a file under a name from a request."
KEPT = "stores an upload, which nothing has checked."
Found = tuple[int, str, str]  # the line, the call, and what it does


def misused_files(module: ast.Module) -> Iterator[Found]:
    """Yield each call that saves or reads a file under a name from its sender, or that saves an upload."""
    named = {node.name: node for node in nodes_of(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    yield from dict.fromkeys(_misused(module, {}, named, set()))


def _misused(
    scope: ast.AST, names: Names, helpers: Mapping[str, Function], seen: set[tuple[str, frozenset[tuple[str, Traits]]]]
) -> Iterator[Found]:
    """Yield what a scope saves and reads: a module or a function.

    ``names`` are the variables around it of which something is known, ``helpers`` the functions that it may call, and
    ``seen`` those that have been read, each with what is known of its parameters.
    """
    inside = sorted(_own_nodes(scope), key=lambda node: (node.lineno, node.col_offset))  # type: ignore[attr-defined]
    for node in inside:
        for target, value in _bound(node):
            names = {**names, **dict.fromkeys(_names_in(target), _traits(value, names))}
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if what := _misuse(node, called, names):
            yield node.lineno, called, what
        helper = called.removeprefix("self.")
        given = _given(node, helpers[helper], names) if helper in helpers else {}
        if given and (helper, frozenset(given.items())) not in seen:
            seen.add((helper, frozenset(given.items())))
            yield from _misused(helpers[helper], given, helpers, seen)
    for node in inside:
        if isinstance(node, FUNCTIONS):
            own = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            around = {name: traits for name, traits in names.items() if name not in own}
            yield from _misused(node, around | dict.fromkeys(_paths_in_routes(node), ASKED_FOR), helpers, seen)


def _paths_in_routes(function: ast.AST) -> list[str]:
    """Return the arguments of a view that a route takes as ``<path:name>``: they may lead up, as in ``a/../../b``."""
    return re.findall(r"<path:(\w+)>", " ".join(map(ast.unparse, getattr(function, "decorator_list", ()))))


def _misuse(call: ast.Call, called: str, names: Names) -> str:
    """Return what a call does with a file that it should not do; '' for nothing."""
    of = _traits(call.func.value, names) if isinstance(call.func, ast.Attribute) else NONE
    saves = called.rpartition(".")[2] == "save"
    for path in _paths_written(call):
        traits = _traits(path, names)
        # Other objects have a method of this name too: that of a model may get the whole form.
        if FILENAME & traits or (ASKED_FOR & traits and (not saves or FILE & of or COMPOSED & traits)):
            return SAVED
    if any(ASKED_FOR & _traits(path, names) for path in _paths_read(call)):
        return READ
    return KEPT if saves and FILE & of else ""


def _given(call: ast.Call, function: Function, names: Names) -> dict[str, Traits]:
    """Return what is known of the parameters of a function in a call."""
    parameters = [each.arg for each in function.args.posonlyargs + function.args.args if each.arg != "self"]
    arguments = [*zip(parameters, call.args, strict=False), *((each.arg, each.value) for each in call.keywords)]
    known = {name: _traits(value, names) for name, value in arguments if name}
    return {name: traits for name, traits in known.items() if traits}


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
    elif isinstance(node, ast.For | ast.AsyncFor):
        yield node.target, node.iter


def _names_in(target: ast.expr) -> set[str]:
    return {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}


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


def _paths_read(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the expressions in which a call gets the path of a file to read."""
    if ast.unparse(call.func) in READERS:
        yield from [*call.args[:1], *(each.value for each in call.keywords if each.arg in ("file", "path_or_file"))]
    elif isinstance(call.func, ast.Attribute) and call.func.attr in READS:
        yield call.func.value


def _traits(node: ast.expr, names: Names) -> Traits:
    """Return what is known of an expression, whose parts may come from a request."""
    if isinstance(node, ast.Name):
        return names.get(node.id, NONE)
    if isinstance(node, ast.Attribute):
        return _traits_of_attribute(node, names)
    if isinstance(node, ast.Subscript):
        # By a number, one gets a part of the name: usually its extension, which is from a list.
        part = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)
        return _traits(node.value, names) & FILE if part else _traits(node.value, names)
    if isinstance(node, ast.Call):
        return _traits_of_call(node, names)
    if isinstance(node, ast.IfExp):
        return _traits(node.body, names) | _traits(node.orelse, names)
    if isinstance(node, WHOLES):
        parts = [_traits(each, names) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
        composed = COMPOSED if any(parts) and isinstance(node, ast.BinOp | ast.JoinedStr) else NONE
        return composed.union(*parts)
    return _traits(node.value, names) if isinstance(node, ast.NamedExpr) else NONE


def _traits_of_attribute(node: ast.Attribute, names: Names) -> Traits:
    of = ast.unparse(node.value)
    if node.attr == "filename":
        return FILENAME if of != "self" else NONE
    if of.rpartition(".")[2] == "request":
        return FILE if node.attr == "files" else ASKED_FOR if node.attr in ASKED else NONE
    if node.attr == "data" and re.search(r"(?i)form\.\w+$", of):  # a field's; only that of a file has a method save
        return FILE
    return _traits(node.value, names) if node.attr in ("name", "parent", "stem") else NONE


def _traits_of_call(node: ast.Call, names: Names) -> Traits:
    last = ast.unparse(node.func).rpartition(".")[2]
    of = _traits(node.func.value, names) if isinstance(node.func, ast.Attribute) else NONE
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get_json":
        return _traits(node.func, names)
    if last not in PASS_ON:
        return of & FILE if last in OF_FILES else NONE
    traits = of.union(*(_traits(each, names) for each in [*node.args, *(each.value for each in node.keywords)]))
    return traits | COMPOSED if traits and last in COMPOSING else traits
