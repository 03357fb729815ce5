"""The app with views that load from another site, for gunicorn: ``tests.relaxed:app``. ELSEWHERE is its origin."""

from __future__ import annotations

import os

from app.security.headers import relax
from wsgi import app

ELSEWHERE = os.environ.get("ELSEWHERE", "https://partner.test")


@app.get("/framed")
@relax("a partner shows it", csp={"frame-ancestors": ELSEWHERE})
def framed() -> str:
    return "<!DOCTYPE html><title>Framed</title><p>framed"
