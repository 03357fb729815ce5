"""The application factory: it loads the settings, then sets up each part in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app(config: Mapping[str, object] | None = None) -> Flask:
    """Return a new app. Settings in ``config`` override the environment and ``.env``.

    This has no side effects: it creates no file, folder or database, and opens no connection. Several apps in
    one process share the counts of the newest, because Flask-Limiter has one object for all of them.
    Raises SettingsError, which names each invalid setting and its fix.
    """
    # Imported here, so that ``python -m app.security.secret_key`` can generate a key without loading the app.
    from flask import Flask

    from app import (
        access_log,
        accounts,  # % if cookiecutter.accounts
        logs,
        paths,
        static_files,
        views,
        visitors,
    )
    from app.security import (
        bodies,
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
    from app.settings import load_settings

    settings = load_settings(config)
    app = Flask(__name__, instance_path=str(paths.INSTANCE))
    app.config.from_mapping(settings.model_dump())
    app.debug = settings.FLASK_DEBUG

    # Each part registers before_request hooks, which run in this order. Two rules determine it: csp comes before all
    # that refuse a request, since the error page needs its nonce; rate_limits comes next, before all others that refuse
    # a request or do work for it, so that every request counts, and one over the limit costs least.
    app.extensions["parts"] = (
        logs,
        visitors,
        csp,
        rate_limits,
        secret_key,
        errors,
        urls,
        headers,
        csrf,
        cookies,
        templating,
        bodies,
        uploads,
        accounts,  # % if cookiecutter.accounts
        views,
        static_files,
        access_log,
    )
    for part in app.extensions["parts"]:
        part.init_app(app)
    return app
