"""The app: its settings, then the ten mitigations, then the pages."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask

import app.views as views
from app import cli, logs
from app.audit.cli import command as audit_command
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
from app.settings import INSTANCE, load_settings


def create_app(config: Mapping[str, object] | None = None) -> Flask:
    """Make the app; ``config`` overrides the environment and ``.env``, nothing else does.

    Raises SettingsError, which names each wrong setting and its mend.
    """
    # The flask command gives no config. The audit, which it then runs, does, and gets the whole app.
    if config is None and cli.is_all_that_is_asked():
        return cli.app_without_pages()

    settings = load_settings(config)
    app = Flask(__name__, instance_path=str(INSTANCE))
    app.config.from_mapping(settings.model_dump())
    app.debug = settings.FLASK_DEBUG
    logs.init_app(app)

    # The order is that of the hooks which run before a request: whatever refuses one must come after
    # what makes the refusal safe (errors, headers) and counts it (rate limits).
    secret_key.init_app(app)
    errors.init_app(app)
    urls.init_app(app)
    headers.init_app(app)
    csp.init_app(app)
    rate_limits.init_app(app)
    csrf.init_app(app)
    cookies.init_app(app)
    templating.init_app(app)
    uploads.init_app(app)

    # % if cookiecutter.accounts
    from app import models
    from app.views import accounts

    models.init_app(app)
    accounts.init_app(app)

    # % endif
    views.init_app(app)
    app.cli.add_command(audit_command)
    return app
