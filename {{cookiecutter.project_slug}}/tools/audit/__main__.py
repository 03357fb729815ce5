"""``python -m tools.audit`` audits this app, with ``--path FOLDER MODULE:APP_OR_FACTORY`` any other Flask app.

It shows no traceback: an app that does not come up is one line and exit 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

HERE = Path(__file__).resolve().parents[2]


def main() -> int:
    """Audit, print, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="Say what is implemented, and what not.")
    parser.add_argument("app", nargs="?", metavar="MODULE:APP_OR_FACTORY", help="another Flask app than this one")
    parser.add_argument("--path", type=Path, help="the folder of that app (default: the current one)")
    parser.add_argument("--format", default="text", choices=("text", "json", "sarif", "html"))
    parser.add_argument("--strict", action="store_true", help="exit 1 also when something is relaxed")
    options = parser.parse_args()
    if options.path and not options.app:
        parser.error("--path needs MODULE:APP_OR_FACTORY")
    try:
        from app import create_app
        from tools.audit.report import FORMATS
        from tools.audit.run import audit_foreign, audit_own, stop_on_ctrl_c

        stop_on_ctrl_c()
        if options.app:
            report = audit_foreign(lambda folder: _load(options.app, folder), (options.path or Path()).resolve())
        else:
            report = audit_own(create_app, split=True)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stopped:
        return _could_not_run(f"the app stopped with {stopped.code}")
    except Exception as error:
        return _could_not_run(getattr(error, "message", None) or f"{type(error).__name__}: {error}")
    print(FORMATS[options.format](report))
    return report.exit_code(strict=options.strict)


def _could_not_run(reason: str) -> int:
    line = " ".join(reason.split())[:300]
    print("The audit could not run:", "".join(filter(str.isprintable, line)), file=sys.stderr)
    return 2


def _load(name: str, folder: Path) -> Flask:
    """Import another app. Many have packages of the same names, so the modules of this one must not be in the way."""
    from flask.cli import find_app_by_string, find_best_app

    for ours in [each for each in sys.modules if each.partition(".")[0] in ("app", "tests", "tools")]:
        del sys.modules[ours]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(HERE))]
    os.environ["FLASK_RUN_FROM_CLI"] = "true"  # a module's own app.run() would serve for ever; now it does nothing
    module_name, _, attribute = name.partition(":")
    # Flask would show the traceback of a module that can't be imported.
    module = importlib.import_module(module_name)
    return find_app_by_string(module, attribute) if attribute else find_best_app(module)


if __name__ == "__main__":
    sys.exit(main())
