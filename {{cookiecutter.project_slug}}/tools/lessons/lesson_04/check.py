"""The cookies that responses set, and a copy of one in another browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from tools.lessons.lab import Lab


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve() as shop:
        visitor = shop.visitor()
        visitor.get("/")
        cookies = [*visitor.cookies.values(), *shop.member().cookies.values()]
        agent = shop.member("bob@example.com")
        agent.get("/uploads", User_Agent="Firefox")
        copied = agent.get("/uploads", User_Agent="Chrome").status == 200
    if not cookies:
        yield "No response sets a session cookie: forms and the sign-in need one."
    for cookie in cookies:
        name, parts = cookie.partition("=")[0], {part.strip().lower() for part in cookie.split(";")[1:]}
        if "httponly" not in parts:
            yield f"Scripts can read the cookie {name}: it is set without HttpOnly."
            if "samesite=strict" in parts:
                yield "SameSite=Strict keeps other sites from sending the cookie. This script is in a page of the shop."
            if name != "__Host-session":
                yield "Another name hides nothing: document.cookie lists all cookies."
            if _lifetime(parts) < timedelta(minutes=10):
                yield "A short lifetime does not help: the thief's program uses the copy at once."
            if not copied:
                yield "User-Agent is no proof: the script sends navigator.userAgent along with the cookie."
        if "secure" not in parts:
            yield f"The cookie {name} is set without Secure: it travels over http, where anybody can copy it."
        if not name.startswith("__Host-") or "path=/" not in parts or any(part.startswith("domain") for part in parts):
            yield f"The cookie {name} has no __Host- prefix with path / and no domain: a sibling host can plant it."
        if not parts & {"samesite=lax", "samesite=strict"}:
            yield f"The cookie {name} is set without SameSite: other sites' forms send it."


def _lifetime(parts: set[str]) -> timedelta:
    """Return how long the browser keeps the cookie; a day if it has no expiry date."""
    found = [part.removeprefix("expires=") for part in parts if part.startswith("expires=")]
    return parsedate_to_datetime(found[0]) - datetime.now(UTC) if found else timedelta(days=1)
