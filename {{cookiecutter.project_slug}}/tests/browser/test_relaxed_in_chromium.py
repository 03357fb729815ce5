"""What ``@relax`` opens in Chromium, with another site on this machine, and what stays closed beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
from flask import Flask, Response, render_template_string
from playwright.sync_api import Page

from app import create_app
from app.security.headers import relax
from app.visitors import public
from tests.browser.conftest import reports
from tests.origin import Origin

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgAAIAAAUAAXpeqz8AAAAASUVORK5CYII=")
# One glyph, a triangle; made with fontTools.
FONT = base64.b64decode(
    "d09GRgABAAAAAAIYAAoAAAAAAlQAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAABPUy8yAAABZAAAACMAAABgQVhB/WNtYXAAAAGQAAAAKQAAADQADAC0Z2x5"
    "ZgAAAcQAAAAcAAAALC4QLg5oZWFkAAAA9AAAADYAAAA2L2TDzmhoZWEAAAEsAAAAHwAAACQFFgH2aG10eAAAAYgAAAAGAAAABgJYAABsb2NhAAABvAAA"
    "AAYAAAAGABYAC21heHAAAAFMAAAAFgAAACAABAAFbmFtZQAAAeAAAAApAAAAOXhAgCRwb3N0AAACDAAAAAwAAAAgAAMAAAABAAAAAQAAaE8vil8PPPUA"
    "AwPoAAAAAOctQH0AAAAA5y1AfQAAAAAB9AH0AAAAAwACAAAAAAAAeJxjYGRgYFb4b8HAwBTBwMCQwviFASiCAhgBTAMDEQB4nGNgZGBgYGJgZgDRIBYa"
    "AAAA+QAKAAB4nGNgZopgnMDAysDCQBgwInPsgQBIJQIhLqDAwAAAlBMC1wACWAAAAAAAAHicY2BgYGJgYGAGYhEgyQimWRgUgDQLEIL4if//Q8j/C8B8"
    "BgBVNwa9AAAAAAAACwAWAAB4nGNgZAACxi+MXxiYGBgMFQXBTAasogCkRAh1eJxjYGBgYTBjYGQAAUYwDWEzgWlmBkYWTiALxIOwmUDsCoYKABGhAV0A"
    "AAB4nGNgZsALAAB9AAQ="
)


def answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def elsewhere(authority: trustme.CA) -> Iterator[Origin]:
    """A site that knows nothing of us: no CORS, no CORP, no COEP."""
    with Origin(authority, "elsewhere.test") as site:
        site.answers = {
            "/tile.png": answer("image/png", PNG),
            # As map and payment libraries do: markup from strings, pictures from its own host, and a function for us.
            "/library.js": answer(
                "text/javascript",
                b"document.querySelector('#place').innerHTML = `<b>built</b><img src=\"${"
                b"new URL('/tile.png', document.currentScript.src)}\">`; window.library = 'ran'",
            ),
            "/frame": answer("text/html", b"<script>parent.postMessage('from the frame', '*')</script>"),
            "/pop-up": answer("text/html", b"<script>opener?.postMessage('from the pop-up', '*')</script>"),
        }
        yield site


# What a page does → its markup, where ELSEWHERE is the other site, what Chromium then says of it, and what opens it.
STRINGS = {"require-trusted-types-for": None, "trusted-types": None}
NO_ISOLATION = {"Cross-Origin-Embedder-Policy": None}
LISTEN = "<script nonce={{ csp_nonce() }}>addEventListener('message', event => window.told = event.data)</script>"
FRAGMENT = "<b id=swapped>swapped</b><img src=x onerror=owned=1>"
PAGES: dict[str, tuple[str, str, Callable[[str], relax]]] = {
    "map": (
        "<div id=place></div><script src=ELSEWHERE/library.js nonce={{ csp_nonce() }}></script>",
        "library === 'ran' && document.querySelector('#place img').naturalWidth === 1",
        lambda elsewhere: relax(
            "a map",
            csp={"script-src": f"'strict-dynamic' {elsewhere}", "img-src": f"'self' {elsewhere}", **STRINGS},
            headers={"Cross-Origin-Embedder-Policy": "credentialless"},
        ),
    ),
    "tiles": (
        "<img src=ELSEWHERE/tile.png>",
        "document.images[0].naturalWidth === 1",
        lambda elsewhere: relax("tiles", csp={"img-src": f"'self' {elsewhere}"}, headers=NO_ISOLATION),
    ),
    "payment": (
        LISTEN + "<iframe src=ELSEWHERE/frame></iframe>",
        "told === 'from the frame'",
        lambda elsewhere: relax("a payment form", csp={"frame-src": elsewhere}, headers=NO_ISOLATION),
    ),
    "sign-in": (
        LISTEN + "<button>Sign in</button><script nonce={{ csp_nonce() }}>"
        "document.querySelector('button').addEventListener('click', () => open('ELSEWHERE/pop-up'))</script>",
        "told === 'from the pop-up'",
        lambda elsewhere: relax("a pop-up", headers={"Cross-Origin-Opener-Policy": "same-origin-allow-popups"}),
    ),
    "htmx": (
        "<div></div><script nonce={{ csp_nonce() }}>fetch('/tested-fragment').then(answer => answer.text())"
        ".then(text => document.querySelector('div').innerHTML = text)</script>",
        "document.querySelector('#swapped').textContent === 'swapped' && window.owned === undefined",
        lambda elsewhere: relax("fragments", csp=STRINGS),
    ),
    "data picture": (
        f"<img src=data:image/png;base64,{base64.b64encode(PNG).decode()}>",
        "document.images[0].naturalWidth === 1",
        lambda elsewhere: relax("pictures in a style sheet", csp={"img-src": "'self' data:"}),
    ),
}


def add_pages(app: Flask, elsewhere: str) -> None:
    """Each page twice: relaxed, and strict."""

    def show(markup: str) -> str:
        return render_template_string("<!DOCTYPE html><title>x</title>" + markup.replace("ELSEWHERE", elsewhere))

    for number, (markup, _, opened) in enumerate(PAGES.values()):
        app.add_url_rule(
            f"/tested-relaxed/{number}", f"relaxed{number}", public(opened(elsewhere)(partial(show, markup)))
        )
        app.add_url_rule(f"/tested-strict/{number}", f"strict{number}", public(partial(show, markup)))
    half = relax("half of it", csp={"img-src": f"'self' {elsewhere}"})
    app.add_url_rule("/tested-half", "half", public(half(partial(show, "<img src=ELSEWHERE/tile.png>"))))
    app.add_url_rule("/tested-fragment", "fragment", public(lambda: FRAGMENT))
    app.add_url_rule("/tested-font.woff", "font", public(lambda: Response(FONT, content_type="font/woff")))


def works(page: Page, address: str, condition: str) -> bool:
    page.goto(address)
    page.evaluate("document.querySelector('button')?.click()")
    for _ in range(20):  # two seconds
        if page.evaluate(f"(() => {{ try {{ return {condition} }} catch {{ return false }} }})()"):
            return True
        page.wait_for_timeout(100)
    return False


@pytest.mark.parametrize("name", PAGES)
def test_3_S4_a_relaxed_page_works_and_the_same_page_without_it_does_not(
    serve_views: Callable[..., str], page: Page, elsewhere: Origin, name: str
) -> None:
    base = serve_views(partial(add_pages, elsewhere=elsewhere.url))
    number, condition = list(PAGES).index(name), PAGES[name][1]
    assert works(page, f"{base}/tested-relaxed/{number}", condition)
    assert not works(page, f"{base}/tested-strict/{number}", condition)


def test_3_S3_a_font_of_the_site_itself_loads(serve_views: Callable[..., str], page: Page, elsewhere: Origin) -> None:
    base = serve_views(partial(add_pages, elsewhere=elsewhere.url))
    page.goto(f"{base}/tested-strict/0")
    load = "url => new FontFace('x', `url(${url})`).load().then(font => font.status, error => error.name)"
    assert page.evaluate(load, "/tested-font.woff") == "loaded"
    assert page.evaluate(load, f"{elsewhere.url}/tested-font.woff") == "NetworkError"


# What Chromium blocks → the page, and what ``flask csp-reports`` then prints.
BLOCKED = {
    "coep": (
        "/tested-half",
        "cross-origin-embedder-policy",
        'headers={"Cross-Origin-Embedder-Policy": "credentialless"}',
    ),
    "coop": (
        f"/tested-strict/{[*PAGES].index('sign-in')}",
        "cross-origin-opener-policy",
        'headers={"Cross-Origin-Opener-Policy": "same-origin-allow-popups"}',
    ),
    "csp": (f"/tested-strict/{[*PAGES].index('tiles')}", "img-src", 'csp={"img-src": "\'self\' ELSEWHERE"}'),
    "permissions": ("/tested-half", "permissions-policy", 'headers={"Permissions-Policy": "camera=(self)"}'),
}


@pytest.mark.parametrize("blocker", BLOCKED)
def test_3_S5_what_chromium_blocks_is_reported_with_its_door(
    serve_views: Callable[..., str],
    page: Page,
    elsewhere: Origin,
    app_config: dict[str, object],
    tmp_path: Path,
    blocker: str,
) -> None:
    path, directive, door = BLOCKED[blocker]
    page.goto(serve_views(partial(add_pages, elsewhere=elsewhere.url)) + path + "?token=hidden")
    page.evaluate("document.querySelector('button')?.click()")
    page.evaluate("navigator.mediaDevices.getUserMedia({video: true}).catch(() => 0)")
    for _ in range(50):
        if found := [each for each in reports(tmp_path) if each["directive"] == directive]:
            break
        page.wait_for_timeout(100)
    assert {each["document"] for each in found} == {path}
    if blocker == "coep":
        assert found[0]["blocked"] == f"{elsewhere.url}/tile.png"
        assert page.evaluate("document.images[0].naturalWidth") == 0
    app = create_app(app_config)
    app.instance_path = str(tmp_path)
    output = app.test_cli_runner().invoke(args=["csp-reports"]).output
    assert f'@relax("why", {door.replace("ELSEWHERE", elsewhere.url)})' in output
    assert "hidden" not in output
