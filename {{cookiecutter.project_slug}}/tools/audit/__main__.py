"""``python -m tools.audit`` audits this app, or with ``--path FOLDER MODULE:APP_OR_FACTORY`` any other Flask app.

For an app that does not start, it prints one line, without a traceback, and exits with 2.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools import ctrl_c

if TYPE_CHECKING:
    from flask import Flask

HERE = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the audit, print its report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description="Show which mitigations work.")
    parser.add_argument("app", nargs="?", metavar="MODULE:APP_OR_FACTORY", help="audit this Flask app instead")
    parser.add_argument("--path", type=Path, help="the folder of that app (default: the current one)")
    parser.add_argument("--format", default="text", choices=("text", "json", "sarif", "html"))
    parser.add_argument("--strict", action="store_true", help="exit 1 also when something is relaxed")
    parser.add_argument("--only", type=int, default=0, choices=range(1, 11), metavar="N", help="audit one mitigation")
    options = parser.parse_args()
    if options.path and not options.app:
        parser.error("--path needs MODULE:APP_OR_FACTORY")
    ctrl_c.watch()
    gc.disable()  # a short program needs no garbage collection
    try:
        from app import create_app
        from tools.audit.report import FORMATS
        from tools.audit.run import audit_foreign, audit_own

        if options.app:
            report = audit_foreign(lambda folder: _load(options.app, folder), (options.path or Path()).resolve())
        else:
            report = audit_own(create_app, split=True, only=options.only)
    except KeyboardInterrupt:
        return ctrl_c.EXIT_CODE
    except SystemExit as stopped:
        return _could_not_run(f"the app stopped with {stopped.code}")
    except Exception as error:
        return _could_not_run(getattr(error, "message", None) or f"{type(error).__name__}: {error}")
    gc.freeze()  # else the interpreter would still collect garbage when it ends
    print(FORMATS[options.format](report))
    return report.exit_code(strict=options.strict)


def _could_not_run(reason: str) -> int:
    line = " ".join(reason.split())[:300]
    print("The audit could not run:", "".join(filter(str.isprintable, line)), file=sys.stderr)
    return 2


def _load(name: str, folder: Path) -> Flask:
    """Return another app. Its packages may have the same names as ours, so our modules must not shadow them."""
    from flask.cli import find_app_by_string, find_best_app

    for ours in [each for each in sys.modules if each.partition(".")[0] in ("app", "tests", "tools")]:
        del sys.modules[ours]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(HERE))]
    os.environ["FLASK_RUN_FROM_CLI"] = "true"  # makes a module's own app.run(), which would serve forever, do nothing
    module_name, _, attribute = name.partition(":")
    # Flask would show a traceback for a module that can't be imported.
    module = importlib.import_module(module_name)
    return find_app_by_string(module, attribute) if attribute else find_best_app(module)


if __name__ == "__main__":
    sys.exit(main())
