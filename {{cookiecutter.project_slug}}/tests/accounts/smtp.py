"""A mail server on loopback, which takes mails, refuses them, or never answers."""

from __future__ import annotations

import re
import socketserver
import ssl
import threading
from types import TracebackType
from typing import Any

# What it says to a command, and to the "." that ends a mail. An empty text closes the connection.
ANSWERS = {"DATA": "354 go on", "QUIT": "221 bye", ".": "250 taken"}


class MailServer(socketserver.ThreadingTCPServer):
    """``recipients`` lists whom the taken mails were for, and ``texts`` has their texts, in the order of arrival.

    While ``answers`` is cleared, connections are accepted and get no answer. ``says`` has other answers than
    ``ANSWERS``; they may repeat the ``{recipient}`` and the ``{link}`` of the mail.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Dialogue)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.recipients: list[str] = []
        self.texts: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.says: dict[str, str] = {}
        self.stopped = False

    @property
    def settings(self) -> dict[str, Any]:
        """What lets the app send its mails here."""
        return {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": self.server_address[1], "MAIL_USE_TLS": False}

    def __enter__(self) -> MailServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = True
        self.answers.set()
        self.shutdown()
        self.server_close()


class _Dialogue(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.server.answers.wait()
        if self.server.stopped:
            return
        self._say("220 mail")
        recipient = ""
        says = ANSWERS | self.server.says
        while line := self.rfile.readline().decode():
            verb = line[:4].upper().strip()
            if verb == "RCPT":
                recipient = re.sub(r".*<(.*)>.*", r"\1", line.strip())
            if not (said := says.get(verb, "250 ok").format(recipient=recipient.upper())):
                return
            self._say(said)
            if verb == "DATA":
                text = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
                if says["."].startswith("250"):
                    self.server.recipients.append(recipient)
                    self.server.texts.append(text)
                link = "".join(re.findall(r"https?://\S+", text)[:1])
                self._say(says["."].format(recipient=recipient.upper(), link=link))

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())
