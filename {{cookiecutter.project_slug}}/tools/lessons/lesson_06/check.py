"""Which sites may frame a response, as browsers read it: pages, errors, a file, and a refusal."""

from __future__ import annotations

from collections.abc import Iterator

from tools.lessons.lab import Answer, Lab
from tools.lessons.lesson_06.attack import PAGES

PATHS = ("/donate", "/", "/there-is-no-such-page", "/static/app.css", "/redirect")  # pages, an error, a file, a refusal


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    found: dict[str, list[str]] = {}
    with lab.serve(PAGES) as shop:
        for path in PATHS:
            for fault in _faults(shop.visitor().get(path)):
                found.setdefault(fault, []).append(path)
    yield from (f"These can be framed: {', '.join(paths)}. {fault}" for fault, paths in found.items())


def _faults(answer: Answer) -> Iterator[str]:
    ancestors = answer.policy.get("frame-ancestors")
    old = answer.headers.get("X-Frame-Options", "").upper()
    if ancestors is None and not old:
        yield (
            "No header forbids it. A script in the page that looks for window.top can't: the thief's frame has the "
            "attribute sandbox, which switches the page's scripts off."
        )
    elif old.startswith("ALLOW-FROM") or old not in ("", "DENY", "SAMEORIGIN"):
        yield f"X-Frame-Options: {old} means nothing: browsers know only DENY and SAMEORIGIN, and ignore the rest."
    elif ancestors is None:
        yield "X-Frame-Options alone is the older way. Add frame-ancestors to the policy, which browsers obey first."
    elif more := set(ancestors.split()) - {"'none'", "'self'"}:
        yield f"frame-ancestors names {' '.join(sorted(more))}: whoever takes over one of those hosts may frame it."
    elif not old:
        yield "frame-ancestors is there, and X-Frame-Options is missing: old browsers know only that."
