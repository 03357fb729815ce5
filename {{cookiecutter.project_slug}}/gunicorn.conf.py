"""How gunicorn serves the app. Environment variables: HOST, PORT, WEB_CONCURRENCY (workers), THREADS.

``gunicorn wsgi:app`` reads this file. ``python gunicorn.conf.py wsgi:app`` also starts gunicorn, but reports a wrong
WEB_CONCURRENCY in one line: gunicorn itself reads that variable before any file, and ends with a traceback.
"""

import os
import secrets
import shutil
import sys
import tempfile
from typing import Any

import gunicorn


def number(name: str, default: int, most: int) -> int:
    """Return the value of an environment variable. A wrong value stops the start with one line."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) <= most:
        sys.exit(f"{name}={text}: it must be a number from 1 to {most}. Example: {name}={default}")
    return int(text)


if os.environ.get("SCRIPT_NAME"):
    sys.exit("SCRIPT_NAME: the app can't be below a path. Give it a host of its own, such as app.example.com")

# gunicorn has no setting for the header "Server", and a header of the app would be a second one. It reads this public
# constant when it loads its worker, after this file. A name is required (RFC 9110, 10.2.4); this one tells nothing.
# Behind nginx, visitors see nginx's own, without a version (server_tokens off).
gunicorn.SERVER = "web"

bind = f"{os.environ.get('HOST') or '127.0.0.1'}:{number('PORT', 8000, 65535)}"

# One worker, because memory:// counters are per process: n workers would allow n times the rate limits.
# Set RATELIMIT_STORAGE_URI to a Redis before you raise this.
workers = number("WEB_CONCURRENCY", 1, 1000)
worker_class = "gthread"
# How many threads may wait: 11 for images (of all workers together, see app/storage/images.py), and of each worker 12
# for PostgreSQL (DATABASE_POOL_SIZE), 8 for ClamAV and 8 for a bucket. 32 are enough for any three of them. If you use
# all four, set 40, so that pages that need none of them are always served.
threads = number("THREADS", 32, 1000)
preload_app = True  # faulty settings stop the start once, not each worker; see on_reload

# Seconds without a heartbeat after which a worker is killed. A request may take longer, because gthread sends the
# heartbeat from its main thread. gunicorn has no timeout for slow clients: deploy/nginx.conf has them (8.T4).
timeout = 60
graceful_timeout = 30
keepalive = 5
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# gunicorn trusts no proxy header: the app decides which to trust (TRUSTED_PROXY_HOPS).
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True
accesslog = None


def post_request(_worker: Any, _request: Any, _environ: Any, _response: Any) -> None:
    """End the request's id: what gunicorn logs later in this thread is about another request."""
    sys.modules["app.logs"].request_id.set("-")


def pre_fork(server: Any, worker: Any) -> None:
    """Give a new worker a number that no living one has, and a folder in which all share metrics (METRICS_TOKEN).

    HUP keeps the folder. After an upgrade, HUP may load this file into a gunicorn that has made no folder, and whose
    workers have no number.
    """
    if not hasattr(server, "metrics"):
        server.metrics = f"{tempfile.gettempdir()}/metrics-{os.getpid()}-{secrets.token_hex(16)}"
    worker.number = min(set(range(10_000)) - {getattr(other, "number", None) for other in server.WORKERS.values()})


def post_fork(server: Any, worker: Any) -> None:
    """Let a new worker share its metrics, if there are any."""
    if "app.metrics" in sys.modules:
        sys.modules["app.metrics"].share(server.metrics, worker.number)


def on_exit(server: Any) -> None:
    """Remove the shared metrics."""
    shutil.rmtree(server.metrics, ignore_errors=True)


def on_reload(server: Any) -> None:
    """Load the app and its settings again (HUP). If this fails, log why and keep the old ones.

    New environment variables and new packages need a restart.
    """
    old = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in ("app", "wsgi")}
    app, server.app.callable = server.app.callable, None
    try:
        server.app.wsgi()
    except (Exception, SystemExit) as error:
        sys.modules.update(old)
        server.app.callable = app
        old["app.logs"].init_app(app)  # gunicorn has set up its own log again
        server.log.error("HUP changed nothing, the app can't be loaded: %s", error)


if __name__ == "__main__":
    os.environ["WEB_CONCURRENCY"] = str(workers)  # gunicorn can't read an empty value
    from gunicorn.app.wsgiapp import run

    run()
