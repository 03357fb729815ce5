"""Absolute links to the app itself, written by hand (10.S3): they break on another host, and no check sees where to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from flask import Flask

LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))
# On loopback, what has another port is another program: a database, a model, a mail catcher.
OUR_PORTS = (None, 80, 443, 5000, 8000)


def hosts_of(app: Flask) -> set[str]:
    """Return the names that an app answers to, without their ports."""
    named = [app.config.get("SERVER_NAME"), *(app.config.get("TRUSTED_HOSTS") or ())]
    return {str(name).lstrip(".").partition(":")[0].lower() for name in named if name}


def links_to(hosts: Collection[str], text: str) -> Iterator[tuple[int, str]]:
    """Yield each absolute link of a text to one of these hosts or to loopback, with its line, counted from 0."""
    for found in re.finditer(r"(?i)(?:\bhttps?:)?//(?!/)[^\s\"'<>\\(){}]+", text):
        try:
            parts = urlsplit(found[0])
            host, port = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}").lower(), parts.port
        except ValueError:  # no link
            continue
        if (host in LOOPBACK and port in OUR_PORTS) or (host in hosts and host not in LOOPBACK):
            yield text.count("\n", 0, found.start()), found[0]
