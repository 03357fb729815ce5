"""The ten mitigations, a module each, in the order of the README's table."""

from __future__ import annotations

from app.security import (
    cookies,
    csp,
    csrf,
    errors,
    headers,
    rate_limits,
    secret_key,
    templating,
    uploads,
    urls,
)

MITIGATIONS = (secret_key, csrf, csp, cookies, errors, headers, templating, rate_limits, uploads, urls)
