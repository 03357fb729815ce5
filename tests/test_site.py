"""The documentation site: what is on it is there, right, spelled and found, and its commands run in these tests."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from spellchecker import SpellChecker

from tests.clean_copy import APP, ROOT
from tests.conftest import App, Cookiecutter, outside
from tests.grown import BLOCK, COMMANDS, put, recipes, register
from tests.mutations import read
from tests.test_mitigations import IDS, PATH, rows

KEYS, BACKUP = f"{APP}/tests/test_01_secret_key.py", f"{APP}/tests/accounts/test_backup.py"
LETTERS = ("SK", "CF", "CP", "CK", "ER", "HD", "TM", "RL", "UP", "UR")  # of the ids of findings
FENCED = re.compile(r"(?ms)^```(\w+)\n.*?^```$")
SHELL = re.compile(r"(?ms)^```sh\n(.*?)^```")

# Each line of a block of commands on the site, but for the tutorial and the cookbook, whose blocks are run as they are:
# a file that CI runs, and what in it runs that command.
RUN_BY = {
    "make demo": ("tests/test_first_run.py", 'make(clone, tmp_path / "bin", *first.split()'),
    "cd secure-flask-app && make run": ("tests/test_first_run.py", 'make(app, tmp_path / "bin", "run"'),
    "cd demo": ("tests/test_first_run.py", "demo, venv = clone / into.split()[1]"),
    "make test": ("tests/test_generated_app.py", 'make("test", '),
    "make lint": ("tests/test_generated_app.py", 'make("lint")'),
    "make drift": ("tests/test_drift.py", '"-B", "-m", "tools.drift"'),
    "make mutations": ("tests/test_site.py", '"-m", "tests.test_mutations"'),
    ".venv/bin/cruft update": ("tests/test_upgrade.py", 'cruft("update"'),
    "python3 -m venv .venv && . .venv/bin/activate": (f"{APP}/Makefile", "-m venv $(VENV) &&"),
    "pip install --require-hashes -r requirements.txt": (f"{APP}/Makefile", "--require-hashes -r requirements.txt"),
    "python -m app.security.secret_key new": (KEYS, 'secret_key(checkout, "new")'),
    "python -m app.security.secret_key rotate": (KEYS, 'secret_key(checkout, "rotate")'),
    "python -m app.security.secret_key rotate --prune": (KEYS, '"rotate", "--prune"'),
    "flask --app app db upgrade": ("tests/test_site.py", "the_tutorial"),
    "flask --app app run": (f"{APP}/Makefile", "flask --app app run"),
    "flask --app app backup /backups/2026-11-26": (BACKUP, '"backup", backup'),
    "flask --app app restore /backups/2026-11-26": (BACKUP, '"restore", backup'),
    'flask --app app db revision --depend 0001 "The orders"': ("tests/test_site.py", '"flask --app app db revision"'),
    'flask --app app db revision "A note on orders"': ("tests/test_site.py", '"flask --app app db revision"'),
    "pip install --require-hashes -r requirements-s3.txt": ("tests/test_site.py", '"requirements-s3.txt"'),
    ".venv/bin/python -m tools.audit --format json": ("tests/test_audit.py", '"--format", "json"'),
    ".venv/bin/python -m tools.audit --strict": ("tests/test_site.py", '"--format", "json", "--strict"'),
    ".venv/bin/python -m tools.audit --path ../other-app module:app_or_factory": ("tests/test_audit.py", '"--path"'),
    'docker compose -f deploy/compose.yaml run --rm --no-deps -e PYTHONPATH=/srv/checkout -v "$PWD:/srv/checkout:ro"'
    " app python -m tools.audit": ("tests/image.py", "app python -m tools.audit"),
    "install -d -o 10001 -m 700 /srv/backups": ("tests/image.py", "image.run(*BACKUPS"),
    "docker compose -f deploy/compose.yaml run --rm --no-deps -v /srv/backups:/backups app"
    " flask --app app backup /backups/2026-11-26": ("tests/image.py", "container.stage.run(*command.split()"),
}
NOT_RUN = {
    "pipx run cookiecutter gh:OWNER/cookiecutter-secure-flask": "It needs GitHub: the tests give the path of a copy.",
}


@pytest.fixture(scope="session")
def site(default_app: App) -> Path:
    """The built site, made once, beside the default app."""
    folder = default_app.folder.parent.parent.parent / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            environment = {"SITE_PYTHON": str(default_app.folder / ".venv/bin/python")}
            ended = mkdocs("--site-dir", f"{folder}.new", **environment)
            assert ended.returncode == 0, ended.stderr
            Path(f"{folder}.new").rename(folder)
    return folder


def mkdocs(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", *arguments]  # with --quiet, nothing is an error
    return subprocess.run(command, cwd=cwd, env=outside() | environment, capture_output=True, encoding="utf-8")


class Words(HTMLParser):
    """The text of a page, without code, and what the page loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.loads, self.links, self._open = "", list[str](), list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag != "form":
            self.loads += [str(given[name]) for name in ("src", "srcset", "data", "poster", "href") if given.get(name)]
        if tag in ("article", "code", "pre", "script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        if self._open == ["article"]:
            self.text += data


def pages(site: Path) -> dict[str, Words]:
    found = {path.parent.relative_to(site).as_posix(): path for path in site.rglob("index.html")}
    return {name: Words(path.read_text(encoding="utf-8")) for name, path in found.items()}


def test_the_site_has_every_page_of_the_app(site: Path, default_app: App) -> None:
    docs = default_app.folder / "docs"
    built, sources = pages(site), [*docs.glob("**/*.md")]
    assert len(sources) >= 15
    for path in sources:
        title = re.findall(r"(?m)^# (.*)", path.read_text(encoding="utf-8"))[0]
        place = path.relative_to(docs).with_suffix("").as_posix().removesuffix("/README")
        assert title.partition("`")[0] in built[place].text
    assert [name for name, page in built.items() if re.search(r"cookiecutter\.[a-z]+\s*[%}]", page.text)] == []


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    """Under the rules of mkdocs.yml, with one page."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Home\n\n[a](none.md) [b](#none) [c](/none)\n")
    (tmp_path / "docs/lost.md").write_text("# Lost\n")
    rules = f"INHERIT: {ROOT}/mkdocs.yml\nhooks: []\nwatch: []\nnav: [index.md]\ndocs_dir: docs\n"
    (tmp_path / "mkdocs.yml").write_text(rules)
    ended = mkdocs("--config-file", str(tmp_path / "mkdocs.yml"), cwd=tmp_path)
    assert ended.returncode == 1
    for wrong in ("'none.md'", "'#none'", "'/none'", "lost.md"):
        assert wrong in ended.stderr


@pytest.mark.parametrize(
    ("place", "markdown", "settled"),
    [
        ("tutorial.md", f"[the cookbook](../{APP}/docs/cookbook.md#a-map)", "[the cookbook](cookbook.md#a-map)"),
        ("lessons/09.md", "[images](../images.md)", "[images](../images.md)"),
        ("template.md", "[upgrading](docs/upgrading.md)", "[upgrading](upgrading.md)"),
        ("template.md", f"[`settings.py`]({APP}/app/settings.py)", "`settings.py`"),  # no page: its text stays
        ("template.md", "[one](docs/none.md)", "[one](docs/none.md)"),  # which MkDocs reports
        ("tutorial.md", "`[no](link.md)`", "`[no](link.md)`"),
        ("tutorial.md", "[a](https://a.example/x.md) [b](#b)", "[a](https://a.example/x.md) [b](#b)"),
    ],
)
def test_links_lead_to_the_page_on_the_site(place: str, markdown: str, settled: str) -> None:
    from tests.site import hook

    places = ("tutorial.md", "cookbook.md", "images.md", "upgrading.md", "lessons/09.md", "template.md")
    files = SimpleNamespace(documentation_pages=lambda: [SimpleNamespace(src_uri=each) for each in places])
    page = SimpleNamespace(file=SimpleNamespace(src_uri=place))
    assert hook.on_page_markdown(markdown, page, files) == settled  # type: ignore[arg-type]


def test_a_link_to_another_site_is_an_address_and_over_https(site: Path) -> None:
    """MkDocs checks all links within the site; to others, the tests have no network."""
    links = {link for page in pages(site).values() for link in page.links if re.match(r"\s*\w+:|//", link)}
    assert len(links) > 30
    address = re.compile(r"https://([a-z\d-]+\.)+[a-z]{2,}(/[\w.~%()+,;=/@-]*)?(\?[\w=&-]+)?(#[\w.:-]+)?")
    assert [link for link in links if not (address.fullmatch(link) or link.startswith("http://127.0.0.1:"))] == []


def test_nothing_is_loaded_from_elsewhere_and_pages_fit_a_phone(site: Path, default_app: App) -> None:
    outer = re.compile(r"(?i)^\s*(\w+:)?//")
    loads = {load for page in pages(site).values() for load in page.loads}
    assert len(loads) > 10
    assert [load for load in loads if outer.match(load)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert [url for url in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", styles) if outer.match(url)] == []
    paths = ["", *(f"{name}/" for name in ("tutorial", "cookbook", "threat-model", "mitigations", "reference/routes"))]
    browse = [default_app.folder / ".venv/bin/python", "-B", ROOT / "tests/site/browse.py", site, *paths]
    seen = json.loads(default_app.run(*browse, PYTHONPATH=str(default_app.folder)).splitlines()[-1])
    assert (seen["elsewhere"], seen["wide"]) == ([], [])
    assert "/reference/settings/" in seen["found"]


def test_the_reference_has_what_the_code_has(site: Path, default_app: App) -> None:
    """Each name that another look at the code finds; and some of the columns, by hand."""
    app, flask = default_app.folder, default_app.run(".venv/bin/flask", "--app", "app", "routes")
    code, makefile, readme = (
        "".join(path.read_text(encoding="utf-8") for path in app.glob(name))
        for name in ("app/**/*.py", "Makefile", "README.md")
    )
    found = {
        "settings": re.findall(r"(?m)^    ([A-Z][A-Z_]+): .*Field\(", code),
        "commands": [f"make {name}" for name in re.findall(r"(?m)^([a-z-]+):.*## ", makefile)],
        "routes": re.findall(r"(?m)^[\w.]+ +[A-Z, ]+? +(/\S*)", flask),
        "findings": [*re.findall(r'\bFinding\(\s*"(\w+)"', code), *(f"{letters}01" for letters in LETTERS)],
        "events": re.findall(r"(?m)^\| `(\w+)` \| [A-Z]+ \|", readme),
    }
    tables = {page: table((site / f"reference/{page}/index.html").read_text(encoding="utf-8")) for page in found}
    for page, names in found.items():
        assert len(names) >= 10
        assert set(names) - tables[page].keys() == set()
    settings, commands, routes, findings, events = tables.values()
    assert settings["MAX_CONTENT_LENGTH"][0] == str(10 * 2**20)
    assert settings["MAIL_PORT"] == ["587", "The SMTP port. (at least 1, at most 65535)", "587"]
    assert settings["MAIL_USE_TLS"][0] == "1"
    assert settings["DATABASE_URL"][0] == "sqlite:///…/instance/app.db"
    assert commands["db upgrade [TARGET]"] == ["Run migrations to upgrade the database."]
    assert routes["/account"] == ["GET", "accounts.account", "members", "default"]
    assert routes["/login"][2:] == ["everybody", "20 per minute; 100 per hour (sign_in)"]
    assert routes["/healthz"][3].startswith("none: ")
    assert findings["CF05"][0] == "2.S5"
    assert findings["DP05"][1] == "Other users of this machine have access to the database (permission bits …)."
    assert events["malicious_cors"][0] == "CRITICAL"


def table(page: str) -> dict[str, list[str]]:
    """The rows of all tables of a page: the first cell, and the others."""
    cells = [re.findall(r"(?s)<td>(.*?)</td>", row) for row in re.findall(r"(?s)<tr>(.*?)</tr>", page)]
    plain = [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells if row]
    return {first: others for first, *others in plain}


def test_the_threat_model_names_each_threat(site: Path, default_app: App) -> None:
    page = pages(site)["threat-model"].text
    named = [rows(default_app.folder)[each].split("|")[2].strip() for each in sorted(IDS) if ".T" in each]
    assert len(named) == 34
    assert [threat for threat in named if threat not in page] == []


def unknown(text: str, own: set[str], dictionary: SpellChecker) -> set[str]:
    """The words of a text that neither of the two lists has. Acronyms and names with capitals in them are no words."""
    words = re.findall(r"(?<![\w./@-])[^\W\d_]{2,}(?:['’][^\W\d_]+)?(?![\w/@])", text)
    plain = {re.sub("['’]s?$", "", word) for word in words if word[1:] == word[1:].lower()}
    return {word for word in plain if word.lower() not in own and word.lower() not in dictionary}


def test_the_site_is_spelled_right(site: Path) -> None:
    dictionary = SpellChecker()
    own = (ROOT / "docs/words.txt").read_text(encoding="utf-8").split()
    assert unknown("Teh cookbook's pasword, ASVS, OAuth's gunicorn", {"gunicorn"}, dictionary) == {"Teh", "pasword"}
    built = pages(site)
    wrong = {name: found for name, page in built.items() if (found := unknown(page.text, set(own), dictionary))}
    assert wrong == {}
    assert own == sorted(own)


def commands(*blocks: str) -> set[str]:
    """Each command of some blocks in one line, without its comment."""
    lines = (line for block in blocks for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines())
    return {re.sub(r"(^|\s+)#.*", "", line) for line in lines} - {""}


def test_each_command_on_the_site_runs_here(default_app: App) -> None:
    own = ["README.md", "CHANGELOG.md", "SECURITY.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
    sources = [ROOT / name for name in own]
    sources += [default_app.folder / "README.md", *default_app.folder.glob("docs/**/*.md")]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    blocks = {path: SHELL.findall(text) for path, text in texts.items()}
    shown = commands(*(block for found in blocks.values() for block in found))
    tutorial = commands(*blocks[ROOT / "docs/tutorial.md"])  # run whole, below
    fetched = commands(*(block for recipe in recipes() for block in COMMANDS.findall(recipe.text)))  # by test_grown.py
    lessons = {path for path in blocks if path.parent.name == "lessons"} | {ROOT / "docs/teaching.md"}
    taught = commands(*(block for path in lessons for block in blocks[path]))  # by test_lessons.py
    run = RUN_BY.keys() | tutorial | fetched | taught
    assert shown - run - NOT_RUN.keys() == set()
    assert (RUN_BY.keys() | NOT_RUN.keys()) - shown == set()
    for name, text in RUN_BY.values():
        code = (ROOT / name).read_text(encoding="utf-8").rpartition("\nNOT_RUN = ")[2]  # of this file, what is below
        assert text in code


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(block: str, folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run commands of which the last one serves, and give the port once it answers."""
    port = free_port()
    with (folder / ".venv/server.log").open("wb") as log:
        command = ["sh", "-e", "-c", block]
        place = environment | {"PORT": str(port)}
        process = subprocess.Popen(command, cwd=folder, env=place, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / ".venv/server.log").read_text(errors="replace")
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def ask(port: int, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers


def test_the_tutorial_works_as_it_stands(default_app: App, template: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    environment = outside() | {"HOME": str(tmp_path), "PWD": str(tmp_path)}
    folder, said, served = tmp_path, "", []
    for fenced in FENCED.finditer(text):
        block = fenced[0].partition("\n")[2].removesuffix("```")
        if code := BLOCK.fullmatch(fenced[0]):
            put(folder, *code.groups())
            if code[2].startswith("app/views/"):  # as the page says
                register(folder, Path(code[2]).stem)
        elif fenced[1] == "text":
            assert [line for line in block.splitlines() if line.rstrip() not in said] == []
        elif re.search(r"make run|gunicorn", block):
            if go := re.match(r"cd (\S+)\n", block):
                folder /= go[1]
                share_packages(default_app.folder / ".venv", folder / ".venv")
            with serving(block.removeprefix(go[0] if go else ""), folder, environment) as port:
                served.append([*answers(port, "make run" in block)])
        else:
            generate = f"{sys.executable} -m cookiecutter {template}"
            block = block.replace("pipx run cookiecutter gh:OWNER/cookiecutter-secure-flask", generate)
            said = App(folder).run("sh", "-e", "-c", block, **environment)
    assert served == [[200], [200, True, 308, 400]]
    # In this app, what other pages say about packages and a database that are there.
    for page, part in (("README.md", "requirements-s3.txt"), ("docs/cookbook.md", "flask --app app db revision")):
        (block,) = [block for block in SHELL.findall((folder / page).read_text(encoding="utf-8")) if part in block]
        App(folder).run("sh", "-e", "-c", f". .venv/bin/activate\n{block}", **environment)


def share_packages(source: Path, target: Path) -> None:
    """Make a virtual environment of links, which make takes for installed."""
    target.mkdir()
    for path in source.iterdir():
        if path.name != "installed":
            (target / path.name).symlink_to(path)
    (target / "installed").touch()


def answers(port: int, debug: bool) -> Iterator[int | bool]:
    """What a browser gets: on this machine in debug, or through the proxy of the production setup."""
    if debug:
        yield ask(port, "/")[0]
        return
    sent = {"X_Forwarded_For": "192.0.2.1", "Host": "bikes.example.com"}
    status, headers = ask(port, "/rides", X_Forwarded_Proto="https", **sent)
    yield status
    yield "https://maps.example" in headers["Content-Security-Policy"]
    yield ask(port, "/rides", X_Forwarded_Proto="http", **sent)[0]
    yield ask(port, "/rides", X_Forwarded_Proto="https", **sent | {"Host": "other.example"})[0]


# The test of the example, then its row of the audit, in one process. The other rows would take most of the time.
EXAMINE = """
import json, sys, pytest
tested = int(pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_11_isolation.py"]))
from tools.audit import mitigations
for number in set(mitigations.MITIGATIONS) - {11}:
    del mitigations.MITIGATIONS[number]
sys.argv[1:] = ["--format", "json", "--strict"]
from tools.audit.__main__ import main
print(json.dumps([tested, main()]))
"""


def test_the_example_of_the_contributors_guide_is_tested_probed_and_mutated(
    default_app: App, cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    app, of_template = cookiecutter.app(), tmp_path / "template"
    (of_template / "tests/mutations").mkdir(parents=True)
    blocks = BLOCK.findall((ROOT / "docs/contributing.md").read_text(encoding="utf-8"))
    for language, name, text in blocks:
        put(of_template if name.startswith("tests/mutations/") else app, language, name, text)
    named = PATH.findall(rows(app)["11.S1"] + rows(app)["11.T1"])
    assert [path for path, _ in named if not (app / path).exists()] == []

    def examine() -> tuple[int, int, str]:
        """What the test says, and the audit: its exit code, and the state of the row."""
        said = default_app.run(default_app.folder / ".venv/bin/python", "-B", "-c", EXAMINE, cwd=app)
        report, codes = re.findall(r"(?ms)^(\{\n.*^\})\n(\[.*\])$", said)[0]
        (row,) = [row for row in json.loads(report)["mitigations"] if row["number"] == 11]
        return (*json.loads(codes), row["state"])

    assert examine() == (0, 0, "implemented")
    mutations = list(read(of_template / "tests/mutations/11_isolation.txt"))
    assert [mutation.rows for mutation in mutations] == [(11,), ()]
    for mutation in mutations:
        text = (app / mutation.file).read_text(encoding="utf-8")
        assert text.count(mutation.before) == 1
        (app / mutation.file).write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
        assert examine() == ((1, 1, "missing") if mutation.rows else (1, 0, "implemented"))
        (app / mutation.file).write_text(text, encoding="utf-8")


def test_make_mutations_prints_the_table() -> None:
    printed = subprocess.run([sys.executable, "-m", "tests.test_mutations"], cwd=ROOT, capture_output=True, check=True)
    assert printed.stdout.startswith(b"# The mutations\n")
