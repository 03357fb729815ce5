"""An app of version 0.1.0, edited by its team, is updated to the version that moved most of its files."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.clean_copy import APP
from tests.conftest import AUTHOR, App, Cookiecutter, commit, edit, files, outside
from tests.test_drift import CRUFT, ROOT, Team, run, section

BEFORE = "71f61c78e9a38212348a7af9643738224c3f1c5d"  # the last commit of 0.1.0
# git takes a file for moved if half of it is the same: app/accounts/views.py has 50 %, and no room for other changes.

TABLE = '''class Product(Model):
    """What the shop sells."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
'''

EDITS: dict[str, list[tuple[str, str]]] = {
    "README.md": [("## Find your way", "## Our own way")],
    "Makefile": [("PORT ?= 8000", "PORT ?= 8080")],
    "pyproject.toml": [('    "gunicorn>=27",\n', '    "gunicorn>=27",\n    "markupsafe>=3",\n')],
    "app/settings.py": [
        (
            '    LOG_FORMAT: Literal["text", "json"]',
            '    SHOP_CURRENCY: str = Field(default="EUR", description="The currency of the shop.", examples=["CHF"])\n'
            '    LOG_FORMAT: Literal["text", "json"]',
        )
    ],
    "app/models.py": [("def init_app(app: Flask)", f"{TABLE}\n\ndef init_app(app: Flask)")],
    "app/security/rate_limits.py": [('"register": "5 per minute;', '"register": "3 per minute;')],
    "app/templates/home.html": [(">Upload a file<", ">Upload your order<")],
    "app/templates/security/login_user.html": [("New here?", "New to the shop?")],
    "app/views/__init__.py": [
        ("pages, redirects, uploads\n", "pages, redirects, shop, uploads\n"),
        ("(pages, uploads,", "(pages, shop, uploads,"),
    ],
    "app/views/accounts.py": [
        (
            "import EmailField, Field, HiddenField, PasswordField\n",
            "import EmailField, Field, HiddenField, PasswordField, StringField\n",
        ),
        (
            '    """An address and a password for it."""\n',
            '    """An address and a password for it."""\n\n    nickname = StringField("Nickname")\n',
        ),
    ],
}

OWN = {
    "app/views/shop.py": '''"""The shop."""

import sqlalchemy as sa
from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from app.identity import sign_in_required
from app.models import Product, db
from app.security.csrf import exempt

bp = Blueprint("shop", __name__)


@bp.get("/products")
@sign_in_required
def products() -> ResponseReturnValue:
    return jsonify(list(db.session.scalars(sa.select(Product.name))))


@bp.post("/orders/paid")
@exempt("The payment provider signs the request.")
def paid() -> ResponseReturnValue:
    return jsonify(currency=current_app.config["SHOP_CURRENCY"])
''',
    "app/migrations/0002_products.py": '''"""The products of the shop."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_products"),
    )


def downgrade() -> None:
    op.drop_table("products")
''',
    "tests/test_shop.py": """from pathlib import Path

from app import create_app


def test_a_payment_needs_no_token(tmp_path: Path) -> None:
    settings = {"SECRET_KEY": "0123456789abcdef" * 4 + "ours", "DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}
    app = create_app(settings | {"UPLOAD_DIR": tmp_path / "uploads", "SHOP_CURRENCY": "CHF"})
    answer = app.test_client().post("/orders/paid", base_url="https://localhost")
    assert answer.json == {"currency": "CHF"}
""",
}

# The same edits in the new version, where its file no longer has the line that the team had changed.
AGAIN = {
    "app/templates/home.html": [(">Your files<", ">Upload your order<")],
    "app/views/__init__.py": [
        ("pages, redirects, security, uploads\n", "pages, redirects, security, shop, uploads\n"),
        ("(pages, uploads,", "(pages, shop, uploads,"),
    ],
}


@pytest.fixture
def team(template: Path, tmp_path: Path, default_app: App) -> Team:
    """The template with its history, the files as they are here at its end; the app of 0.1.0 with all edits."""
    whole = subprocess.run(["git", "merge-base", "--is-ancestor", BEFORE, "HEAD"], cwd=ROOT, env=outside()).returncode
    assert whole == 0, f"This clone lacks the commit {BEFORE[:7]}, version 0.1.0. Fetch it: git fetch --unshallow"
    source, out = tmp_path / "cookiecutter-secure-flask", tmp_path / "out"
    run(ROOT, "git", "bundle", "create", "--quiet", tmp_path / "history", "HEAD")
    run(tmp_path, "git", "clone", "--quiet", "--no-checkout", "history", source)
    shutil.copytree(template, source, dirs_exist_ok=True)
    run(source, "git", "add", "--all")
    run(source, "git", *AUTHOR, "commit", "--quiet", "--allow-empty", "--message=now")
    out.mkdir()
    run(out, *CRUFT, "create", source, "--no-input", "--checkout", BEFORE, HOME=str(tmp_path / "home"))
    app = out / "secure-flask-app"
    commit(app)
    tool = Cookiecutter(source, out, tmp_path / "home")
    for path, pairs in EDITS.items():
        for before, after in pairs:
            edit(app, {path: (before, after)})
    for path, text in OWN.items():
        (app / path).write_text(text)
    commit(app)
    return Team(source, app, tool, default_app.folder / ".venv/bin/python")


def table() -> dict[str, str]:
    """The upgrade guide's table of what moved: old dotted names and new ones."""
    guide = (ROOT / "docs/upgrading.md").read_text().partition("\n## 0.2.0")[2].partition("\n## ")[0]
    return dict(re.findall(r"(?m)^\| `([\w.]+)` +\| `([\w.]+)` +\|", guide))


def new_name(old: str) -> str:
    """The name by the table, in which the longest one that fits counts."""
    fits = [name for name in table() if f"{old}.".startswith(f"{name}.")]
    name = max(fits, key=len, default="")
    return table()[name] + old.removeprefix(name) if name else old


def import_anew(path: Path) -> None:
    """Change the imports of a file as the upgrade guide's table says."""
    lines = []
    for line in path.read_text().splitlines():
        if found := re.fullmatch(r"from ([\w.]+) import ([\w, ]+)", line):
            names = [new_name(f"{found[1]}.{name}").rpartition(".") for name in found[2].split(", ")]
            lines += [f"from {module} import {name}" for module, _, name in names]
        else:
            lines.append(line)
    path.write_text("\n".join(lines) + "\n")


def added(path: str) -> list[str]:
    """The lines that the team's edit of a file added."""
    return [
        line.strip()
        for before, after in EDITS[path]
        for line in after.splitlines()
        if line.strip() and line not in before.splitlines()
    ]


def conflicts(app: Path) -> dict[str, bool]:
    """The files with a conflict: whether it is marked in them (or beside them)."""
    now = files(app)
    marked = {name: True for name, text in now.items() if re.search(rb"(?m)^<<<<<<< ", text)}
    return marked | {name.removesuffix(".rej"): False for name in now if name.endswith(".rej")}


def settle(team: Team, newest: dict[str, bytes]) -> None:
    """In each file with a conflict, take the template's text and make the team's edit again."""
    login = "templates/security/login_user.html"
    old = {"app/accounts/views.py": "app/views/accounts.py", f"app/accounts/{login}": f"app/{login}"}
    for name in conflicts(team.app):
        (team.app / f"{name}.rej").unlink(missing_ok=True)
        (team.app / name).write_bytes(newest[name])
        path = old.get(name, name)
        for before, after in AGAIN.get(path, EDITS[path]):
            edit(team.app, {name: (before, after)})


@pytest.mark.parametrize("prepared", [True, False], ids=["as the guide says", "unprepared"])
def test_every_edit_is_kept_or_marked(team: Team, prepared: bool, record_property: pytest.RecordProperty) -> None:
    app = team.app
    if prepared:
        (app / "app/products.py").write_text(
            f'"""The tables of the shop."""\n\nimport sqlalchemy as sa\nfrom sqlalchemy.orm import Mapped\n'
            f"from sqlalchemy.orm import mapped_column\n\nfrom app.models import Model\n\n\n{TABLE}"
        )
        edit(app, {"app/views/shop.py": ("import Product, db\n", "import db\nfrom app.products import Product\n")})
        run(app, "git", "checkout", "--quiet", "HEAD~1", "--", "app/models.py")
        commit(app)
    else:
        # The report of 0.1.0, which the team has: it names the file that the template removed and the team changed.
        told = run(app, team.python, "-B", "-m", "drift", code=1)
        removed = re.findall(r"(?m)^  (\S+) .*, by the template removed$", section(told, "Changed by both"))
        assert "app/models.py" in removed
        assert "0.2.0" in section(told, "By hand, says the template").split()

    team.cruft("update", "--skip-apply-ask")

    newest = files(team.cookiecutter.app("project_slug=of-now"))
    newest = {name: text.replace(b"of-now", b"secure-flask-app") for name, text in newest.items()}
    now, clashing = files(app), conflicts(app)
    assert set(clashing.values()) == {prepared}  # marked where git could merge, else beside the file
    for path in EDITS.keys() - ({"app/models.py"} if prepared else set()):
        places = [name for name, text in now.items() if all(line.encode() in text for line in added(path))]
        assert len(places) == 1, (path, places)
        assert places[0] in newest or path == "app/models.py", (path, places)
    for path, text in OWN.items():
        assert now[path].decode() == text or path == "app/views/shop.py"
    assert newest.keys() <= now.keys()
    record_property(f"edits of {len(EDITS)} files in conflict after the update", len(clashing))

    # What the upgrade guide asks for.
    settle(team, newest)
    assert conflicts(app) == {}
    (app / "app/migrations/0002_products.py").rename(app / "app/accounts/migrations/0002_products.py")
    for before, after in (
        ("from app.identity import sign_in_required\n", "from app.visitors import public\n"),
        ("@sign_in_required\n", ""),
        ('@bp.post("/orders/paid")\n', '@bp.post("/orders/paid")\n@public\n'),
    ):
        edit(app, {"app/views/shop.py": (before, after)})
    import_anew(app / "app/views/shop.py")
    if prepared:
        import_anew(app / "app/products.py")
    else:
        (app / "app/models.py").unlink()
        with (app / "app/accounts/models.py").open("a") as models:
            models.write(f"\n\n{TABLE}")
    commit(app)
    run(app, team.python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_shop.py")
    run(app, team.python, "-B", "-m", "flask", "--app", "app", "db", "upgrade")
    with sqlite3.connect(app / "instance/app.db") as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert {"users", "sessions", "products"} <= names
    if not prepared:  # the audit would find the same code: only the table is in another file
        return
    told = team.drift(1)
    assert "Left by an update" not in told
    rows = section(told, "The audit, of the app as generated")
    states = re.findall(r"(?m)^ +\d+ \S.* (implemented|relaxed|missing)$", rows)
    assert (len(states), set(states)) == (10, {"implemented", "relaxed"})


def test_the_new_drift_names_what_moves_before_the_update(team: Team) -> None:
    """It runs the audit of 0.1.0 there and reads its rows."""
    shutil.copytree(team.template / APP / "tools", team.app / "tools", ignore=shutil.ignore_patterns("audit"))
    commit(team.app)
    told = team.drift(1)
    both = section(told, "Changed by both")
    assert re.search(r"(?m)^  app/views/accounts\.py  \+3 -1, by the template moved to app/accounts/views\.py, ", both)
    update = section(told, "To take the template's changes")
    assert re.search(r"(?m)^  These stay as they are: [^:]*:\n    app/models\.py$", update)
    assert "    app/migrations/0002_products.py -> app/accounts/migrations/0002_products.py\n" in update
    assert re.search(r"(?m)^ +CF05 app\.views\.shop\.paid needs no token: .*\n +fix: Remove the exemption, or ", told)


def test_the_table_of_moved_names_is_right(template: Path, default_app: App) -> None:
    """Each new name is there, and each old one is gone."""
    assert len(table()) > 10
    program = (
        "import pkgutil, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: pkgutil.resolve_name(name)\n"
        "    except (ImportError, AttributeError): continue\n"
        "    print(name)"
    )
    python = default_app.folder / ".venv/bin/python"
    found = run(default_app.folder, python, "-B", "-c", program, *table(), *table().values()).split()
    assert set(found) == set(table().values())
