"""Mitigation 5, error handling: attacks that try to read something off a failure, or to cause one."""

from __future__ import annotations

from tests.conftest import KEY

# What the exceptions of these tests say: no visitor may read it, the log must.
INSIDE = "/srv/app/models.py: SELECT * FROM users"
STATUSES = (400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 502, 503)
LEAKS = ("traceback", "select *", "/srv/", "runtimeerror", ".py", "werkzeug", "site-packages", KEY.lower())
