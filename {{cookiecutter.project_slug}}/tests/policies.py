"""What browsers are told, and what the app declares that it relaxes. The tests and the audit judge by both."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flask import Flask
from werkzeug.exceptions import HTTPException

from app.security.headers import relax, relaxations_of
from app.security.urls import form_targets

NONCE = re.compile(r"'nonce-([\w-]{32,})'")
NONCE_IN = ("script-src", "script-src-elem")
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


def lets_through(source: str, address: str) -> bool:
    """Whether a source of a policy, such as ``https://*.tiles.example/a/``, lets ``host/path`` through, over https."""
    if source in ("*", "https:"):
        return True
    host, _, path = source.removeprefix("https://").partition("/")
    at, _, rest = address.partition("/")
    host, at = host.lower(), at.lower()
    same = at.endswith(host[1:]) if host.startswith("*.") else at == host
    return same and (path in ("", rest) or (path.endswith("/") and rest.startswith(path)))


def relaxed_at(app: Flask, path: str) -> tuple[relax, ...]:
    """What the app declares that it relaxes at a path; the same for its methods."""
    try:
        endpoint = app.url_map.bind("localhost", url_scheme="https").match(path)[0]
    except HTTPException:
        endpoint = None
    return relaxations_of(app, endpoint)


def with_form_targets(strict: Mapping[str, str], app: Flask) -> dict[str, str]:
    """The strict policy, with the hosts that views of the app may redirect to: forms may lead there."""
    with app.test_request_context(base_url="https://localhost"):
        return {**strict, "form-action": f"{strict['form-action']} {form_targets()}".strip()}


def with_relaxations(strict: Mapping[str, str], relaxed: tuple[relax, ...]) -> dict[str, str]:
    """The strict policy, or the strict headers, with what ``relaxed`` changes in them."""
    if "default-src" not in strict:
        return _headers(strict, relaxed)
    changed: dict[str, str | None] = {**strict}
    for each in relaxed:
        # Talisman adds the nonce.
        changed |= {
            name: f"{value} 'nonce'" if value and name in NONCE_IN else value or None
            for name, value in each.csp.items()
        }
    return {name: value for name, value in changed.items() if value is not None}


def _headers(strict: Mapping[str, str], relaxed: tuple[relax, ...]) -> dict[str, str]:
    changed: dict[str, str | None] = {**strict}
    for each in relaxed:
        changed |= each.headers
        if "frame-ancestors" in each.csp:
            same = {"'none'": "DENY", "'self'": "SAMEORIGIN"}
            changed["X-Frame-Options"] = same.get(each.csp["frame-ancestors"] or "")
    return {name: changed[name] or "" for name in strict if changed[name]}
