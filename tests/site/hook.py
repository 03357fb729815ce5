"""A hook of MkDocs: it adds the pages that are not in docs/, and settles the links between all of them.

A page that a generated app has too is shown as that app has it, so one is generated first, with the defaults. Its code
writes the reference: ``SITE_PYTHON`` is a Python with its packages.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests.clean_copy import APP, ROOT, clean_copy

# Pages whose place on the site is not that in the app or in the template.
RENAMED = {
    f"{APP}/README.md": "generated-app.md",
    "README.md": "template.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "security-policy.md",
}
# Code, which stays as it is, or a link.
LINK = re.compile(r"(?ms)^ *```.*?^ *```|`[^`\n]+`|\[((?:`[^`]*`|[^]`])*)\]\(([^)\s]+)\)")


def app_pages() -> dict[str, str]:
    """Generate an app, and return its pages and its reference: where each would be in this repository, and its text."""
    with tempfile.TemporaryDirectory() as folder:
        clean_copy(Path(folder) / "template")
        command = [sys.executable, "-m", "cookiecutter", "template", "--no-input", "--output-dir", "out"]
        environment = os.environ | {"HOME": folder, "PWD": folder, "SECURE_FLASK_DEMO": "1"}
        subprocess.run(command, cwd=folder, env=environment, check=True)
        (app,) = (Path(folder) / "out").iterdir()
        found = {
            f"{APP}/{path.relative_to(app).as_posix()}": path.read_text(encoding="utf-8")
            for path in [app / "README.md", *sorted(app.glob("docs/**/*.md"))]
        }
        command = [str(Path(os.environ["SITE_PYTHON"]).absolute()), "-B", str(ROOT / "tests/site/reference.py")]
        # Not the settings of whoever builds the site.
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(app)}
        printed = subprocess.run(command, cwd=app, env=environment, check=True, stdout=subprocess.PIPE)
        return found | {f"docs/reference/{name}.md": text for name, text in json.loads(printed.stdout).items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and list those in the navigation that it does not name."""
    texts = app_pages()
    texts |= {name: (ROOT / name).read_text(encoding="utf-8") for name in RENAMED if not name.startswith(APP)}
    for source, text in texts.items():
        place = RENAMED.get(source) or source.removeprefix(f"{APP}/").removeprefix("docs/")
        if files.get_file_from_path(place):
            raise ValueError(f"{source}: the site has a {place} already")
        files.append(File.generated(config, place, content=text))
    named = json.dumps(config.nav)
    left = [file.src_uri for file in files.documentation_pages() if f'"{file.src_uri}"' not in named]
    for section in config.nav or ():
        for title, pages in section.items():
            if isinstance(pages, list) and isinstance(pages[-1], str) and pages[-1].endswith("/"):
                lessons = pages.pop() == "lessons/"
                found = (place for place in left if place.startswith("lessons/") is lessons)
                section[title] = pages + sorted(found, key=lambda place: (not place.endswith("/README.md"), place))
    return files


def threats(steps: str) -> str:
    """Return what each mitigation stops, as docs/mitigations.md of the app names it."""
    rows = ["| mitigation | stops |", "|---|---|"]
    for title, table in re.findall(r"(?ms)^## (\d+ .*?)$(.*?)(?=^## |\Z)", steps):
        rows.append(f"| {title} | {'; '.join(re.findall(r'(?m)^[|] [0-9]+[.]T[0-9]+ [|] (.*?) [|]', table))} |")
    return "\n".join(rows)


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Lead each link to the page on the site. Of a link to another file of the repository, only its text stays."""
    place = page.file.src_uri
    if (mark := "<!-- threats -->") in markdown:
        steps = files.get_file_from_path("mitigations.md")
        markdown = markdown.replace(mark, threats(steps.content_string if steps else ""))
    source = source_of(place)

    def settle(found: re.Match[str]) -> str:
        text, target = found.groups()
        if target is None or re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        for file in files.documentation_pages():
            if source_of(file.src_uri) == wanted:
                there = posixpath.relpath(file.src_uri, posixpath.dirname(place) or ".")
                return f"[{text}]({there}{'#' * bool(anchor)}{anchor})"
        return text if (ROOT / wanted).exists() else found[0]  # MkDocs reports that one

    # Markdown here nests lists by four spaces, where that of GitHub is content with less.
    return re.sub(r"(?m)^ {2,3}(?=[-*] |\d+\. )", "    ", LINK.sub(settle, markdown))


def source_of(place: str) -> str:
    """Return where the page at a place of the site is kept, as a path in this repository."""
    renamed = {new: old for old, new in RENAMED.items()}
    own = (ROOT / "docs" / place).exists() or place.startswith("reference/")
    return renamed.get(place) or (f"docs/{place}" if own else f"{APP}/docs/{place}")
