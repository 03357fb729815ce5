"""``make slow-clients`` prints how long a page takes while other clients send half of a request (8.T4).

It judges nothing and is no part of the tests: machines differ, and gunicorn alone is expected to fail. The tests are
in test_08_rate_limits.py.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.conftest import Server
from tests.test_08_rate_limits import SLOW_BODY, SLOW_HEAD, UNLIMITED, ask

PATIENCE = 10  # seconds, of the client that wants a page
PAGES = 20
NUMBERS = (0, 32, 200)


def slow_connection(server: Server, number: int, part: bytes) -> ssl.SSLSocket:
    """Send half of a request, from one of twenty addresses. A busy server may not get as far as the handshake."""
    source = (f"127.0.0.{10 + number % 20}", 0)
    plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE, source_address=source)
    plain.settimeout(1)
    connection = server.tls.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
    with suppress(OSError):
        connection.do_handshake()
        connection.sendall(part)
    return connection


def pages_of_another_client(server: Server) -> str:
    """Request a page several times; give the seconds that it took."""
    taken = []
    for _ in range(PAGES):
        begin = time.monotonic()
        try:
            assert ask(server, "/", "127.0.0.3") == 200
        except OSError:
            return f"none within {PATIENCE} s"
        taken.append(time.monotonic() - begin)
    return f"{statistics.median(taken):.3f} s (at most {max(taken):.3f})"


def test_how_long_a_page_takes(
    serve: Callable[..., Server], serve_proxied: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"| server | half-sent | {' | '.join(f'{number} slow connections' for number in NUMBERS)} |",
        f"|---|---|{'---|' * len(NUMBERS)}",
    ]
    for name, start in {"nginx and gunicorn": serve_proxied, "gunicorn alone": serve}.items():
        for half, part in {"heads": SLOW_HEAD, "bodies": SLOW_BODY}.items():
            server = start(RATELIMIT_DEFAULT=UNLIMITED)
            cells: list[str] = []
            with ExitStack() as stack, ThreadPoolExecutor(50) as pool:
                opened = 0
                for number in NUMBERS:
                    sending = [pool.submit(slow_connection, server, each, part) for each in range(opened, number)]
                    for each in sending:
                        stack.enter_context(each.result())
                    opened = number
                    cells.append(pages_of_another_client(server))
            lines.append(f"| {name} | {half} | {' | '.join(cells)} |")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
