"""What browsers are told, and what the app declares that it relaxes. The tests and the audit judge by both."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flask import Flask
from werkzeug.exceptions import HTTPException

from app.security.headers import relax, relaxations_of

NONCE = re.compile(r"'nonce-([\w-]{32,})'")
# Without scripts, there is nothing to guard: no sink, no request.
ONLY_FOR_SCRIPTS = ("require-trusted-types-for", "trusted-types", "upgrade-insecure-requests")


def directives(policy: str) -> dict[str, str]:
    """The directives of a policy, and for each nonce the word 'nonce'."""
    parts = [part.strip().partition(" ") for part in NONCE.sub("'nonce'", policy).split(";")]
    return {name.lower(): value for name, _, value in parts if name}


def looser(found: Mapping[str, str], allowed: Mapping[str, str]) -> dict[str, str]:
    """What the policy ``found`` lets through that ``allowed`` does not, by directive."""
    extra = {name: _sources(found, name) - _sources(allowed, name) for name in sorted({*found, *allowed})}
    quiet = not _sources(found, "script-src")
    return {
        name: " ".join(sorted(words))
        for name, words in extra.items()
        if words and "*" not in _sources(allowed, name) and not (quiet and name in ONLY_FOR_SCRIPTS)
        if not name.startswith("report-")
    }


def _sources(policy: Mapping[str, str], name: str) -> set[str]:
    """The words of a directive, or of what replaces it. Without any, everything is let through."""
    for each in (name, re.sub("-(elem|attr)$", "", name), "default-src" if name.endswith("-src") else name):
        if each in policy:
            return set(policy[each].split()) - {"'none'"}
    return {"*"}


def relaxed_at(app: Flask, path: str) -> tuple[relax, ...]:
    """What the app declares that it relaxes at a path; the same for its methods."""
    try:
        endpoint = app.url_map.bind("localhost", url_scheme="https").match(path)[0]
    except HTTPException:
        endpoint = None
    return relaxations_of(app, endpoint)


def with_relaxations(strict: Mapping[str, str], relaxed: tuple[relax, ...]) -> dict[str, str]:
    """The strict policy or headers, with what ``relaxed`` changes in them."""
    changed: dict[str, str | None] = {**strict}
    for each in relaxed:
        changed |= each.csp if "default-src" in strict else each.headers
        if "X-Frame-Options" in strict and "frame-ancestors" in each.csp:
            value = each.csp["frame-ancestors"] or ""
            changed["X-Frame-Options"] = {"'none'": "DENY", "'self'": "SAMEORIGIN"}.get(value)
    return {name: value for name, value in changed.items() if value or (value is not None and strict.get(name) == "")}
