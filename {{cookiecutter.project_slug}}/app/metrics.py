"""Metrics for Prometheus, with ``METRICS_TOKEN``: the requests by route, and the security events.

Each label is a name in the code: a route, a method of HTTP, a status, an event. Clients can't add any, so they can
neither fill the memory nor write something into a metric (5.S3).

The workers of gunicorn count in files of one folder. A new worker takes over the files of a dead one. So no number
decreases while gunicorn runs, and there are never more files than workers.
"""

from __future__ import annotations

import logging
import os

import prometheus_client as prometheus
from flask import Response
from prometheus_client import values
from prometheus_client.multiprocess import MultiProcessCollector

from app.security.errors import refuse

# Bytes of each file, more than all labels need. They are allocated at once: if a page of a mapped file can't be
# allocated later, the system kills the worker.
SIZE = 512 * 1024

log = logging.getLogger(__name__)

prometheus.disable_created_metrics()  # type: ignore[no-untyped-call] # several workers have none
_registry: prometheus.CollectorRegistry | None = prometheus.CollectorRegistry()

requests = prometheus.Counter("http_requests", "Requests.", ("method", "route", "status"), registry=_registry)
duration = prometheus.Histogram(
    "http_request_duration_seconds", "Seconds until the response begins.", ("method", "route"), registry=_registry
)
events = prometheus.Counter("security_events", "Security events.", ("event",), registry=_registry)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request. ``method`` and ``route`` must not be what the client wrote."""
    requests.labels(method, route, str(status)).inc()
    duration.labels(method, route).observe(seconds)


def share(folder: str, number: int) -> None:
    """Count in files of ``folder`` that all workers share. No other process may have the same ``number``.

    gunicorn.conf.py calls this in each new worker. If there is no room, the worker serves all but its metrics.
    """
    global _registry
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        for kind in ("counter", "histogram"):
            with open(f"{folder}/{kind}_{number}.db", "ab") as file:
                file.write(bytes(max(0, SIZE - file.tell())))
    except OSError:
        log.exception("no metrics of this worker: they can't be stored in %s", folder)
        _registry = None
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # MultiProcessValue reads it
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    _registry = prometheus.CollectorRegistry()
    MultiProcessCollector(_registry, folder)  # type: ignore[no-untyped-call]


def response() -> Response:
    """Return the metrics of all workers. Raises Refusal (503) if this worker could not share its own."""
    if _registry is None:
        refuse(503, "This process can't share its metrics. Its log says why.")
    return Response(prometheus.generate_latest(_registry), content_type=prometheus.CONTENT_TYPE_LATEST)
