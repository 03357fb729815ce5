"""Runs mutations in the environment of a generated app: its killer and its audit, each in a process of its own.

``python run_mutants.py APP WORK`` reads a mutation as a line of JSON, and writes its result as a line of JSON. A line
may also name a folder and a module to run there (``{"folder": …, "run": [module, argument, …]}``); the result is the
exit code and the output. New processes are forked from one that has imported the packages already: an import takes
longer than most killers.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

KEY = "Pz4vN8yQm2RkT7wXc5bLh9sJd3fGa6eU"
PACKAGES = (
    "PIL.Image",
    "ada_url",
    "alembic.command",
    "email_validator",
    "flask_alembic",
    "flask_limiter",
    "flask_security",
    "flask_talisman",
    "flask_wtf",
    "html5lib",
    "limits.storage",
    "playwright.sync_api",
    "pydantic_settings",
    "pytest",
    "redis",
    "trustme",
)
LIMIT = 300  # seconds for one process, on a busy machine


def mutate(app: Path, work: Path, mutation: dict[str, Any]) -> Path:
    copy = Path(tempfile.mkdtemp(dir=work)) / "app"
    shutil.copytree(app, copy, ignore=shutil.ignore_patterns(".venv", "__pycache__", ".*_cache", ".env"))
    path = copy / mutation["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutation["before"]) != 1:
        raise ValueError(
            f"{mutation['name']}: its text is {text.count(mutation['before'])} times in {mutation['file']}"
        )
    path.write_text(text.replace(mutation["before"], mutation["after"]), encoding="utf-8")
    return copy


def run(copy: Path, arguments: list[str]) -> tuple[int, str]:
    """Run ``python -m`` with these arguments in the mutated app; give its exit code and output."""
    output = copy.parent / "output"
    process = multiprocessing.get_context("forkserver").Process(target=_child, args=(str(copy), arguments))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
    said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    return process.exitcode or 0, said


def _child(copy: str, arguments: list[str]) -> None:
    output = os.open(f"{Path(copy).parent}/output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(copy)
    os.environ |= {"SECRET_KEY": KEY, "UPLOAD_DIR": f"{copy}-uploads"}
    sys.dont_write_bytecode = True
    sys.argv = arguments
    sys.path[0] = copy
    try:
        runpy.run_module(arguments[0], run_name="__main__")
    except Exception:  # 1 would say that a test failed
        traceback.print_exc()
        sys.exit(70)


def examine(app: Path, work: Path, mutation: dict[str, Any]) -> dict[str, Any]:
    try:
        copy = mutate(app, work, mutation)
    except ValueError as misfit:  # one that does not fit its file must not stop the others
        return {"name": mutation["name"], "killer": -1, "said": str(misfit), "audit": -1, "report": ""}
    killer, said = run(copy, ["pytest", "-q", "-x", "-p", "no:cacheprovider", mutation["killer"]])
    only = ["--only", mutation["step"].partition(".")[0]] * mutation["only"]
    audited, report = run(copy, ["tools.audit", "--format", "json", *only])
    shutil.rmtree(copy.parent)
    return {"name": mutation["name"], "killer": killer, "said": said[-3000:], "audit": audited, "report": report}


def main() -> None:
    app, work = map(Path, sys.argv[1:])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in PACKAGES if importlib.util.find_spec(name.partition(".")[0])])
    for line in sys.stdin:
        asked = json.loads(line)
        answer = run(Path(asked["folder"]), asked["run"]) if "run" in asked else examine(app, work, asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
