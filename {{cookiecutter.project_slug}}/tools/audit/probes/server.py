"""What stands around the app's code: the counters' storage, and the configuration of gunicorn and its proxy."""

from __future__ import annotations

import re
import runpy
from collections import defaultdict
from collections.abc import Iterator
from unittest import mock

from redis.exceptions import ConnectionError as NoRedis

from app.security.counters import BoundedCounters, GuardedStorage
from app.security.rate_limits import limiter
from tools.audit.steps import Relaxed
from tools.audit.subject import Subject

PROXY = "deploy/nginx.conf"
OWN_HEADERS = ("X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Strict-Transport-Security")
MOST_SECONDS = 60  # what nginx waits for unless told otherwise
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


def slow_clients_hold_no_thread(subject: Subject) -> Iterator[str]:
    """Read how gunicorn is started, and what the proxy before it does with slow clients."""
    gunicorn = runpy.run_path(str(subject.project / "gunicorn.conf.py"))
    if gunicorn.get("worker_class") != "gthread" or gunicorn.get("threads", 1) < 2:
        yield "gunicorn does not run with several threads of its own worker (gthread)."
    proxy = _directives(subject)
    if not proxy:
        yield Relaxed(f"There is no {PROXY}: nothing shows that the proxy takes in whole requests.")
        return
    for name, what in (("proxy_request_buffering", "sends its request"), ("proxy_buffering", "reads its answer")):
        if "off" in proxy[name]:
            yield f"{PROXY}: with {name} off, a client that {what} slowly holds a thread."
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        if not proxy[name] or not all(0 < _seconds(value) <= MOST_SECONDS for value in proxy[name]):
            yield f"{PROXY}: {name} does not cut a slow client within {MOST_SECONDS} seconds."
    if not proxy["limit_conn"]:
        yield f"{PROXY}: one client may have any number of requests under way (limit_conn)."


def proxy_bounds_bodies(subject: Subject) -> Iterator[str]:
    """Read how large a body the proxy takes in."""
    if any(re.fullmatch("0[kmg]?", value) for value in _directives(subject)["client_max_body_size"]):
        yield f"{PROXY}: with client_max_body_size 0, a body may fill the disk."


def proxy_overwrites(subject: Subject, header: str, *values: str) -> Iterator[str]:
    """Read whether the proxy gives a header one of these values of its own, which the app then believes."""
    if proxy := _directives(subject):
        set_to = [value.split()[1:] for value in proxy["proxy_set_header"] if value.split()[0] == header]
        if not set_to or not all(value in [[each] for each in values] for value in set_to):
            yield f"{PROXY}: {header} is not set to {' or '.join(values)}, so a client may make it up."


def proxy_refuses_plainly(subject: Subject) -> Iterator[str]:
    """Read what comes with the proxy's own answers."""
    if not (proxy := _directives(subject)):
        return
    always = [value.split()[0] for value in proxy["add_header"] if value.endswith(" always")]
    if missing := [name for name in OWN_HEADERS if name not in always]:
        yield f"{PROXY}: nginx's own answers lack {', '.join(missing)}."
    if proxy["server_tokens"] != ["off"]:
        yield f"{PROXY}: nginx tells its version (server_tokens)."


def _directives(subject: Subject) -> defaultdict[str, list[str]]:
    """Give all values of each directive of the proxy's configuration, wherever it stands; none without a file."""
    text = re.sub(r"(?m)(^|\s)#.*", "", subject.text_of(PROXY))
    text = re.sub(r'"[^"]*"', '""', text)  # which may hold what ends a directive, and are not looked at
    found: defaultdict[str, list[str]] = defaultdict(list)
    for directive in re.findall(r"[^\s;{}][^;{}]*(?=;)", text):
        name, *values = directive.split()
        found[name].append(" ".join(values))
    return found


def _seconds(value: str) -> float:
    number = re.fullmatch(r"(\d+)(ms|s|m|h|d)?", value)
    return int(number[1]) * {"ms": 0.001, "m": 60, "h": 3600, "d": 86400}.get(number[2], 1) if number else 0
