"""The code saves and reads no file under a name that its sender has chosen, and saves no upload by itself."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest
from flask import Flask

from tests.lint.code import trees_of
from tests.lint.saving import KEPT, READ, SAVED, misused_files


def test_9_S2_no_file_is_saved_under_the_client_s_name(app: Flask) -> None:
    trees = trees_of(Path(app.root_path))
    assert {name: list(misused_files(tree)) for name, tree in trees.items() if list(misused_files(tree))} == {}


def found(code: str) -> list[str]:
    return [what for _, _, what in misused_files(ast.parse(textwrap.dedent(code)))]


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
    assert found(code) == [SAVED]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("send_file(os.path.join('/srv', request.args['name']))", READ),
        ("flask.send_file(path_or_file=f'/srv/{request.args[\"name\"]}')", READ),
        ("(Path('/srv') / request.args['name']).read_text()", READ),
        ("(folder / request.form['name']).open().read()", READ),
        ("name = request.args.get('name')\nopen(folder / name)", READ),
        ("def read(name):\n    return (folder / name).read_bytes()\n\nread(request.args['name'])", READ),
        ("for name in request.args.getlist('name'):\n    send_file(folder / name)", READ),
        ("@bp.get('/a/<path:name>')\ndef view(name):\n    return send_file(folder / name)", READ),
        ("@bp.get('/a/<name>')\ndef view(name):\n    return send_file(folder / NAMES[name])", ""),
        ("send_from_directory(folder, request.args['name'])", ""),
        ("send_file(safe_join(folder, request.args['name']))", ""),
        ("send_file(REPORTS[request.args['name']])", ""),
        ("Image.open(request.files['f'])", ""),
        ("client.open(request.args['name'])", ""),
        ("request.files['f'].save(folder / token_hex(16))", KEPT),
        ("f = request.files.get('f')\nname = secure_filename(f.filename)\nf.save(folder / name)", KEPT),
        ("for f in request.files.getlist('f'):\n    f.save(folder / token_hex(16))", KEPT),
        ("for _, f in request.files.items():\n    f.save(folder / token_hex(16))", KEPT),
        ("def keep(f):\n    f.save(folder / token_hex(16))\n\nkeep(request.files['f'])", KEPT),
        ("form.picture.data.save(folder / token_hex(16))", KEPT),
        ("request.files['f'].save(request.form['name'])", SAVED),
        ("uploads.save_all(request.files.getlist('f'))", ""),
        ("Note().save(request.get_json())", ""),
        ("data = request.get_json()\nnote.save(data['title'].strip())", ""),
        ("note.save(title=request.form['title'])", ""),
        ("note.save(request.form)", ""),
        ("note.data.save(request.form.get('title'))", ""),
    ],
)
def test_9_S2_the_check_finds_what_is_read_and_what_no_check_has_seen(code: str, what: str) -> None:
    assert found(code) == [what] * bool(what)


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
    assert found(code) == []
