"""The home page, and what browsers and crawlers ask for by themselves: the icon, robots.txt and security.txt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from flask import Blueprint, Flask, Response, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from app.project import SECURITY_CONTACT
from app.security.findings import Finding
from app.visitors import public

bp = Blueprint("pages", __name__)

# Crawlers may read the home page and nothing else. Add a line for each other page that search engines should find, such
# as "Allow: /blog/". This hides nothing: anybody may read it, so it must not name what is not public.
ROBOTS_TXT = """\
User-agent: *
Allow: /$
Disallow: /
"""

SECURITY_TXT_LIFETIME = timedelta(days=180)


@bp.get("/")
@public
def home() -> str:
    """Show the home page. Replace it with your own: no test depends on its content."""
    return render_template("home.html")


@bp.get("/favicon.ico")
@public
def icon() -> ResponseReturnValue:
    """Redirect to the icon. Browsers ask for it here when they show something that is not one of our pages: a file."""
    return redirect(url_for("static", filename="icon.svg"))


@bp.get("/robots.txt")
@public
def robots_txt() -> Response:
    """Return what crawlers may read (RFC 9309)."""
    return Response(ROBOTS_TXT, content_type="text/plain; charset=utf-8")


def check(app: Flask) -> Iterator[Finding]:
    """Report a security contact that is still the placeholder."""
    if SECURITY_CONTACT.endswith("@example.com"):
        evidence = f"Vulnerability reports go to {SECURITY_CONTACT}, where nobody reads them."
        yield Finding("DP01", "note", evidence, "Set SECURITY_CONTACT in app/project.py, and edit SECURITY.md.")


@bp.get("/.well-known/security.txt")
@public
def security_txt() -> Response:
    """Return security.txt (RFC 9116). It expires in less than a year, so that an abandoned copy becomes invalid."""
    expires = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + SECURITY_TXT_LIFETIME
    lines = [
        f"Contact: {SECURITY_CONTACT}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        "Preferred-Languages: en",
        # RFC 9116, 2.5.2 requires https, even in debug, which serves this over http.
        f"Canonical: {url_for('pages.security_txt', _external=True, _scheme='https')}",
    ]
    return Response("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")
