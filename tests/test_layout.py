"""What may depend on what: app/ serves, without tools/ and tests/, and no module of it needs another to come first."""

from __future__ import annotations

import ast
import graphlib
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import LONG, App, Cookiecutter, outside

SOURCE = Path(__file__).resolve().parent.parent / APP


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


# A migration is loaded by its path, and has no name to import it by.
MODULES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.glob("app/**/*.py"))
    if path.stem.isidentifier()
}


def imported(node: ast.AST, *, submodules: bool) -> list[str]:
    """The modules that an import names; with ``submodules``, ``from app import x`` names ``app.x`` if that is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports are not followed here"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if submodules and name in MODULES else str(node.module) for name in names]
    return []


def test_the_app_imports_no_tool_and_no_test(template: Path) -> None:
    served = [*(template / APP).glob("app/**/*.py"), template / APP / "wsgi.py", template / APP / "gunicorn.conf.py"]
    assert len(served) > 40
    wrong = [
        f"{path.relative_to(template / APP)}:{node.lineno}"
        for path in served
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node, submodules=False)
        if name.split(".")[0] in ("tools", "tests")
    ]
    assert wrong == []


def test_no_modules_of_the_app_depend_on_each_other() -> None:
    """Imports in functions and for type checkers count too: they hide a cycle and do not break it."""
    graph = {
        module: {name for node in ast.walk(tree) for name in imported(node, submodules=True) if name in MODULES}
        - {module}
        for module, tree in MODULES.items()
    }
    assert sum(map(len, graph.values())) > 50
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_drift_says_of_each_module_of_the_app_what_it_protects(template: Path) -> None:
    guard = runpy.run_path(str(template / APP / "tools/drift/meaning.py"))["guard"]
    files = [path.relative_to(template / APP).as_posix() for path in (template / APP / "app").rglob("*.py")]
    assert [name for name in files if not guard(name)] == []


def test_each_module_of_the_app_can_be_imported_first(default_app: App) -> None:
    """In one process, which forgets the app before each; what the packages need is imported once."""
    program = (
        "import importlib, sys\n"
        "for first in sys.argv[1:]:\n"
        "    for name in [name for name in sys.modules if name.partition('.')[0] == 'app']:\n"
        "        del sys.modules[name]\n"
        "    try: importlib.import_module(first)\n"
        "    except ImportError as error: print(first, error)"
    )
    command = [default_app.folder / ".venv/bin/python", "-c", program, *MODULES]
    ended = subprocess.run(command, cwd=default_app.folder, env=outside(), capture_output=True, encoding="utf-8")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_image_holds_no_tool_and_no_test(template: Path) -> None:
    """The build sees nothing but what is named here, so that no COPY could bring more."""
    lines = (template / APP / ".dockerignore").read_text().splitlines()
    first, *rest = [line for line in lines if not line.startswith("#")]
    assert first == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == {
        "app",
        "gunicorn.conf.py",
        "requirements.txt",
        "requirements-s3.txt",
        "wsgi.py",
    }


@pytest.mark.parametrize(
    "command",
    [("-c", "from app import create_app; create_app()"), ("-m", "pytest", "--collect-only", "--quiet")],
    ids=["starts", "collects its tests"],
)
def test_without_its_tools_an_app(default_app: App, cookiecutter: Cookiecutter, command: tuple[str, ...]) -> None:
    app = cookiecutter.app()
    shutil.rmtree(app / "tools")
    python = default_app.folder / ".venv/bin/python"
    ended = subprocess.run([python, *command], cwd=app, env=outside(), capture_output=True, encoding="utf-8")
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr


def test_the_apps_tests_take_no_address_that_a_team_may_use(template: Path) -> None:
    """A view that a test adds is under /tested-…: the app of a team may well have a /search."""
    adds = re.compile(r'(?m)(?:\bapp\.add_url_rule\(\s*|^\s*@(?:app|bp)\.(?:get|post|route)\()f?"/(?!tested)[^{"]+')
    tests = (template / APP / "tests").rglob("*.py")
    assert {path.name: found for path in tests if (found := adds.findall(path.read_text(encoding="utf-8")))} == {}


def test_the_tests_that_come_first_are_there() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in LONG if f"def {name}(" not in tests] == []
