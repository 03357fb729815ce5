"""What stands behind the app's code: the counters' storage and gunicorn's worker, driven as they are driven there."""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

from redis.exceptions import ConnectionError as NoRedis

from app.security.counters import BoundedCounters, GuardedStorage
from app.security.rate_limits import limiter
from tools.audit.subject import Subject

try:
    from gunicorn import util
    from gunicorn.workers.gthread import ThreadWorker

    from app.worker import FairWorker
except ImportError:  # on Windows gunicorn can't be imported, nor serve
    FairWorker = None  # type: ignore[assignment, misc]

MOST_KEYS = 1_000_000


def counters_hold(subject: Subject) -> Iterator[str]:
    """Lose Redis before and after it has counted, and ask for more keys than there is room for."""
    page = subject.page
    with subject.instead({"RATELIMIT_STORAGE_URI": "redis://127.0.0.1:1"}), subject.view(page.endpoint, lambda: ""):
        browser = subject.browser()
        answers = [browser.open(page.rule).status_code for _ in range(50)]
    if max(answers) >= 500:
        yield f"Without its Redis the app answers {max(answers)}."
    elif answers[-1] != 429:
        yield "Without its Redis the app counts nothing."
    storage = GuardedStorage(counters_uri="memory://")
    storage.shared = redis = mock.Mock()
    redis.get.side_effect = redis.incr.side_effect = [5]
    storage.incr("audit", 60)
    redis.incr.side_effect = NoRedis
    if storage.incr("audit", 60) != 6:
        yield "When Redis is lost, everybody gets a fresh budget."
    if not isinstance(limiter.storage, GuardedStorage) or limiter.storage.memory._max_keys > MOST_KEYS:
        yield "The counters may take any memory."
    few = BoundedCounters(10)
    few.incr("failures", 60, 9)
    for number in range(100):
        few.incr(f"flood {number}", 60)
    if few.get("failures") != 9:
        yield "A flood of keys washes failures away."


def _worker(subject: Subject) -> FairWorker:
    worker = FairWorker.__new__(FairWorker)
    worker.busy, worker.waiting, worker.ends = Counter(), defaultdict(deque), {}
    worker.wsgi, worker.cfg = subject.app, SimpleNamespace(threads=8, timeout=1)
    worker.nr_conns = 0
    return worker


def nobody_holds_all_threads(subject: Subject) -> Iterator[str]:
    """Let one client send more slow requests than there are threads, and one take too long."""
    if FairWorker is None:
        return
    if "app.worker.FairWorker" not in subject.text_of("gunicorn.conf.py"):
        yield "gunicorn runs with a worker that slow requests can stop."
        return
    worker = _worker(subject)
    with mock.patch.object(ThreadWorker, "enqueue_req") as given, mock.patch.object(ThreadWorker, "murder_pending"):
        for number in range(8):
            worker.enqueue_req(mock.Mock(client=("192.0.2.1", number)))
        if given.call_count > 4:
            yield f"One client's slow requests hold {given.call_count} of 8 threads."
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker.ends = {mock.Mock(sock=ours): time.monotonic() - 1}
            worker.murder_pending()
            theirs.settimeout(0.2)
            try:
                theirs.recv(1)
            except TimeoutError:
                yield "A request that takes too long is never cut."


def refuses_plainly(subject: Subject) -> Iterator[str]:
    """Start the worker, and let it answer what is not HTTP."""
    if FairWorker is None or "app.worker.FairWorker" not in subject.text_of("gunicorn.conf.py"):
        return
    with mock.patch.object(util, "write_error", util.write_error), mock.patch.object(ThreadWorker, "init_process"):
        _worker(subject).init_process()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            util.write_error(ours, 400, "Bad Request", "<b>what was sent</b>")
            ours.shutdown(socket.SHUT_WR)
            answer = theirs.recv(65536).decode("latin1")
    if "<b>" in answer or "X-Frame-Options: DENY" not in answer:
        yield "What is not HTTP gets gunicorn's own page, without headers."
