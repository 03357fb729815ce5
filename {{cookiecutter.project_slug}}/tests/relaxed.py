"""The app with a view that another site may frame, for gunicorn: ``tests.relaxed:app``."""

from __future__ import annotations

from app.security.headers import relax
from app.visitors import public
from wsgi import app


@app.get("/tested-framed")
@public
@relax("a partner shows it", csp={"frame-ancestors": "https://partner.test"})
def framed() -> str:
    return "<!DOCTYPE html><title>Framed</title><p>framed"
