"""What each step is worth: the ways a person takes it out of a generated app, and the test that notices.

A mutation changes one place of one file. The app still starts, the other nine mitigations stay as they are, and its
killer, a test of the app that is green before, goes red. One that nothing noticed would be a hole in the app's tests.

The text files beside this one hold them, a file for each mitigation::

    # app/security/errors.py
    ## test_5_T1_an_exception_tells_the_visitor_nothing_and_the_log_all
    5.S4 a streamed body fails after its headers
      body = _begun(body) → pass
    5.S4 what fails outside of Flask reaches the server [also 6; V16.5.4]
                     body = _begun(body)
    -        except Exception:
    +        except KeyError:

That is: the file of the app, the killer by its function's name, then the step (of docs/mitigations.md), what a person
does, and how. A change within a line stands as ``before → after``, where nothing after the arrow means nothing is left;
a change of whole lines stands as in a diff. Either way, what was there is in the file exactly once.

In brackets: ``also`` names the other mitigations whose rows of the audit change, since they lean on the same line.
``unseen`` means that no row changes: what goes is a promise of the app that belongs to no mitigation. A requirement of
OWASP's Application Security Verification Standard 5.0 is one that the mutation leaves unmet.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = re.compile(r"(?P<step>(?P<number>\d+)\.S\d+) (?P<name>[^][]+?)(?: \[(?P<marks>[^]]+)\])?")
ARROW = re.compile(r"  (\S.*) →(?: (.*))?")


@dataclass(frozen=True)
class Mutation:
    """One way to take out ``step``: ``before``, which ``file`` holds once, becomes ``after``, and ``killer`` fails.

    ``rows`` are the mitigations whose rows of the audit change, ``asvs`` the requirements that are unmet then.
    """

    step: str
    name: str
    file: str
    killer: str
    before: str
    after: str
    rows: tuple[int, ...]
    asvs: tuple[str, ...]


def read(path: Path) -> Iterator[Mutation]:
    """Yield the mutations of a file of them. Raises ValueError for a line that makes no sense."""
    file = killer = ""
    head, body = None, list[str]()
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line and line[0] in " +-":
            body.append(line)
            continue
        if head:
            yield _mutation(head, file, killer, body)
        head, body = HEAD.fullmatch(line), []
        if line.startswith("# "):
            file = line.removeprefix("# ")
        elif line.startswith("## "):
            killer = line.removeprefix("## ")
        elif line and not head:
            raise ValueError(f"{path.name}:{number}: {line!r} is neither a file, a killer nor a mutation")


def _mutation(head: re.Match[str], file: str, killer: str, body: list[str]) -> Mutation:
    marks = (head["marks"] or "").split("; ")
    also = [int(row) for mark in marks if mark.startswith("also ") for row in mark.removeprefix("also ").split(", ")]
    rows = () if "unseen" in marks else (int(head["number"]), *also)
    if arrow := ARROW.fullmatch(body[0]):
        before, after = arrow[1], arrow[2] or ""
    else:
        before, after = ("".join(f"{line[1:]}\n" for line in body if line[0] in kept) for kept in (" -", " +"))
    asvs = tuple(mark for mark in marks if mark.startswith("V"))
    return Mutation(head["step"], head["name"], file, killer, before, after, rows, asvs)


def places(app: Path) -> dict[str, list[str]]:
    """Give the places of each test function of an app, as pytest names them: its killers are known by name alone."""
    found: dict[str, list[str]] = {}
    for path in sorted(app.glob("tests/**/test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, []).append(f"{path.relative_to(app).as_posix()}::{node.name}")
    return found


MUTATIONS = tuple(mutation for path in sorted(Path(__file__).parent.glob("*.txt")) for mutation in read(path))
