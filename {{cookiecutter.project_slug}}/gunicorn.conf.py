"""How gunicorn serves the app. Environment variables: HOST, PORT, WEB_CONCURRENCY (workers), THREADS."""

import os

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"

# One worker while the rate limits' counters live in its memory: n workers would allow n times as much.
# Set RATELIMIT_STORAGE_URI to Redis before you raise it.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "gthread"
threads = int(os.environ.get("THREADS", "32"))
preload_app = True

# Seconds without a sign of life after which a worker is killed. A request may take longer: gthread gives its sign
# beside the threads. gunicorn waits without end for a slow client, so deploy/nginx.conf is what bounds those (8.T4).
timeout = 60
graceful_timeout = 30
keepalive = 5
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# The app itself decides what to believe of proxy headers (TRUSTED_PROXY_HOPS); gunicorn believes none.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True
accesslog = None
