"""A relay to a server on loopback. It can delay the answers and break the connections."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time


class Relay:
    """Each answer takes ``seconds`` longer; ``answers`` counts them, and ``answered`` their bytes.

    After ``left`` bytes to the server, all breaks.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port, self.seconds, self.left = server_port, 0.0, sys.maxsize
        self.answers = self.answered = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.left <= 0:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.server_port))
            threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with source, target, contextlib.suppress(OSError):
            while self.left > 0 and (data := source.recv(4096)):
                if answers:
                    self.answers += 1
                    self.answered += len(data)
                    time.sleep(self.seconds)
                    target.sendall(data)
                else:
                    target.sendall(data[: self.left])
                    self.left -= len(data)
            for end in (source, target):  # this also ends the wait of the other thread
                end.shutdown(socket.SHUT_RDWR)
