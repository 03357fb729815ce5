"""Redirects to other sites, via a page that shows the target."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from app.security.errors import refuse
from app.security.urls import UNKNOWN_PLACE, redirect_to, safe_redirect_target
from app.visitors import public

bp = Blueprint("redirects", __name__)


@bp.get("/redirect")
@public
def leave() -> ResponseReturnValue:
    """Redirect to ``next`` within this site; show a page before an allowed site; refuse all else (400)."""
    target = safe_redirect_target(request.args.get("next"))
    if target is None:
        refuse(400, UNKNOWN_PLACE, target=request.args.get("next"))
    if target.startswith("/"):
        return redirect_to(target, "pages.home")
    # The host in ASCII: look-alike letters of other scripts show as xn--….
    return render_template("leaving.html", target=target, host=urlsplit(target).hostname)
