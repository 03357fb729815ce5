"""Declarations of views: a decorator sets one as an attribute of a view, and hooks look it up for each request.

They are never stored by view name: two views may share a name, and exempting one would then exempt the other.
A view may be a function, a ``MethodView`` or one method of it, a ``functools.partial``, or any callable object; a
declaration may also cover a whole blueprint.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPMethod
from typing import Any, TypeVar

from flask import Blueprint, Flask, current_app, request

Declared = TypeVar("Declared", bound=Callable[..., Any] | Blueprint)

# One attribute holds all declarations: a plain name, such as that of a method, must not become one by accident.
ATTRIBUTE = "_declarations"

# How many declarations were made. What an app has looked up is kept until there is another one.
_made = 0


def add(target: Declared, name: str, value: object) -> Declared:
    """Add ``value`` to the tuple that is the declaration ``name`` of ``target``; see ``declare``."""
    return declare(target, name, (*_own(target).get(name, ()), value))


def declare(target: Declared, name: str, value: object) -> Declared:
    """Set a declaration on a view or blueprint, and return ``target``. Raises TypeError if it can't have attributes."""
    global _made
    if inspect.ismethod(target):
        raise TypeError(f"{target!r} can't hold a declaration: decorate the function in its class.")
    try:
        # A new dictionary: functools.wraps has copied the old one from a view that must not change with this one.
        setattr(target, ATTRIBUTE, {**_own(target), name: value})
    except AttributeError as error:
        raise TypeError(f"{target!r} can't hold a declaration: {error}") from error
    _made += 1  # last: another thread may look it up meanwhile, and would keep the old answer
    return target


def declared(name: str, *, default: Any = None, inherited: bool = False) -> Any:
    """Return the declaration ``name`` of this request's view or its blueprints, else ``default``.

    A declaration of a class is its own, so that no subclass is exempt by accident. With ``inherited``, for what
    restricts a view, it holds for subclasses too.
    """
    return declared_by(current_app, request.endpoint, request.method, name, default, inherited=inherited)


def declared_by(
    app: Flask, endpoint: str | None, method: str, name: str, default: Any = None, *, inherited: bool = False
) -> Any:
    """Return the declaration ``name`` of ``endpoint``'s view for ``method``; see ``declared``."""
    return next(iter(all_declared_by(app, endpoint, method, name, inherited=inherited)), default)


def all_declared_by(
    app: Flask, endpoint: str | None, method: str, name: str, *, inherited: bool = False
) -> tuple[Any, ...]:
    """Return each declaration ``name`` of a view for ``method``, then those of its blueprints, the innermost first."""
    view = app.view_functions.get(endpoint or "")
    if endpoint is None or view is None:
        return ()
    # Each request asks a dozen times, so the answers are kept, with what they were found for.
    known: dict[object, tuple[object, int, tuple[Any, ...]]] = app.extensions.setdefault("declarations", {})
    question, made = (endpoint, method, name, inherited), _made
    of_view, made_then, found = known.get(question, (None, 0, ()))
    if of_view is not view or made_then != made:
        found = tuple(_look_up(app, endpoint, view, method, name, inherited))
        if method in HTTPMethod.__members__:  # a rule may take any method, and clients invent more than memory holds
            known[question] = view, made, found
    return found


def _look_up(app: Flask, endpoint: str, view: object, method: str, name: str, inherited: bool) -> Iterator[Any]:
    blueprints = endpoint.split(".")[:-1]
    outer = (app.blueprints.get(".".join(blueprints[:depth])) for depth in range(len(blueprints), 0, -1))
    for place in (*_places(view, method, inherited), *outer):
        if name in (own := _own(place)):
            yield own[name]


def _own(place: object) -> dict[str, Any]:
    found: dict[str, Any] = getattr(place, "__dict__", {}).get(ATTRIBUTE, {})
    return found


def _places(view: Any, method: str, inherited: bool) -> Iterator[object]:
    """Yield a view, its class, the method that runs, and the same of the function that it wraps."""
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        seen.add(id(view))
        yield view
        kind = getattr(view, "view_class", None) or type(view)
        method = "get" if method == "HEAD" and not hasattr(kind, "head") else method.lower()
        runs = (method, "dispatch_request") if hasattr(view, "view_class") else ("__call__",)
        # A subclass inherits its parent's methods with their declarations, but not the declarations of the class.
        yield kind
        yield from (getattr(kind, name, None) for name in runs)
        for parent in kind.__mro__ if inherited else ():
            yield parent
            yield from (vars(parent).get(name) for name in runs)
        view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)


def static_folder(app: Flask, endpoint: str | None) -> str | None:
    """Return the folder whose files an endpoint serves; None for any other view, even if its name is static."""
    owner, _, name = (endpoint or "").rpartition(".")
    place = app.blueprints.get(owner) if owner else app
    return place.static_folder if place and name == "static" else None
