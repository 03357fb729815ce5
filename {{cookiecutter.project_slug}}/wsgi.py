"""The app for a production server: ``gunicorn wsgi:app``."""

from __future__ import annotations

import sys

from app import create_app
from app.security.findings import log_facts
from app.settings import SettingsError, misspelled
from app.views.health import ask_all

try:
    app = create_app()
except SettingsError as error:
    sys.exit(error.message)

if app.debug:
    sys.exit("FLASK_DEBUG: must not be set here, it disables protections. For development, use: make run")

for line in misspelled():
    app.logger.warning("%s", line)
log_facts(app)
with app.app_context():
    ask_all()  # what is down, or lacks a migration, is in the log before the first visitor meets it
