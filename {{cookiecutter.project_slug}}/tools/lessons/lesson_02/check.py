"""Requests that pages of other sites can cause, and the form of the app's own page."""

from __future__ import annotations

from collections.abc import Iterator

from tools.lessons.lab import HOST, METHODS, Lab
from tools.lessons.lesson_02.attack import PAGES

FORM = {"address": "1 Thief Street"}
SIBLING = {"Origin": "https://blog.shop.test", "Sec_Fetch_Site": "same-site"}
# Origins from which a request must be refused even with the right token, and what is wrong if it is accepted.
ELSEWHERE = (
    ({"Origin": "https://attacker.test", "Sec_Fetch_Site": "cross-site"}, "Another site's page is let through."),
    (
        SIBLING,
        "A page of another host of the same site (Sec-Fetch-Site: same-site) is let through. blog.shop.test is not "
        "www.shop.test.",
    ),
    (
        {"Origin": f"https://{HOST}.attacker.test"},
        "A host is let through that begins with the name of this site. Compare the whole origin.",
    ),
    ({"Origin": f"http://{HOST}"}, "A page over http is let through: anybody in the network can write it."),
    ({"Origin": "null"}, "The origin 'null' is let through: a sandboxed frame of any site sends it."),
    ({"Origin": ""}, "A request over https that does not say where it comes from is let through."),
)


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve(PAGES) as shop:
        alice, other = shop.visitor(), shop.visitor()
        if alice.send("/address", {"address": "7 Alice Road"}).status != 200:
            yield "The form of this app's own page is refused, with its right token."
        for where, fault in ELSEWHERE:
            if alice.send("/address", FORM, **where).status == 200:
                yield f"{fault} A token can leak, so the origin has to be right too."
                break
        through = [method for method in METHODS[1:] if alice.ask(method, "/address", FORM).status == 200]
        if len(through) == len(METHODS[1:]):
            yield "A request without a token changes the address: who can hide or fake the origin needs nothing else."
        elif through:
            yield f"{', '.join(through)} without a token: let through. Forms send POST, scripts the others."
        for token, fault in {
            "": "An empty token is let through.",
            other.token(): "The token of another visitor is let through: the thief visits the shop and gets one.",
        }.items():
            if through == [] and alice.ask("POST", "/address", {**FORM, "csrf_token": token}).status == 200:
                yield fault
