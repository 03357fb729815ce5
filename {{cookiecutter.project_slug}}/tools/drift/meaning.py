"""What each security file protects. The report prints it beside a change of that file."""

from __future__ import annotations

import re

# The first matching pattern counts. The number is that of the mitigation whose row the report adds.
GUARDS: tuple[tuple[str, int | None, str], ...] = (
    (r"app/security/secret_key\.py", 1, "which keys are strong enough, and how they are rotated"),
    (r"app/security/csrf\.py", 2, "which requests need a token, and from which origins they may come"),
    (r"app/security/csp\.py", 3, "what a browser may load and run on these pages"),
    (r"app/security/cookies\.py", 4, "who can read the session cookie, and when the session ends"),
    (r"app/security/errors\.py", 5, "what a response reveals about an error, and what only the log does"),
    (r"app/security/headers\.py|app/relaxations\.py", 6, "https, HSTS, framing, and what browsers may guess"),
    (r"app/security/templating\.py", 7, "what is escaped, and where it is not"),
    (r"app/security/(?:rate_limits|backoff|.*counters|refusals|networks)\.py", 8, "how often anybody may try"),
    (r"app/security/(?:uploads|bodies)\.py|app/storage/.*", 9, "which files and sizes are accepted, and who gets them"),
    (r"app/security/(?:urls|outgoing)\.py", 10, "where redirects lead, which hosts are ours, and what is fetched"),
    (r"app/security/declarations\.py", None, "which views are exempt from a protection, and why"),
    (r"app/(?:security/.*|__init__\.py|breaker\.py)", None, "which mitigations are on, and what they rest on"),
    (r"app/(?:.*settings|paths|project)\.py|\.env\.example|\.flaskenv", None, "the defaults, and what is refused"),
    (r"app/(?:accounts/)?templates/.*", 7, "how the pages and mails print what people sent"),
    (r"app/accounts/.*|app/visitors\.py", None, "who is signed in, and how they prove it"),
    (r"app/(?:views/.*|static_files\.py|static/.*\.js)", None, "what each page accepts and runs, and from whom"),
    (r"app/(?:logs|access_log|redaction|events|metrics)\.py", 5, "what the log keeps, and what it leaves out"),
    (r"wsgi\.py|gunicorn\.conf\.py|deploy/nginx\.conf", None, "how the app is served in production"),
    (r"deploy/.*|\.dockerignore", None, "what runs in production, as whom, and what is in it"),
    (r"\.github/.*", None, "what every push has to pass"),
    (r"Makefile|pyproject\.toml", None, "what make test, lint and audit look at"),
    (r"requirements.*\.txt", None, "whose code is installed, pinned by hashes"),
    (r"\.gitignore|\.gitattributes", None, "what git never adds, secrets first"),
    (r"tools/audit/.*", None, "the audit itself: this change decides what its rows below are worth"),
    (r"tools/drift/.*", None, "this report itself"),
    (r"tests/test_(\d\d)_.*", None, "the attacks on a mitigation"),
    (r"tests/.*", None, "the attacks, and what they are built on"),
)


def guard(path: str) -> tuple[int | None, str] | None:
    """Return the number of the mitigation that a file belongs to, or None, and what it protects. None: nothing."""
    for pattern, number, line in GUARDS:
        if found := re.fullmatch(pattern, path):
            return int(found[1]) if found.groups() else number, line
    return None
