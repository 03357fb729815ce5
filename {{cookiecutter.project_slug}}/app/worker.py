"""gunicorn's thread worker, shared fairly: nobody holds it by being slow (8.T2, 8.T4, 9.T4).

gunicorn waits without end for the rest of a request, so that as many slow senders as there are threads stop the app.
Here one client gets a share of the threads, and a request that is not over in time is cut.
"""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict, deque
from concurrent.futures import Future
from contextlib import suppress

from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.security.headers import CSP_OF_LAST_RESORT, HEADERS
from app.security.rate_limits import network

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 1024
WAITING_PER_CLIENT = 64  # connections; gunicorn itself takes 1000 in all


class FairWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """A client holds a quarter of the threads at most, and each for no longer than ``timeout`` seconds.

    Behind a proxy of ours all connections come from one client, and it is the proxy that waits for slow ones; there
    the time limit alone holds. All methods but ``handle`` run in the worker's main thread, so none needs a lock.
    """

    def init_process(self) -> None:
        """Start; gunicorn calls it after the fork."""
        self.busy: Counter[str] = Counter()  # client → threads that it holds
        self.waiting: defaultdict[str, deque[TConn]] = defaultdict(deque)  # client → its connections without a thread
        self.ends: dict[TConn, float] = {}  # connection that holds a thread → when it is cut
        util.write_error = _write_error
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection with a new request its thread, or let it wait until its client has one left."""
        client, proxied = _client(conn), self.wsgi.config["TRUSTED_PROXY_HOPS"] > 0
        if proxied or self.busy[client] < max(1, self.cfg.threads // 4):
            self.busy[client] += 1
            self.ends[conn] = time.monotonic() + self.cfg.timeout
            super().enqueue_req(conn)
        elif len(self.waiting[client]) < WAITING_PER_CLIENT:
            self.waiting[client].append(conn)
        else:
            self.nr_conns -= 1
            conn.close()

    def handle(self, conn: TConn) -> object:
        """Serve one request, in a thread; gunicorn keeps the connection when this gives anything true."""
        keep: object = super().handle(conn)
        if not keep:
            _linger(conn.sock)
        return keep

    def finish_request(self, conn: TConn, fs: Future[object]) -> None:
        """Take the thread back, and give it to the next connection of the same client."""
        client = _client(conn)
        self.busy[client] -= 1
        self.ends.pop(conn, None)
        super().finish_request(conn, fs)
        if self.waiting[client]:
            self.enqueue_req(self.waiting[client].popleft())
        elif not self.busy[client]:
            del self.busy[client], self.waiting[client]

    def murder_pending(self) -> None:
        """Cut what takes too long; gunicorn calls this once a second."""
        super().murder_pending()
        for conn, end in list(self.ends.items()):
            if time.monotonic() > end:
                # Of the plain socket: that of TLS would be taken away from under the thread that reads it.
                with suppress(OSError):
                    socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)


def _client(conn: TConn) -> str:
    return network(conn.client[0] if isinstance(conn.client, tuple) else "")


def _linger(sock: socket.socket) -> None:
    """Let the client take in its answer before the connection is cut (RFC 9112, 9.6).

    gunicorn would wait for that in the main thread: two connections a second that nobody hangs up stopped everybody.
    Here it is its own client's thread that waits.
    """
    end, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while left > 0 and (wait := end - time.monotonic()) > 0:
            sock.settimeout(wait)
            if not (received := len(sock.recv(4096))):
                break
            left -= received
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _write_error(sock: socket.socket, status: int, reason: str, _: str) -> None:
    """Answer what is not HTTP at all, and so never reaches the app: gunicorn's page would quote what it can't read."""
    body = f"{reason}\n"
    headers = HEADERS | {"Content-Security-Policy": CSP_OF_LAST_RESORT, "Content-Type": "text/plain; charset=utf-8"}
    headers |= {"Connection": "close", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
    util.write_nonblock(sock, "\r\n".join(lines).encode("latin1"))
