"""What each security file guards: the line that the report says beside a change of it."""

from __future__ import annotations

import re

# The first pattern that matches counts. The number is the mitigation's, whose row of the audit is told besides.
GUARDS: tuple[tuple[str, int | None, str], ...] = (
    (r"app/security/secret_key\.py", 1, "which keys are good enough, and how they are rotated"),
    (r"app/security/csrf\.py", 2, "which requests need a token, and from which origins they may come"),
    (r"app/security/csp\.py", 3, "what a browser may load and run on these pages"),
    (r"app/security/cookies\.py", 4, "who can read the session's cookie, and when the session ends"),
    (r"app/security/errors\.py", 5, "what an answer tells about a fault, and what only the log does"),
    (r"app/security/headers\.py", 6, "https, HSTS, framing, and what browsers may guess"),
    (r"app/security/templating\.py", 7, "what is escaped, and where it is not"),
    (r"app/security/rate_limits\.py|app/counters\.py", 8, "how often anybody may try"),
    (r"app/security/uploads\.py|app/storage/.*", 9, "what is taken as a file, where it is kept, who gets it back"),
    (r"app/security/urls\.py", 10, "where redirects lead, which hosts are ours, what the server fetches"),
    (r"app/security/.*|app/__init__\.py", None, "which mitigations are on, and in which order"),
    (r"app/settings\.py|\.env\.example|\.flaskenv", None, "the defaults, and which values stop the start"),
    (r"app/(?:identity|credentials|models|mail)\.py", None, "who is signed in, and how they prove it"),
    (r"app/views/.*", None, "what each page takes, and to whom it answers"),
    (r"app/templates/.*", 7, "what the pages print of what people sent"),
    (r"app/logs\.py", 5, "what the log keeps, and what it leaves out"),
    (r"wsgi\.py|gunicorn\.conf\.py|deploy/nginx\.conf", None, "how it is served: no debug, no client that holds it up"),
    (r"deploy/.*|\.dockerignore", None, "what runs in production, as whom, and what is in the image"),
    (r"\.github/.*", None, "what every push has to pass"),
    (r"Makefile|pyproject\.toml", None, "what make test, lint and audit look at"),
    (r"requirements.*\.txt", None, "whose code is installed, pinned by hashes"),
    (r"\.gitignore|\.gitattributes", None, "what git never takes, secrets first"),
    (r"tools/audit/.*", None, "the audit itself: its rows below are worth what this change leaves of them"),
    (r"drift/.*", None, "this report itself"),
    (r"tests/test_(\d\d)_.*", None, "the attacks on a mitigation"),
    (r"tests/.*", None, "the attacks, and what they stand on"),
)


def guard(path: str) -> tuple[int | None, str] | None:
    """Give the number of the mitigation that a file belongs to, if it is one, and what it guards; ``None``: nothing."""
    for pattern, number, line in GUARDS:
        if found := re.fullmatch(pattern, path):
            return int(found[1]) if found.groups() else number, line
    return None
