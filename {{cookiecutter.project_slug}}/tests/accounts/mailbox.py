"""The mailbox that the app's mails end up in."""

from __future__ import annotations

import queue
import re
from email.message import EmailMessage

import pytest
from flask import Flask

from app.accounts import mail


class Mailbox:
    """``next("alice@example.com")`` waits for a mail with that in it, ``link()`` for the link of a reset.

    It takes the mails of the apps with the database ``url``: an app of an earlier test may still be sending.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: object) -> None:
        self.mails: queue.Queue[EmailMessage] = queue.Queue()
        self.url = url
        monkeypatch.setattr(mail, "_deliver", self._deliver)

    def _deliver(self, app: Flask, message: EmailMessage) -> None:
        if app.config["DATABASE_URL"] == self.url:
            self.mails.put(message)

    def next(self, about: str) -> str:
        """The text of the next mail to or about ``about``; those before it are thrown away."""
        while True:
            message = self.mails.get(timeout=5)
            text = str(message.get_content())
            if about in text or about == message["To"]:
                return text

    def link(self) -> str:
        """The address in the next mail with a link for a new password."""
        found = re.search(r"\S+/reset/\S+", self.next("/reset/"))
        assert found
        return found[0]
