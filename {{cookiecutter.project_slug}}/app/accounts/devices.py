"""A name for a browser that a person recognizes in the list of their sessions: ``Firefox on Windows``.

It comes from the User-Agent header, which is a hint for the account's owner and no evidence: a thief can send any.
"""

from __future__ import annotations

# What is in the header → its name. The first that is found decides: Edge also calls itself Chrome and Safari, every
# Chrome calls itself Safari, and Android calls itself Linux.
BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "Vivaldi/": "Vivaldi",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "Chrome/": "Chrome",
    "CriOS/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "CrOS": "ChromeOS",
    "Windows": "Windows",
    "Macintosh": "macOS",
    "Linux": "Linux",
}


def device_name(user_agent: str) -> str:
    """Return the browser of a User-Agent header and its system; the header itself if it names no browser of these."""
    browser, system = (_first(names, user_agent) for names in (BROWSERS, SYSTEMS))
    if browser is None:
        return user_agent or "Unknown browser"
    return f"{browser} on {system}" if system else browser


def _first(names: dict[str, str], user_agent: str) -> str | None:
    return next((name for mark, name in names.items() if mark in user_agent), None)
