"""Ctrl-C ends a tool, also where Python loses the exception.

It does so in callbacks, such as those of the import system, and prints "Exception ignored in …".
"""

from __future__ import annotations

import signal
import threading
from typing import NoReturn

# With ``python -m``, CPython ends by SIGINT itself if the exception has passed through exec() of a string. A shell
# shows the same number for both.
EXIT_CODE = 128 + signal.SIGINT

stopped = threading.Event()


def watch() -> None:
    """Remember a Ctrl-C in ``stopped``, and raise KeyboardInterrupt."""

    def stop(*_: object) -> NoReturn:
        stopped.set()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a script's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, stop)
