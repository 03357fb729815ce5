"""Targets that leave the site, as a browser reads them, and targets that must still work."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import ada_url

from app.security.urls import safe_redirect_target
from tools.lessons.lab import HOST, Lab

EVIL = "attacker.test"
LEAVE = {
    "//{evil}/": "A target that begins with two slashes is an address without its scheme.",
    "/\\{evil}/": "Browsers read a backslash as a slash, so /\\ is the same as //. Python's urlsplit sees a path.",
    "\\/{evil}/": "Browsers read a backslash as a slash, at the beginning too.",
    "/\t/{evil}/": "Browsers remove tabs and line breaks from a URL before they read it: /<tab>/ becomes //.",
    "/\n/{evil}/": "Browsers remove tabs and line breaks from a URL before they read it: /<line break>/ becomes //.",
    "https://{host}@{evil}/": "What stands before an @ is a name and a password: "
    "the beginning of a URL, compared as text, says nothing.",
    "https://{name}.{evil}/": "The name of this site is only the beginning of another name. Compare whole hosts.",
    "https://{evil}/?{host}": "The name of this site is in the query of another one. Compare hosts, not texts.",
    "https:{evil}": "A URL with a scheme and no slashes leads to another site too.",
    "///{evil}/": "Browsers skip any number of slashes before a host.",
}
STAY = ("/uploads", "/uploads?from=mail&next=https://other.example/#top", "/a%20b", "https://{host}/uploads")


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve() as shop:
        names = {"evil": EVIL, "name": HOST, "host": shop.url.removeprefix("https://")}
        for pattern, fault in LEAVE.items():
            target = pattern.format(**names)
            with shop.app.test_request_context(base_url=shop.url):
                safe = safe_redirect_target(target)
            if _place(safe, shop.url).hostname != HOST:
                yield f"{fault} safe_redirect_target({target!r}) returns {safe!r}."
                break
        for pattern in STAY:
            target = pattern.format(**names)
            answer = shop.visitor().get(f"/redirect?next={quote(target, safe='')}")
            location = answer.headers.get("Location", f"an error page ({answer.status})")
            if _place(location, shop.url).href != _place(target, shop.url).href:
                yield f"A target on this site no longer works: {target!r} leads to {location}."


def _place(target: str | None, base: str) -> ada_url.URL:
    """Return the URL to which a browser goes. An invalid target leads to ``base``."""
    try:
        return ada_url.URL(target or "", base=base)
    except ValueError:
        return ada_url.URL(base)
