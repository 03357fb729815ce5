"""The pages: one blueprint per module."""

from __future__ import annotations

from flask import Flask

from app import project
from app.views import csp_reports, health, pages, redirects, security, uploads


def init_app(app: Flask) -> None:
    """Register the blueprints, and the template globals that every page uses."""
    app.jinja_env.globals.update(project_name=project.NAME, project_description=project.DESCRIPTION)
    for module in (pages, uploads, redirects, csp_reports, health, security):
        app.register_blueprint(module.bp)


# The contact of security.txt is a fact of the deployment: see findings.py.
check = pages.check
