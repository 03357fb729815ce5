"""The code saves no file under a name that its sender has chosen."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest
from flask import Flask

from tests.lint.code import trees_of
from tests.lint.saving import saved_names


def test_9_S2_no_file_is_saved_under_the_client_s_name(app: Flask) -> None:
    trees = trees_of(Path(app.root_path))
    assert {name: list(saved_names(tree)) for name, tree in trees.items() if list(saved_names(tree))} == {}


def saved(code: str) -> list[tuple[int, str]]:
    return list(saved_names(ast.parse(textwrap.dedent(code))))


@pytest.mark.parametrize(
    "code",
    [
        "f.save(os.path.join(folder, f.filename))",
        "f.save(folder / f.filename)",
        "f.save(f'{folder}/{f.filename}')",
        "f.save(folder + '/' + f.filename)",
        "f.save('%s/%s' % (folder, f.filename))",
        "f.save('{}/{}'.format(folder, f.filename))",
        "f.save(f.filename)",
        "f.save(dst=folder / f.filename)",
        "f.save(Path(folder, f.filename))",
        "f.save(Path(folder).joinpath(f.filename))",
        "f.save(folder / os.path.basename(f.filename))",
        "f.save(folder / Path(f.filename).name)",
        "f.save(folder / f.filename.replace(' ', '_').lower())",
        "f.save(folder / (f.filename or 'file'))",
        "f.save(folder / f.filename[:100])",
        "f.save(folder / f'{now}-{f.filename}')",
        "request.files['f'].save(folder / request.files['f'].filename)",
        "form.file.data.save(folder / form.file.data.filename)",
        "open(f'{folder}/{f.filename}', 'wb').write(f.read())",
        "(folder / f.filename).open('wb').write(f.read())",
        "(folder / f.filename).write_bytes(f.read())",
        "os.open(folder / f.filename, os.O_CREAT)",
        "shutil.move(temporary, folder / f.filename)",
        "os.replace(temporary, os.path.join(folder, f.filename))",
        "f.save(folder / request.form['name'])",
        "f.save(folder / request.args.get('name'))",
        "(folder / request.get_json()['name']).write_text('x')",
        "name = f.filename\nf.save(folder / name)",
        "name = f.filename\npath = os.path.join(folder, name)\nf.save(path)",
        "name: str = f.filename\nwith open(f'{folder}/{name}', mode='xb') as file:\n    file.write(f.read())",
        "if name := f.filename:\n    f.save(folder / name)",
        "name = secure_filename(f.filename)\nname = f.filename\nf.save(folder / name)",
        "def view():\n    for f in request.files.getlist('f'):\n        f.save(folder / f.filename)",
        "async def post(self):\n    path = folder\n    path /= f.filename\n    path /= 'x'\n    f.save(path)",
        "data = request.get_json()\nopen(folder / data['name'], 'w').write(data['text'])",
        "def view():\n    name = f.filename\n    def later():\n        f.save(folder / name)",
        "def keep(f, name):\n    f.save(folder / name)\n\ndef view():\n    keep(f, f.filename)",
        "def keep(name, f):\n    f.save(folder / name)\n\ndef view():\n    keep(f=f, name=request.form['name'])",
        "def view():\n    one(f, f.filename)\n\ndef one(f, a):\n    two(f, a.lower())\n\ndef two(f, b):\n    f.save(b)",
        "class V:\n    def post(self):\n        self.keep(f.filename)\n    def keep(self, name):\n        f.save(name)",
        "def keep(name):\n    f.save(name)\n\ndef one():\n    keep(f.filename)\n\ndef two():\n    keep(f.filename)",
        "def again(name):\n    again(name)\n    f.save(name)\n\nagain(f.filename)",
    ],
)
def test_9_S2_the_check_finds_the_client_s_name(code: str) -> None:
    assert len(saved(code)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "f.save(folder / secure_filename(f.filename))",
        "name = f.filename\nname = secure_filename(name)\nf.save(folder / name)",
        "f.save(folder / (uuid4().hex + os.path.splitext(f.filename)[1]))",
        "f.save(folder / f'{token_hex(16)}.{f.filename.rsplit(\".\", 1)[1]}')",
        "f.save(folder / f'{token_hex(16)}{Path(f.filename).suffix}')",
        "f.save(folder / sha256(f.filename.encode()).hexdigest())",
        "f.save(folder / token_hex(16))",
        "uploads.save(file, owner)",
        "name = display_name(file.filename or '')\nfolder.store(stream, name)",
        "open(folder / row.filename).read()",
        "send_file(folder / row.filename)",
        "open(error.filename, 'rb')",
        "self.file = open(self.filename, 'a')",
        "log.info('saved %s', f.filename)",
        "row = Upload(name=f.filename)\ndb.session.add(row)",
        "'a' in f.filename.lower().replace('x', 'y')",
        "name = f.filename\ndef save(name):\n    f.save(folder / name)",
        "def one():\n    name = f.filename\n\ndef two(name):\n    f.save(folder / name)",
        "def keep(f, name):\n    f.save(folder / name)\n\nkeep(f, secure_filename(f.filename))",
        "def keep(f, name):\n    f.save(folder / name)\n    log(f.filename)\n\nkeep(f, token_hex(16))",
        "def keep(f, name):\n    f.save(folder / token_hex(16))\n\nkeep(f, f.filename)",
    ],
)
def test_9_S2_the_check_leaves_the_rest_alone(code: str) -> None:
    assert saved(code) == []
