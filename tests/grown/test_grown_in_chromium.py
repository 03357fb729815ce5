"""What the recipes open in Chromium, with the services of others on this machine; and what stays closed beside it.

tests/test_grown.py puts this file into the grown app's tests/browser/ and runs it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trustme
from app.accounts import identity
from app.accounts.models import db, utcnow
from app.relaxations import RELAXATIONS
from app.security.csp import POLICY
from app.security.headers import HEADERS
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.browser.test_relaxed_in_chromium import PNG, answer
from tests.conftest import Server, post
from tests.origin import Origin
from tests.policies import directives, with_form_targets, with_relaxations
from tests.programs import PROGRAMS
from tests.views.test_orders import FORM

NAMES = ("calendar.example", "checkout.example", "files.example", "maps.example", "pay.example")


@pytest.fixture
def services(authority: trustme.CA) -> Iterator[Origin]:
    """The other sites. None sends CORS, CORP or COEP."""
    with Origin(authority, "maps.example") as site:
        site.answers = {
            # As map libraries do: markup from strings, and pictures in it.
            "/map.js": answer(
                "text/javascript",
                b"addEventListener('load', () => { document.querySelector('#map').innerHTML ="
                b" '<b>built</b><img id=built src=https://maps.example/tile.png>' })",
            ),
            "/tile.png": answer("image/png", PNG),
            "/pay.js": answer("text/javascript", b"document.title = 'paid'"),
            "/card": answer("text/html", b"<p>Card</p>"),
            "/grant": answer("text/html", b"<script>opener?.postMessage('granted', '*')</script>"),
            "/pay/year": answer("text/html", b"<h1>Checkout</h1>"),
            "/favicon.ico": answer("image/png", PNG),
            "/": answer("text/html", b"<h1>Somewhere else</h1>"),
        }
        yield site


@dataclass
class Visitor:
    """A member in Chromium. ``faults`` are what its console complains of; the end of the test asks for none."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def visit(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def is_shown(self, picture: str) -> bool:
        """Whether a picture arrives, in two seconds at most."""
        loaded = "picture => picture.decode().then(() => picture.naturalWidth > 0, () => false)"
        return bool(self.page.locator(picture).evaluate(loaded))


@pytest.fixture
def visitor(
    browser: Browser, services: Origin, app: Flask, member: FlaskClient, serve: Callable[..., Server]
) -> Iterator[Visitor]:
    server = serve(OPERATORS="alice@example.com")
    hosts = ", ".join(f"MAP {name}:443 127.0.0.1:{services.server_address[1]}" for name in NAMES)
    launched = browser.browser_type.launch(
        executable_path=PROGRAMS["browser"].path(),
        args=["--no-sandbox", "--disable-gpu", f"--host-resolver-rules={hosts}, MAP * 127.0.0.1"],
    )
    context = launched.new_context(ignore_https_errors=True)
    cookie = member.get_cookie("__Host-session")
    assert cookie
    context.add_cookies([{"name": "__Host-session", "value": cookie.value, "url": server.url}])
    visiting = Visitor(context.new_page(), server.url)
    visiting.page.on("console", visiting.note)
    visiting.page.on("pageerror", lambda error: visiting.faults.append(str(error)))
    yield visiting
    launched.close()
    assert visiting.faults == []


def test_the_map_has_its_tiles_and_what_its_script_builds(visitor: Visitor) -> None:
    page = visitor.visit("/places/map")
    expect(page.get_by_text("built")).to_be_visible()
    assert visitor.is_shown("#built")
    assert visitor.is_shown("main > img")


def test_the_payment_frame_and_its_script_load(visitor: Visitor) -> None:
    page = visitor.visit("/places/donate")
    expect(page).to_have_title("paid")
    expect(page.frame_locator("main iframe").get_by_text("Card")).to_be_visible()
    may = "document.featurePolicy.allowsFeature"
    card = page.frame("https://pay.example/card") or page.frames[-1]
    assert [card.evaluate(f"{may}('{feature}')") for feature in ("payment", "camera")] == [True, False]


def test_the_pop_up_talks_to_its_opener(visitor: Visitor) -> None:
    page = visitor.visit("/places/connect")
    with page.expect_popup():
        page.get_by_role("button", name="Open the calendar").click()
    expect(page.locator("#connected")).to_have_text("Connected: granted")


def test_htmx_shows_what_it_finds_and_ignores_what_has_no_nonce(visitor: Visitor) -> None:
    page = visitor.visit("/search")
    page.get_by_label("Bikes").press_sequentially("blue")
    expect(page.locator("#found li")).to_have_text(["Blue city bike"])
    page.evaluate(
        """() => {
            const injected = document.createElement("button");
            injected.setAttribute("hx-get", "/search/results");
            injected.id = "injected";
            document.querySelector("main").append(injected);
            htmx.process(injected);
        }"""
    )
    page.locator("#injected").click()
    page.wait_for_timeout(300)
    expect(page.locator("#injected")).to_be_empty()
    assert any("no hx-nonce attribute" in fault for fault in visitor.faults)
    visitor.faults.clear()
    sinks = "text => { try { document.querySelector('#found').innerHTML = text } catch (error) { return error.name } }"
    assert page.evaluate(sinks, "<b>x</b>") == "TypeError"  # other scripts may build no markup, here neither
    visitor.faults.clear()


def test_fonts_and_pictures_of_the_page_load(visitor: Visitor) -> None:
    page = visitor.visit("/")
    load = "document.fonts.load('16px Inter').then(found => found.map(font => font.status))"
    assert page.evaluate(load) == ["loaded"]
    assert visitor.is_shown("main img")


def test_scripts_of_the_site_add_listen_and_echo(visitor: Visitor) -> None:
    page = visitor.visit("/basket")
    page.get_by_role("button", name="Add a helmet").click()
    expect(page.locator("#basket li")).to_have_text(["A helmet"])
    listen = """() => new Promise(done => {
        const events = new EventSource("/live/events"), told = [];
        events.addEventListener("message", event => {
            if (told.push(event.data) === 3) { events.close(); done(told); }
        });
    })"""
    assert page.evaluate(listen) == ['{"number": 0}', '{"number": 1}', '{"number": 2}']
    echo = """() => new Promise(done => {
        const socket = new WebSocket(location.origin.replace("https", "wss") + "/live/echo");
        socket.addEventListener("open", () => socket.send("hello"));
        socket.addEventListener("message", event => { socket.close(); done(event.data); });
        socket.addEventListener("error", () => done("refused"));
    })"""
    assert page.evaluate(echo) == "hello"


def test_the_order_form_and_the_checkout_are_usable(visitor: Visitor) -> None:
    page = visitor.visit("/orders/new")
    page.get_by_label("Name").fill("Ann")
    page.get_by_label("Size").select_option("Large")
    page.get_by_label("Day").fill("2030-05-06")
    page.get_by_label("Bring it").check()
    page.get_by_label("Wishes").fill("A basket")
    page.get_by_label("I accept the terms").check()
    page.get_by_role("button", name="Order").click()
    expect(page.get_by_text("A large bike for 2030-05-06.")).to_be_visible()
    visitor.visit("/shop/pay")
    page.get_by_label("Plan").select_option("A year")
    page.get_by_role("button", name="Go to the checkout").click()
    page.wait_for_url("https://checkout.example/pay/year")
    expect(page.get_by_role("heading")).to_have_text("Checkout")


def test_the_admin_works_for_an_operator(visitor: Visitor, app: Flask, member: FlaskClient) -> None:
    post(member, "/orders/new", FORM)
    with app.app_context():
        user = identity.find_user("alice@example.com")
        assert user
        user.confirmed_at = utcnow()
        db.session.commit()
    page = visitor.visit("/admin/order/")
    expect(page.get_by_text("2030-05-06")).to_be_visible()
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    page.get_by_title("Delete record").click()
    expect(page.get_by_text("2030-05-06")).to_be_hidden()
    assert asked == ["Are you sure you want to delete this record?"]


def test_the_rest_of_the_site_keeps_the_strict_policy(visitor: Visitor, app: Flask) -> None:
    """The headers, word by word, and that what the relaxed pages load is blocked here."""
    strict = with_relaxations(with_form_targets(POLICY, app), tuple(RELAXATIONS))
    for path in ("/", "/uploads", "/basket", "/orders/new", "/account", "/nothing"):
        answer = visitor.page.request.get(visitor.url + path)
        found = directives(answer.headers["content-security-policy"])
        assert found | {"script-src": found["script-src"].replace(" 'nonce'", "")} == strict, path
        headers = {name: answer.headers[name.lower()] for name in HEADERS if name.startswith("Cross-Origin-")}
        assert headers == {name: HEADERS[name] for name in headers}, path
    page = visitor.visit("/account")
    page.evaluate(
        """() => {
            const [picture, frame] = ["img", "iframe"].map(name => document.createElement(name));
            picture.src = "https://maps.example/tile.png";
            frame.src = "https://pay.example/card";
            picture.id = "foreign";
            document.querySelector("main").append(picture, frame);
        }"""
    )
    assert not visitor.is_shown("#foreign")
    with page.expect_popup() as popup:
        page.evaluate("open('https://calendar.example/')")
    assert popup.value.evaluate("opener") is None
    blocked = [fault for fault in visitor.faults if "violates the following Content Security Policy" in fault]
    assert len(blocked) == 2, visitor.faults
    visitor.faults.clear()
