"""Mitigation 6, security headers: every response is looked at, whoever made it; http and spoofed proxies are tried.

The values expected are those of the OWASP Secure Headers Project and of MDN's HTTP Observatory, read by hand.
"""

from __future__ import annotations

import ast
import gzip
import http.client
import io
import json
import re
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from flask import Flask, Response, abort, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app, relaxations
from app.security import errors, headers
from app.security.headers import relax
from app.visitors import public
from tests.conftest import ROOT, Server, browser_like, csrf_token, post, session_cookie, stop
from tests.policies import directives, looser, relaxed_at, with_form_targets, with_relaxations
from tests.test_03_csp import POLICY

HTTP = "http://localhost"
REPORTED = '; report-to="default"'  # COEP and COOP say where their violations are reported

# Header → the only value, or the values, that pass.
EXPECTED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "0",
    "X-Permitted-Cross-Domain-Policies": "none",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": 'same-origin; report-to="default"',
    "Cross-Origin-Embedder-Policy": 'require-corp; report-to="default"',
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
}
# The list of the OWASP Secure Headers Project, less interest-cohort, cross-origin-isolated and unload (no powers), and
# web-share (unknown to Chromium on Linux, which would warn on each page: see tests/browser/test_pages.py).
POWERFUL = """
    accelerometer autoplay camera clipboard-read clipboard-write display-capture encrypted-media fullscreen gamepad
    geolocation gyroscope hid idle-detection keyboard-map local-fonts magnetometer microphone midi payment
    picture-in-picture publickey-credentials-get screen-wake-lock serial sync-xhr usb xr-spatial-tracking
""".split()  # noqa: SIM905


# What a view may set itself, since it is stricter.
STRICTER = {"Referrer-Policy": {"no-referrer", "same-origin", "strict-origin"}}


def strict_at(app: Flask, path: str) -> dict[str, str]:
    """The headers of a page: the strict ones, with what the app declares in ``@relax`` or relaxations.py."""
    wanted = with_relaxations(EXPECTED, relaxed_at(app, path))
    for name in ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"):
        if name in wanted:
            wanted[name] = f"{wanted[name].removesuffix(REPORTED)}{REPORTED}"
    return wanted


def assert_complete(app: Flask, response: TestResponse, *, https: bool = True) -> None:
    path = response.request.path if response.status_code < 400 else "/nothing"
    relaxed, wanted = relaxed_at(app, path), strict_at(app, path)
    policy = with_relaxations(with_form_targets(POLICY, app), relaxed)
    if not https:
        del wanted["Strict-Transport-Security"]
        policy.pop("upgrade-insecure-requests", None)
    for name in EXPECTED:
        assert (name, response.headers.getlist(name)) == (name, [wanted[name]] if name in wanted else [])
    assert granted(response) <= allowed(relaxed)
    csp = response.headers.getlist("Content-Security-Policy")
    assert len(csp) == 1
    assert looser(directives(csp[0]), policy) == {}
    assert len(response.headers.getlist("X-Request-ID")) == 1


def granted(response: TestResponse) -> set[str]:
    """The powerful features that a response does not deny."""
    (policy,) = response.headers.getlist("Permissions-Policy") or [""]
    return {feature for feature in POWERFUL if f"{feature}=()" not in policy.split(", ")}


def allowed(relaxed: tuple[relax, ...]) -> set[str]:
    """The features that the app declares to grant; all, if it removes the header."""
    values = [each.headers["Permissions-Policy"] for each in relaxed if "Permissions-Policy" in each.headers]
    return (
        set(POWERFUL)
        if None in values
        else {part.split("=")[0].strip() for v in values for part in (v or "").split(",")}
    )


def fail(*_: object) -> Response:
    raise RuntimeError


@pytest.fixture
def odd_app(app: Flask) -> Flask:
    """The app with views that fail, redirect and stream."""
    app.add_url_rule("/tested-fail", "fail", public(fail))
    app.add_url_rule("/tested-folder/", "folder", public(lambda: "in"))
    app.add_url_rule("/tested-abort/<int:status>", "abort", public(lambda status: abort(status)))
    app.add_url_rule("/tested-stream", "stream", public(lambda: Response(iter(["a", "b"]))))
    app.add_url_rule("/tested-empty", "empty", public(lambda: ("", 204)))
    app.add_url_rule("/tested-echo", "echo", public(lambda: errors.refuse(422, request.args.get("q", ""))))

    @app.teardown_request
    def _fail_late(_: object) -> None:
        if "late" in request.args:
            fail()

    @app.after_request
    def _fail_in_hook(response: Response) -> Response:
        return fail() if "hook" in request.args else response

    return app


# What made the response → method, path, headers, the status.
RESPONSES: dict[str, tuple[str, str, dict[str, str], int]] = {
    "page": ("GET", "/", {}, 200),
    "head": ("HEAD", "/", {}, 200),
    "options": ("OPTIONS", "/", {}, 200),
    "text": ("GET", "/.well-known/security.txt", {}, 200),
    "json": ("GET", "/healthz", {}, 200),
    "static": ("GET", "/static/app.css", {}, 200),
    "static part": ("GET", "/static/app.css", {"Range": "bytes=0-9"}, 206),
    "static unchanged": ("GET", "/static/app.css", {"If-Modified-Since": "Fri, 31 Dec 2038 00:00:00 GMT"}, 304),
    "static missing": ("GET", "/static/none", {}, 404),
    "range wrong": ("GET", "/static/app.css", {"Range": "bytes=99999999-"}, 416),
    "missing": ("GET", "/nothing", {}, 404),
    "missing as json": ("GET", "/nothing", {"Accept": "application/json"}, 404),
    "method": ("PUT", "/healthz", {}, 405),
    "without token": ("POST", "/uploads", {}, 400),
    "redirect": ("GET", "/tested-folder", {}, 308),
    "empty": ("GET", "/tested-empty", {}, 204),
    "stream": ("GET", "/tested-stream", {}, 200),
    "unavailable": ("GET", "/tested-abort/503", {}, 503),
    "teapot": ("GET", "/tested-abort/418", {}, 418),
    "null byte": ("GET", "/?a=%00", {}, 400),
    "unknown host": ("GET", "/", {"Host": "evil.example"}, 400),
    "failing view": ("GET", "/tested-fail", {}, 500),
    "failing hook": ("GET", "/?hook=1", {}, 500),
    "failing hook on an error": ("GET", "/nothing?hook=1", {}, 500),
    "failing teardown": ("GET", "/?late=1", {}, 500),
}


@pytest.mark.parametrize("maker", RESPONSES)
def test_6_S2_every_response_has_every_header_once(odd_app: Flask, maker: str) -> None:
    method, path, sent, status = RESPONSES[maker]
    with browser_like(odd_app).open(path, method=method, headers=sent) as response:
        assert response.status_code == status
        assert_complete(odd_app, response)


@pytest.mark.parametrize("query", ["", "?inline=1"])
def test_6_S2_a_download_has_them_too(member: FlaskClient, query: str) -> None:
    sent = post(member, "/uploads", {"file": (io.BytesIO(b"text"), "a.txt")}, headers={"Accept": "application/json"})
    with member.get(f"{sent.headers['Location']}{query}") as response:
        assert response.status_code == 200
        assert_complete(member.application, response)


def test_6_S2_no_view_has_looser_headers_than_it_declares(app: Flask, member: FlaskClient) -> None:
    """A view may set stricter ones itself; looser ones need ``@relax`` and its reason."""
    faults = []
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments and not rule.websocket:
            with member.get(rule.rule) as response:
                path = rule.rule if response.status_code < 400 else "/nothing"
                for name, value in strict_at(app, path).items():
                    if {*response.headers.getlist(name)} - {value} - STRICTER.get(name, set()):
                        faults.append((rule.rule, name, response.headers.getlist(name)))
                if more := granted(response) - allowed(relaxed_at(app, path)):
                    faults.append((rule.rule, "Permissions-Policy", sorted(more)))
    assert faults == []


def test_6_S2_the_redirect_to_https_too_but_without_hsts(client: FlaskClient) -> None:
    assert_complete(client.application, client.get("/", base_url=HTTP), https=False)  # RFC 6797, 7.2: never over http


@pytest.mark.parametrize("path", ["/", "/nothing", "/.well-known/security.txt", "/healthz"])
def test_6_S4_nothing_personal_is_kept_by_a_cache(client: FlaskClient, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_6_S4_a_view_s_own_stricter_values_stay(app: Flask) -> None:
    own = {
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(self)",
        "Cache-Control": "private, no-cache",
        "Cross-Origin-Resource-Policy": "same-site",
    }
    app.add_url_rule("/tested-own", "own", public(lambda: Response("x", headers=own)))
    response = browser_like(app).get("/tested-own")
    assert {name: response.headers.getlist(name) for name in own} == {name: [value] for name, value in own.items()}
    assert response.headers["X-Content-Type-Options"] == "nosniff"


EMBEDS = relax(
    "a payment frame, which opens a pop-up",
    csp={"frame-ancestors": "'self' https://partner.example"},
    headers={
        "Cross-Origin-Embedder-Policy": None,
        "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
        "Permissions-Policy": "payment=(self), camera=*",
    },
)


def test_6_S4_a_view_is_relaxed_with_a_reason_and_nothing_else(app: Flask) -> None:
    app.add_url_rule("/tested-pay", "tested_pay", public(EMBEDS(lambda: abort(404) if request.args else "pay")))
    app.add_url_rule("/tested-other", "tested_other", public(lambda: "other"))
    client = browser_like(app)
    for path in ("/tested-other", "/tested-pay?fail"):
        assert_complete(app, client.get(path))
    response = client.get("/tested-pay")
    changed = {"Cross-Origin-Opener-Policy": f"same-origin-allow-popups{REPORTED}"}
    removed = (
        "Cross-Origin-Embedder-Policy",
        "X-Frame-Options",
    )  # frame-ancestors names hosts, and the other one can't
    wanted = {name: value for name, value in strict_at(app, "/tested-other").items() if name not in removed} | changed
    assert {name: response.headers[name] for name in EXPECTED if name in response.headers} == wanted
    assert granted(response) == {"payment", "camera"} | allowed(relaxed_at(app, "/tested-other"))
    assert "payment=(self)" in response.headers["Permissions-Policy"]
    assert (
        directives(response.headers["Content-Security-Policy"])["frame-ancestors"] == "'self' https://partner.example"
    )


@pytest.mark.parametrize(
    ("ancestors", "old"), [("'none'", ["DENY"]), ("'self'", ["SAMEORIGIN"]), ("https://a.example", []), (None, [])]
)
def test_6_S3_both_headers_against_framing_say_the_same(app: Flask, ancestors: str | None, old: list[str]) -> None:
    app.add_url_rule(
        "/tested-framed", "tested_framed", public(relax("a partner", csp={"frame-ancestors": ancestors})(lambda: ""))
    )
    response = browser_like(app).get("/tested-framed")
    assert response.headers.getlist("X-Frame-Options") == old
    assert directives(response.headers["Content-Security-Policy"]).get("frame-ancestors") == ancestors


def test_6_S2_the_whole_app_is_relaxed_in_its_own_file_also_where_it_fails(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaxations, "RELAXATIONS", (EMBEDS,))
    app = create_app(app_config)
    client = browser_like(app)
    for path in ("/healthz", "/nothing"):
        assert "Cross-Origin-Embedder-Policy" not in client.get(path).headers
    with monkeypatch.context() as patch:
        patch.setattr(app, "full_dispatch_request", fail)
        patch.setattr(app, "handle_exception", fail)
        response = client.get("/")
    assert (response.status_code, response.mimetype) == (500, "text/plain")
    assert "Cross-Origin-Embedder-Policy" not in response.headers
    assert response.headers["Cross-Origin-Opener-Policy"] == f"same-origin-allow-popups{REPORTED}"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


def test_6_S2_the_proxy_leaves_what_the_app_relaxed(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied("tests.relaxed:app")
    _, framed, _ = server.request("/tested-framed")
    assert "partner.test" in framed["Content-Security-Policy"]
    assert "X-Frame-Options" not in framed


def test_6_S3_preload_is_asked_for_by_setting(app_config: dict[str, object]) -> None:
    response = browser_like(create_app(app_config | {"HSTS_PRELOAD": True})).get("/healthz")
    assert response.headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains; preload"


def test_6_S3_only_debug_relaxes_https_and_says_so(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"FLASK_DEBUG": True})
    for origin in (HTTP, "https://localhost"):
        response = browser_like(app, origin).get("/", base_url=origin)
        assert response.status_code == 200
        assert "Strict-Transport-Security" not in response.headers
    assert [(finding.id, finding.severity) for finding in headers.check(app)] == [("HD03", "relaxed")]
    assert list(headers.check(create_app(app_config))) == []


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "NONSENSE")


@pytest.mark.parametrize("method", METHODS)
def test_6_T3_http_is_redirected_for_every_method_and_never_reads_the_body(client: FlaskClient, method: str) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("the body was read")

        readline = readinto = readlines = read  # type: ignore[assignment]

    form = "application/x-www-form-urlencoded"
    response = client.open(
        "/uploads?a=b", base_url=HTTP, method=method, input_stream=Unread(), content_length=9, content_type=form
    )
    assert (response.status_code, response.headers["Location"]) == (308, "https://localhost/uploads?a=b")
    assert response.text == ""
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", "https://localhost/"),
        ("/nothing", "https://localhost/nothing"),
        ("//evil.example/x", "https://localhost/evil.example/x"),
        ("/\\evil.example", "https://localhost/%5Cevil.example"),
        ("/%5cevil.example", "https://localhost/%5Cevil.example"),
        ("/a%0d%0aSet-Cookie:%20x=y", "https://localhost/a%0D%0ASet-Cookie:%20x=y"),
        ("/a%3fb%23c?d=%0d%0a", "https://localhost/a%3Fb%23c?d=%0d%0a"),
        ("/%c3%a4?q=%c3%a4", "https://localhost/%C3%A4?q=%C3%A4"),
        ("/@evil.example", "https://localhost/@evil.example"),
    ],
)
def test_6_T3_the_redirect_stays_on_the_canonical_host(client: FlaskClient, path: str, target: str) -> None:
    path, _, query = path.partition("?")
    raw = {"PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query}  # as a server passes them on
    response = client.get("/", base_url=HTTP, environ_overrides=raw)
    assert (response.status_code, response.headers["Location"]) == (308, target)


def test_6_T3_the_host_of_the_redirect_is_never_the_request_s(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"TRUSTED_HOSTS": "www.example.com,example.com", "SERVER_NAME": "www.example.com"})
    client = app.test_client()
    response = client.get("/x", base_url="http://example.com")
    assert response.headers["Location"] == "https://www.example.com/x"
    for host in ("evil.example", "www.example.com.evil.example", "www.example.com@evil.example", "[", "a b", ""):
        response = client.get("/x", base_url="http://example.com", headers={"Host": host})
        assert "evil" not in response.headers.get("Location", "") + response.text
        assert response.status_code in (308, 400)


SPOOFED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Server": "evil.example",
    "Forwarded": "proto=https;host=evil.example",
    "X-Url-Scheme": "https",
    "Front-End-Https": "on",
    "X-Original-Url": "/healthz",
}
SAY_HTTPS = {"X-Forwarded-Proto", "X-Forwarded-Ssl", "Forwarded", "X-Url-Scheme", "Front-End-Https"}


def test_6_T3_a_spoofed_proxy_header_opens_nothing(client: FlaskClient) -> None:
    plain = client.get("/x", base_url=HTTP)
    for name, value in SPOOFED.items():
        spoofed = client.get("/x", base_url=HTTP, headers={name: value})
        wanted = (503, None) if name in SAY_HTTPS else (308, plain.headers["Location"])
        assert (name, spoofed.status_code, spoofed.headers.get("Location")) == (name, *wanted)
        assert "Strict-Transport-Security" not in spoofed.headers


@pytest.mark.parametrize(
    ("hops", "headers"),
    [
        *((0, {name: SPOOFED[name]}) for name in sorted(SAY_HTTPS)),
        (0, {"Forwarded": 'for=192.0.2.1;Proto="HTTPS"'}),
        (1, {"X-Forwarded-Proto": "https, http"}),
        (1, {"X-Forwarded-Ssl": "on"}),
        (1, {"X-Forwarded-Proto": "http", "Forwarded": "proto=https"}),
    ],
)
def test_a_redirect_to_the_very_address_that_was_asked_for_is_a_page_instead(
    app_config: dict[str, object], caplog: pytest.LogCaptureFixture, hops: int, headers: dict[str, str]
) -> None:
    """The visitor came by https to a proxy that the app does not believe: the redirect would never end."""
    client = create_app(app_config | {"TRUSTED_PROXY_HOPS": hops}).test_client()
    page = client.get("/", base_url=HTTP, headers=headers)
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "not set up for the proxy in front of it" in page.text
    told = [record.getMessage() for record in caplog.records if f"TRUSTED_PROXY_HOPS={hops}: " in record.getMessage()]
    assert len(told) == 1
    assert next(reversed(headers)) in told[0]
    assert client.get("/healthz", base_url=HTTP, headers=headers).status_code == 200


@pytest.mark.parametrize("said", ["https", "https, http", "https, https"])
def test_behind_two_proxies_it_is_enough_that_one_says_the_scheme(app_config: dict[str, object], said: str) -> None:
    client = create_app(app_config | {"TRUSTED_PROXY_HOPS": 2}).test_client()
    addresses = {"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}
    assert client.get("/", base_url=HTTP, headers=addresses | {"X-Forwarded-Proto": said}).status_code == 200
    forged = {"X-Forwarded-Proto": f"https, http, {said.replace('https', 'http')}"}
    assert client.get("/", base_url=HTTP, headers=addresses | forged).status_code != 200


def test_6_T3_a_configured_proxy_is_believed_for_the_scheme_alone(app_config: dict[str, object]) -> None:
    client = create_app(app_config | {"TRUSTED_PROXY_HOPS": 1}).test_client()
    response = client.get("/", base_url=HTTP, headers=SPOOFED)
    assert response.status_code == 200
    assert response.headers["Strict-Transport-Security"] == EXPECTED["Strict-Transport-Security"]
    assert "evil.example" not in response.text + str(response.headers)
    assert client.get("/", base_url=HTTP, headers={"X-Forwarded-Proto": "http"}).status_code == 308


def test_6_T3_health_probes_are_answered_over_http(client: FlaskClient) -> None:
    assert client.get("/healthz", base_url=HTTP).json == {"status": "ok"}


def test_6_T2_a_text_with_markup_in_it_is_never_a_page(member: FlaskClient) -> None:
    markup = b"<!DOCTYPE html><script>alert(1)</script>"
    sent = post(member, "/uploads", {"file": (io.BytesIO(markup), "a.txt")}, headers={"Accept": "application/json"})
    assert sent.status_code == 201, sent.text
    assert isinstance(sent.json, list | dict)
    stored = sent.json[0] if isinstance(sent.json, list) else sent.json
    with member.get(f"/uploads/{stored['id']}?inline=1") as response:
        assert response.data == markup
        assert response.mimetype == "text/plain"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in response.headers["Content-Security-Policy"]


REFLECTED = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"
SOURCES = ("next", "q", "id", "email", "token", "error", "message", "lang", "page", "file", "_external", "_scheme")


def test_6_T4_markup_in_any_parameter_of_any_route_is_inert(odd_app: Flask, member: FlaskClient) -> None:
    reflected = []
    for rule in odd_app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "%3Cscript%3Ealert(1)%3C%2Fscript%3E", rule.rule)
        for method in ("GET", "POST"):
            everywhere = {"headers": {"User-Agent": REFLECTED}, "query_string": dict.fromkeys(SOURCES, REFLECTED)}
            with member.open(path, method=method, **everywhere) as response:
                if response.mimetype == "text/html" and re.search(r"<script>alert|<img src=x", response.text):
                    reflected.append((method, path))
    assert reflected == []


@pytest.mark.parametrize("how", ["gunicorn", "gunicorn behind nginx"])
def test_6_S2_the_server_sends_them_over_the_wire(app: Flask, request: pytest.FixtureRequest, how: str) -> None:
    server = request.getfixturevalue("serve" if how == "gunicorn" else "serve_proxied")()
    for path in ("/", "/nothing", "/static/app.css"):
        status, received, body = server.request(path)
        assert status == (404 if path == "/nothing" else 200), (path, body, server.log.read_text())
        for name, value in strict_at(app, path).items():
            assert (path, name, received.get_all(name)) == (path, name, [value])


@pytest.mark.fault(
    "Worker", "is killed, and gunicorn too", sees="503 of nginx", ends="with the next request after its start"
)
def test_6_S2_without_the_app_the_proxy_says_when_to_come_back(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied()
    stop([server.process])
    status, headers, body = server.request("/")
    assert (status, headers["Retry-After"], headers["Content-Type"]) == (503, "60", "text/plain")
    assert "try again in a minute" in body.decode()
    assert headers["X-Frame-Options"] == "DENY"
    server.start()
    assert server.request("/")[0] == 200


def test_the_proxy_compresses_static_files_and_no_page(serve_proxied: Callable[..., Server]) -> None:
    """The length of a compressed page could reveal its token (BREACH)."""
    server = serve_proxied()
    encodings = {}
    for path in ("/static/app.css", "/static/app.js", "/"):
        status, headers, body = server.request(path, headers={"Accept-Encoding": "gzip"})
        encodings[path] = headers["Content-Encoding"]
        assert status == 200
        assert len(gzip.decompress(body) if headers["Content-Encoding"] else body) > 1000
    assert encodings == {"/static/app.css": "gzip", "/static/app.js": "gzip", "/": None}


@pytest.mark.parametrize("path", ["/static/nothing", "/account/..%2fstatic/nothing"])
def test_what_the_proxy_compresses_is_the_same_for_all(
    member: FlaskClient, serve_proxied: Callable[..., Server], path: str
) -> None:
    """An error page too: another one has the visitor's token. For a path with dots, the app has no static file."""
    token = csrf_token(member).partition(".")[0]
    headers = {"Accept-Encoding": "gzip", "Cookie": f"__Host-session={session_cookie(member)}"}
    status, received, body = serve_proxied().request(path, headers=headers)
    assert (status, received["Content-Encoding"], received["Set-Cookie"]) == (404, "gzip", None)
    page = gzip.decompress(body).decode()
    assert "Nothing here" in page
    assert token not in page
    assert "Sign out" not in page


@pytest.mark.parametrize(
    "forged",
    [{}, {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Host": "evil.example"}, {"Host": "evil.example"}],
    ids=lambda forged: next(iter(forged), "plain"),
)
def test_6_T3_http_leads_to_the_canonical_host_through_the_proxy(
    serve_proxied: Callable[..., Server], forged: dict[str, str]
) -> None:
    server = serve_proxied()
    connection = http.client.HTTPConnection("localhost", server.http_port, timeout=30)
    try:
        connection.request("POST", "/uploads?a=1", b"secret", forged)
        answer = connection.getresponse()
        said = f"{answer.headers}{answer.read().decode()}"
    finally:
        connection.close()
    assert "evil.example" not in said
    if "Host" in forged:  # no host of ours
        assert answer.status == 400
    else:
        assert (answer.status, answer.headers["Location"]) == (308, f"{server.url}/uploads?a=1")


def test_6_S5_three_scanners_are_part_of_the_tests() -> None:
    tests = {}
    for node in ast.parse((ROOT / "tests/test_scanners.py").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            tests[node.name] = [ast.unparse(mark) for mark in node.decorator_list]
    for verdict in (
        "test_6_S5_observatory_gives_its_best_grade",
        "test_6_S5_csp_evaluator_finds_nothing_in_the_policy_of_a_page",
        "test_6_S5_shcheck_misses_no_header",
    ):
        assert tests[verdict] == []  # no mark lets it off
    pinned = json.loads((ROOT / "tests/scanners/package.json").read_text())["dependencies"]
    assert {"@mdn/mdn-http-observatory", "csp_evaluator"} <= set(pinned)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pinned.values())
    assert re.search(r"(?m)^shcheck==", (ROOT / "requirements-dev.txt").read_text())


def test_6_S3_no_setting_of_this_app_sends_a_wildcard_cors_header(client: FlaskClient) -> None:
    response = client.get("/", headers={"Origin": "https://evil.example"})
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control-")]
