"""A generated app under gunicorn, over TLS, behind a proxy's headers, used as people use it.

Forty people out of an address book sign up and send files that real tools made; some forget their password. Whatever
they do, nothing ends in a 5xx and the log holds no traceback.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import trustme

from tests.conftest import App, Cookiecutter

PASSWORD = "correct horse battery staple 42"

# What these browsers send with a navigation, copied from them; a command-line client and an old phone too.
BROWSERS = {
    "Firefox": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "de,en-US;q=0.7,en;q=0.3",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "DNT": "1",
        "Sec-GPC": "1",
        "Upgrade-Insecure-Requests": "1",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-User": "?1",
        "Priority": "u=0, i",
    },
    "Chrome": {
        "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/141.0.0.0 Safari/537.36",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
        "application/signed-exchange;v=b3;q=0.7",
        "Accept-Language": "en-US,en;q=0.9,fr;q=0.8",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "sec-ch-ua": '"Google Chrome";v="141", "Not?A_Brand";v="8", "Chromium";v="141"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-platform": '"Windows"',
        "Upgrade-Insecure-Requests": "1",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "same-origin",
        "Cache-Control": "max-age=0",
    },
    "Safari": {
        "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.6 Mobile/15E148 Safari/604.1",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "ja-JP,ja;q=0.9",
        "Accept-Encoding": "gzip, deflate, br",
        "Sec-Fetch-Dest": "document",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Site": "same-origin",
    },
    "curl": {"User-Agent": "curl/8.14.1", "Accept": "*/*"},
    "an old phone": {
        "User-Agent": "Mozilla/5.0 (Linux; U; Android 4.0.3; de-de; GT-I9100 Build/IML74K) AppleWebKit/534.30 "
        "(KHTML, like Gecko) Version/4.0 Mobile Safari/534.30",
        "Accept": "application/xml,application/xhtml+xml,text/html;q=0.9,text/plain;q=0.8,image/png,*/*;q=0.5",
        "Accept-Charset": "utf-8, iso-8859-1, utf-16, *;q=0.7",
        "Accept-Language": "de-DE, en-US",
        "Cookie2": "$Version=1",
    },
}
TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".txt": "text/plain",
    ".webp": "image/webp",
}
LOCAL_PARTS = ["ann", "Bo.Li", "c.o'brien", "d+news", "e_f-g", "x" * 63, "1984", "h.i.j.k", "zoe.muller", "l-m"]
DOMAINS = ["example.com", "mail.example.org", "a-b.example.net", "EXAMPLE.COM"]


class Postbox(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it is sent: as much of RFC 5321 as one client needs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Postman)
        self.mails: list[str] = []


class Postman(socketserver.StreamRequestHandler):
    server: Postbox

    def handle(self) -> None:
        self.wfile.write(b"220 postbox\r\n")
        for line in self.rfile:
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n")
            if command == b"QUIT":
                return


@dataclass
class Server:
    url: str
    authority: Path
    log: Path
    postbox: Postbox

    def person(self, number: int, browser: str = "Firefox") -> Person:
        return Person(self, f"198.51.{100 + number // 256}.{number % 256}", browser)

    def check_calm(self) -> None:
        log = self.log.read_text()
        assert "Traceback" not in log
        assert not re.search(r"\b(ERROR|CRITICAL)\b", log)


class Person:
    """Somebody at a browser: keeps cookies, follows redirects, sends a form with its hidden fields."""

    def __init__(self, server: Server, address: str, browser: str) -> None:
        self.server, self.session = server, requests.Session()
        self.session.trust_env = False
        self.session.verify = str(server.authority)
        self.session.headers = {**BROWSERS[browser], "X-Forwarded-For": address, "X-Forwarded-Proto": "https"}

    def get(self, path: str) -> requests.Response:
        return self._calm(self.session.get(self.server.url + path, timeout=30))

    def token(self, page: str) -> str:
        return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', self.get(page).text)[1]

    def post(self, path: str, data: dict[str, str] | None = None, page: str = "") -> requests.Response:
        """Fill in the form of a page (the path's own by default) and send it."""
        page = page or path
        headers = {"Origin": self.server.url, "Referer": self.server.url + page}
        fields = {"csrf_token": self.token(page), **(data or {})}
        return self._calm(self.session.post(self.server.url + path, fields, headers=headers, timeout=60))

    @staticmethod
    def _calm(response: requests.Response) -> requests.Response:
        for answer in [*response.history, response]:
            assert answer.status_code < 500, f"{answer.url}: {answer.status_code}"
        return response

    def register(self, email: str) -> None:
        fields = {"email": email, "password": PASSWORD, "password_confirm": PASSWORD}
        assert self.post("/register", fields).status_code == 200

    def sign_in(self, email: str, password: str = PASSWORD) -> bool:
        self.post("/login", {"email": email, "password": password})
        return "/login" not in self.get("/uploads").url

    def upload(self, path: Path, name: str = "") -> requests.Response:
        """Send a file the way the page's script does."""
        name = name or path.name
        files = {"file": (name, path.read_bytes(), TYPES[Path(name).suffix])}
        headers = {"Accept": "application/json", "Origin": self.server.url, "X-CSRFToken": self.token("/uploads")}
        return self._calm(self.session.post(f"{self.server.url}/uploads", files=files, headers=headers, timeout=60))


@pytest.fixture(scope="module")
def server(default_app: App, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    app = Cookiecutter(template, folder / "out", folder / "home").app()
    programs = default_app.folder / ".venv/bin"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Postbox() as postbox:
        threading.Thread(target=postbox.serve_forever, daemon=True).start()
        settings = {
            "SERVER_NAME": f"localhost:{port}",
            "TRUSTED_PROXY_HOPS": "1",
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(postbox.server_address[1]),
            "MAIL_USE_TLS": "0",
            "MAIL_DEFAULT_SENDER": "app@example.com",
        }
        command = [
            programs / "gunicorn",
            "wsgi:app",
            "--bind",
            f"127.0.0.1:{port}",
            "--certfile",
            folder / "server.pem",
        ]
        default_app.run(programs / "flask", "--app", "app", "db", "upgrade", cwd=app)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=app, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_for(port, process, folder / "log")
            yield Server(f"https://localhost:{port}", folder / "authority.pem", folder / "log", postbox)
        finally:
            process.terminate()
            process.wait(30)
            postbox.shutdown()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def member(server: Server) -> Person:
    person = server.person(300)
    person.register("files@example.com")
    assert person.sign_in("files@example.com")
    return person


@pytest.fixture(scope="module")
def real_files(default_app: App, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    ask = "from tests.programs import PROGRAMS as p; print(p['browser'].path() or p['browser'].playwrights(), end='')"
    python = [default_app.folder / ".venv/bin/python", "-c", ask]
    chromium = subprocess.run(python, cwd=default_app.folder, check=True, capture_output=True, text=True).stdout
    command = ["sh", Path(__file__).with_name("real_files.sh")]
    subprocess.run(command, cwd=folder, env=os.environ | {"CHROMIUM": chromium}, check=True, timeout=120)
    return sorted(folder.iterdir())


def test_an_address_book_signs_up_sends_a_file_and_leaves(server: Server, real_files: list[Path]) -> None:
    people = [f"{local}{number}@{domain}" for number, domain in enumerate(DOMAINS) for local in LOCAL_PARTS]

    def live(number: int) -> None:
        email = people[number]
        person = server.person(number, list(BROWSERS)[number % len(BROWSERS)])
        person.register(email)
        assert person.sign_in(email), email
        path = real_files[number % len(real_files)]
        name = f"{path.stem} – {number} 文件{path.suffix}"
        answer = person.upload(path, name)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == name
        assert html.escape(name) in person.get("/uploads").text
        stolen = person.session.cookies.copy()
        person.post("/logout", page="/uploads")
        person.session.cookies = stolen
        assert "/login" in person.get("/uploads").url

    with ThreadPoolExecutor(4) as pool:
        assert len([None for _ in pool.map(live, range(len(people)))]) == 40
    server.check_calm()


@pytest.mark.parametrize("browser", BROWSERS)
def test_every_page_is_served_to_every_browser(server: Server, browser: str) -> None:
    person = server.person(400 + list(BROWSERS).index(browser), browser)
    for path in ["/", "/uploads", "/login", "/register", "/reset", "/.well-known/security.txt", "/static/app.css"]:
        assert person.get(path).status_code == 200, path
    assert person.get("/nothing").status_code == 404
    server.check_calm()


def test_real_files_come_back_as_what_they_were(
    server: Server, member: Person, real_files: list[Path], tmp_path: Path
) -> None:
    for path in real_files:
        answer = member.upload(path)
        assert answer.status_code == 201, f"{path.name}: {answer.text}"
        back = member.get(f"/uploads/{answer.json()['id']}")
        assert back.headers["Content-Type"].split(";")[0] == TYPES[path.suffix]
        copy = tmp_path / path.name
        copy.write_bytes(back.content)
        if path.suffix in (".pdf", ".txt"):
            assert back.content == path.read_bytes(), path.name
        else:
            assert describe(copy) == describe(path), path.name
    assert b"where I live" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    server.check_calm()


def describe(image: Path) -> str:
    """Format, size and number of frames, as ImageMagick sees them."""
    command = ["identify", "-format", "%m %wx%h %n\n", image]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


@pytest.mark.parametrize("damage", ["half", "no bytes", "a flipped byte each kilobyte", "renamed", "a program"])
def test_damaged_and_renamed_files_get_a_clear_answer(
    server: Server, real_files: list[Path], tmp_path: Path, damage: str
) -> None:
    person = server.person(500 + len(damage))
    person.register(f"damaged{len(damage)}@example.com")
    assert person.sign_in(f"damaged{len(damage)}@example.com")
    for path in real_files:
        content, name = path.read_bytes(), path.name
        if damage == "half":
            content = content[: len(content) // 2]
        elif damage == "no bytes":
            content = b""
        elif damage == "a program":
            content = Path(shutil.which("true")).read_bytes()
        elif damage == "renamed":
            name = path.stem + (".png" if path.suffix != ".png" else ".jpg")
        else:
            content = bytes(byte ^ (0xFF if n % 1024 == 512 else 0) for n, byte in enumerate(content))
        target = tmp_path / name
        target.write_bytes(content)
        answer = person.upload(target)
        # Half a text is a text, and a decoder may well repair a flipped byte.
        may_pass = damage in ("half", "a flipped byte each kilobyte")
        assert answer.status_code in ((201, 415, 422) if may_pass else (415, 422)), f"{name}: {answer.text}"
        if answer.status_code != 201:
            assert answer.json()["detail"].endswith((".", "!"))
    server.check_calm()


def test_a_forgotten_password_is_reset_by_mail(server: Server) -> None:
    person, email = server.person(600), "forgetful@example.com"
    person.register(email)
    assert not person.sign_in(email, "wrong horse battery staple 42")
    known, unknown = person.post("/reset", {"email": email}), person.post("/reset", {"email": "nobody@example.com"})
    assert known.status_code == unknown.status_code == 200
    for _ in range(50):
        if mails := [mail for mail in server.postbox.mails if email in mail and "/reset/" in mail]:
            break
        time.sleep(0.1)
    assert not [mail for mail in server.postbox.mails if "nobody@example.com" in mail]
    link = re.search(rf"{server.url}(/reset/\S+?)[\s\"<]", mails[-1].replace("=\r\n", "").replace("=3D", "="))[1]
    fresh = "a whole new sentence 84"
    assert person.post(link, {"password": fresh, "password_confirm": fresh}).status_code == 200
    other = server.person(601)
    assert not other.sign_in(email)
    assert other.sign_in(email, fresh)
    server.check_calm()
