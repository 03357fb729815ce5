"""Metrics for Prometheus, with ``METRICS_TOKEN``: the requests by route, and the security events.

Each label is a name in the code: a route, a method of HTTP, a status, an event. Clients can't add any, so they can
neither fill the memory nor write something into a metric (5.S3).

Each worker of gunicorn counts in two files of one folder. A new worker takes over those of a dead one. So no number
decreases while gunicorn runs, and no worker leaves files behind.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import prometheus_client as prometheus
from flask import Response
from prometheus_client import multiprocess, values

# Bytes of each file, more than all labels need. They are allocated at once: if a page of a mapped file can't be
# allocated later, the system kills the worker.
SIZE = 2**20

_registry = prometheus.CollectorRegistry()

requests = prometheus.Counter("http_requests", "Requests.", ("method", "route", "status"), registry=_registry)
# The time until the response is ready. A WebSocket has none: its status is 0.
duration = prometheus.Histogram("http_request_duration_seconds", "Seconds.", ("method", "route"), registry=_registry)
events = prometheus.Counter("security_events", "Security events.", ("event",), registry=_registry)


def count(*, method: str, route: str, status: int, duration_ms: float, **_: object) -> None:
    """Count a request. The arguments are the fields of its line in the access log."""
    requests.labels(method, route, status).inc()
    if status:
        duration.labels(method, route).observe(duration_ms / 1000)


def share(folder: str, number: int) -> None:
    """Count in files of ``folder`` that all workers share. No other process may have the same ``number``.

    gunicorn.conf.py calls this in each new worker. If it fails, the worker serves all else, and no metrics.
    """
    global _registry
    _registry = prometheus.CollectorRegistry()
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        for file in (Path(folder, f"{kind}_{number}.db") for kind in ("counter", "histogram")):
            if not file.exists():  # all workers read it, and fail if it is empty
                (new := file.with_suffix(".new")).write_bytes(bytes(SIZE))
                new.rename(file)
    except OSError:
        logging.getLogger(__name__).exception("no metrics of this worker: they can't be stored in %s", folder)
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # MultiProcessValue reads it
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    multiprocess.MultiProcessCollector(_registry, folder)  # type: ignore[no-untyped-call]


def response() -> Response:
    """Return the metrics of all workers."""
    return Response(prometheus.generate_latest(_registry), content_type=prometheus.CONTENT_TYPE_LATEST)
