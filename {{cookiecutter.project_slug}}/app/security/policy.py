"""Declarations of views: a decorator sets one as an attribute of a view, and hooks look it up for each request.

They are never stored by view name: two views may share a name, and exempting one would then exempt the other.
A view may be a function, a ``MethodView`` or one method of it, a ``functools.partial``, or any callable object; a
declaration may also cover a whole blueprint.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, TypeVar

from flask import Blueprint, Flask, current_app, request

Declared = TypeVar("Declared", bound=Callable[..., Any] | Blueprint)


def declare(target: Declared, name: str, value: object) -> Declared:
    """Set a declaration on a view or blueprint, and return ``target``. Raises TypeError if it can't have attributes."""
    if inspect.ismethod(target) or isinstance(target, str):
        raise TypeError(f"{target!r} can't hold a declaration: decorate the function in its class.")
    setattr(target, name, value)
    return target


def declared(name: str, *, default: Any = None) -> Any:
    """Return the declaration ``name`` of this request's view or its blueprints, else ``default``."""
    return declared_by(current_app, request.endpoint, request.method, name, default)


def declared_by(app: Flask, endpoint: str | None, method: str, name: str, default: Any = None) -> Any:
    """Return the declaration ``name`` of ``endpoint``'s view for ``method``; see ``declared``."""
    view = app.view_functions.get(endpoint or "")
    if endpoint is None or view is None:
        return default
    blueprints = endpoint.split(".")[:-1]
    outer = (app.blueprints.get(".".join(blueprints[:depth])) for depth in range(len(blueprints), 0, -1))
    for place in (*_attributes(view, method), *(vars(blueprint) for blueprint in outer if blueprint)):
        if name in place:
            return place[name]
    return default


def _attributes(view: Any, method: str) -> Iterator[dict[str, Any]]:
    """Yield the attributes of a view, of its class and method, and of the function that it wraps."""
    while view is not None:
        yield getattr(view, "__dict__", {})
        if view_class := getattr(view, "view_class", None):
            # A subclass inherits its parent's methods with their declarations, but not the declarations of the class.
            yield dict(vars(view_class))
            yield getattr(getattr(view_class, method.lower(), None), "__dict__", {})
        view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)


def init_app(app: Flask) -> None:
    """Make sure that each view has a name. This comes first: Flask-Limiter's hooks look views up by name."""
    app.before_request(_name_the_view)


def _name_the_view() -> None:
    """Wrap a view without a name (a partial or a callable object): Flask-Limiter would fail on it with a 500."""
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or hasattr(view, "__qualname__"):
        return

    @wraps(view)
    def named(*args: Any, **kwargs: Any) -> Any:
        return current_app.ensure_sync(view)(*args, **kwargs)

    current_app.view_functions[str(request.endpoint)] = named
