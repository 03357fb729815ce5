"""The surroundings of the app's code: the counters' storage, and the configuration of gunicorn and its proxy."""

from __future__ import annotations

import re
import runpy
import time
from collections import defaultdict
from collections.abc import Iterator
from unittest import mock

from redis.exceptions import ConnectionError as NoRedis

from app.security import refusals
from app.security.counters import BoundedCounters, GuardedStorage
from app.security.rate_limits import limiter
from tools.audit.steps import Relaxed
from tools.audit.subject import Subject

PROXY = "deploy/nginx.conf"
OWN_HEADERS = ("X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Strict-Transport-Security")
MOST_SECONDS = 60  # the default of nginx
MOST_KEYS = 1_000_000


def counters_hold(subject: Subject) -> Iterator[str]:
    """Make Redis fail before and after it has counted, and use more keys than fit into the memory."""
    page = subject.page
    with subject.instead({"RATELIMIT_STORAGE_URI": "redis://127.0.0.1:1"}), subject.view(page.endpoint, lambda: ""):
        browser = subject.browser()
        answers = [browser.open(page.rule).status_code for _ in range(50)]
    if max(answers) >= 500:
        yield f"Without its Redis the app answers {max(answers)}."
    elif answers[-1] != 429:
        yield "Without its Redis the app counts nothing."
    storage = GuardedStorage(counters_uri="memory://")
    storage.shared = redis = mock.Mock(base_exceptions=(NoRedis,))
    redis.get.side_effect, redis.count.side_effect = [5], [(5, 60.0)]
    storage.incr("audit", 60)
    redis.count.side_effect = NoRedis
    if storage.incr("audit", 60) != 6:
        yield "When Redis is lost, every client gets a fresh budget."
    kept = refusals.Refusals()
    with mock.patch.object(refusals, "MAX_REFUSALS", 10):
        for number in range(100):
            kept.add(f"network {number}", "audit", None, refusals.Refused(1, time.time() + 60, ""))
    most = storage.pages._max_keys + storage.guesses._max_keys
    if not isinstance(limiter.storage, GuardedStorage) or most > MOST_KEYS or len(kept) > 10:
        yield "The memory of the counters is not limited."
    few = BoundedCounters(10)
    few.incr("failures", 60, 9)
    for number in range(100):
        few.incr(f"flood {number}", 60)
    if few.get("failures") != 9:
        yield "A flood of keys erases failures."


def slow_clients_hold_no_thread(subject: Subject) -> Iterator[str]:
    """Check how gunicorn is started, and how the proxy in front of it treats slow clients."""
    gunicorn = runpy.run_path(str(subject.package.parent / "gunicorn.conf.py"))
    if gunicorn.get("worker_class") != "gthread" or gunicorn.get("threads", 1) < 2:
        yield "gunicorn does not use its threaded worker (gthread) with several threads."
    proxy = _directives(subject)
    if not proxy:
        yield Relaxed(f"There is no {PROXY}: no probe can test whether the proxy buffers requests.")
        return
    for name, what in (("proxy_request_buffering", "sends its request"), ("proxy_buffering", "reads the response")):
        if "off" in proxy[name]:
            yield f"{PROXY}: with {name} off, a client that {what} slowly occupies a thread."
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        if not proxy[name] or not all(0 < _seconds(value) <= MOST_SECONDS for value in proxy[name]):
            yield f"{PROXY}: {name} does not disconnect a slow client within {MOST_SECONDS} seconds."
    if not proxy["limit_conn"]:
        yield f"{PROXY}: the number of concurrent requests per client is not limited (limit_conn)."


def proxy_bounds_bodies(subject: Subject) -> Iterator[str]:
    """Check how large a body the proxy accepts."""
    if any(re.fullmatch("0[kmg]?", value) for value in _directives(subject)["client_max_body_size"]):
        yield f"{PROXY}: with client_max_body_size 0, a body may fill the disk."


def proxy_overwrites(subject: Subject, header: str, *values: str) -> Iterator[str]:
    """Check that the proxy sets a header, which the app trusts, to one of these values."""
    if proxy := _directives(subject):
        set_to = [value.split()[1:] for value in proxy["proxy_set_header"] if value.split()[0] == header]
        if not set_to or not all(value in [[each] for each in values] for value in set_to):
            yield f"{PROXY}: {header} is not set to {' or '.join(values)}, so a client can forge it."


def proxy_refuses_plainly(subject: Subject) -> Iterator[str]:
    """Check the headers of the proxy's own responses."""
    if not (proxy := _directives(subject)):
        return
    always = [value.split()[0] for value in proxy["add_header"] if value.endswith(" always")]
    if missing := [name for name in OWN_HEADERS if name not in always]:
        yield f"{PROXY}: nginx's own responses lack {', '.join(missing)}."
    if proxy["server_tokens"] != ["off"]:
        yield f"{PROXY}: nginx reveals its version (server_tokens)."


def _directives(subject: Subject) -> defaultdict[str, list[str]]:
    """Return all values of each directive in the proxy's configuration, at any level; none without a file."""
    text = re.sub(r"(?m)(^|\s)#.*", "", subject.text_of(PROXY))
    text = re.sub(r'"[^"]*"', '""', text)  # strings are not examined, and may contain the end of a directive
    found: defaultdict[str, list[str]] = defaultdict(list)
    for directive in re.findall(r"[^\s;{}][^;{}]*(?=;)", text):
        name, *values = directive.split()
        found[name].append(" ".join(values))
    return found


def _seconds(value: str) -> float:
    number = re.fullmatch(r"(\d+)(ms|s|m|h|d)?", value)
    return int(number[1]) * {"ms": 0.001, "m": 60, "h": 3600, "d": 86400}.get(number[2], 1) if number else 0
