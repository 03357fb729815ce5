"""A visitor opens a page while the database is down. The error page tells him how to reach the database.

A colleague has added /orders, which asks the database. Somebody has also made the error page more helpful.
"""

from __future__ import annotations

import re

from app.visitors import public
from tools.lessons.lab import Lab

ADDRESS = "postgresql://shop:hunter2-for-prod@10.0.0.5:5432/orders"


@public
def orders() -> str:
    """Ask the database for the orders."""
    raise ConnectionError(f"could not connect to {ADDRESS}: Connection refused")


def attack(lab: Lab) -> str:
    """Return what was stolen; "" for nothing."""
    with lab.serve({"/orders": orders}) as shop:
        answer = shop.visitor().get("/orders")
        print(f"/orders answers {answer.status}. The page says:")
        for text in re.findall(r"<p[^>]*>([^<]+)</p>", answer.text):
            print(f"  {' '.join(text.split())}")
    return f"The thief has the address and the password of the database: {ADDRESS}" if ADDRESS in answer.text else ""
