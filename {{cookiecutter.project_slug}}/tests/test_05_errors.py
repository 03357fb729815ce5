"""Mitigation 5, error handling: attacks that try to read something off a failure, or to cause one."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask, Response, abort, render_template, request
from flask.testing import FlaskClient
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.debug import DebuggedApplication
from werkzeug.test import TestResponse

from app import create_app, logs
from app.security import errors
from app.visitors import public
from tests.conftest import KEY, ORIGIN, Server, browser_like, csrf_token, post

# What the exceptions of these tests say: no visitor may read it, the log must.
INSIDE = "/srv/app/models.py: SELECT * FROM users"
STATUSES = (400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 502, 503)
LEAKS = ("traceback", "select *", "/srv/", "runtimeerror", ".py", "werkzeug", "site-packages", KEY.lower())


@pytest.fixture
def log(app: Flask) -> io.StringIO:
    return capture_log()


def capture_log() -> io.StringIO:
    """What the app made last logs from now on, as its handler writes it."""
    handler = next(handler for handler in logging.getLogger().handlers if handler.name == logs.HANDLER_NAME)
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    handler.setStream(written)
    return written


def fail(*_: object) -> Any:
    raise RuntimeError(INSIDE)


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(INSIDE)


# Where it fails → how to make it fail there; the request goes to /tested-fail.
def in_view(app: Flask) -> None:
    app.add_url_rule("/tested-fail", view_func=public(fail))


def in_template(app: Flask) -> None:
    app.add_url_rule("/tested-fail", view_func=public(lambda: render_template("error.html", status=0, title=Broken())))


def in_before_hook(app: Flask) -> None:
    app.before_request(fail)


def in_after_hook(app: Flask) -> None:
    app.after_request(fail)


def in_teardown(app: Flask) -> None:
    app.add_url_rule("/tested-fail", view_func=public(lambda: "fine so far"))
    app.teardown_request(fail)


def in_app_teardown(app: Flask) -> None:
    app.add_url_rule("/tested-fail", view_func=public(lambda: "fine so far"))
    app.teardown_appcontext(fail)


def in_error_page(app: Flask) -> None:
    app.jinja_env.globals["url_for"] = fail
    in_view(app)


def in_error_handler(app: Flask) -> None:
    app.register_error_handler(404, fail)


def in_session(app: Flask) -> None:
    app.session_interface.open_session = fail  # type: ignore[method-assign]


def in_streamed_body(app: Flask) -> None:
    def body() -> Iterator[str]:
        fail()
        yield "never"

    app.add_url_rule("/tested-fail", view_func=public(lambda: Response(body())))


def in_an_exception_s_own_text(app: Flask) -> None:
    class UnprintableError(Exception):
        __str__ = fail

    def view() -> str:
        raise UnprintableError from RuntimeError(INSIDE)

    app.add_url_rule("/tested-fail", view_func=public(view))


PLACES = (
    in_view,
    in_template,
    in_before_hook,
    in_after_hook,
    in_teardown,
    in_app_teardown,
    in_error_page,
    in_error_handler,
    in_session,
    in_streamed_body,
    in_an_exception_s_own_text,
)


def assert_generic(response: TestResponse, log: io.StringIO) -> None:
    assert response.status_code == 500
    assert [leak for leak in LEAKS if leak in response.text.lower()] == []
    request_id = response.headers["X-Request-ID"]
    assert request_id in response.text
    lines = [line for line in log.getvalue().splitlines() if request_id in line]
    assert any(INSIDE in line and "Traceback" in line for line in lines)
    for name in ("Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options"):
        assert name in response.headers


@pytest.mark.parametrize("place", PLACES)
def test_5_T1_an_exception_tells_the_visitor_nothing_and_the_log_all(
    app: Flask, log: io.StringIO, place: Callable[[Flask], None]
) -> None:
    place(app)
    assert_generic(browser_like(app).get("/tested-fail"), log)


@pytest.mark.parametrize("place", PLACES)
def test_5_T1_in_debug_no_exception_reaches_the_debugger_which_runs_any_code(
    app_config: dict[str, object], place: Callable[[Flask], None]
) -> None:
    app = create_app(app_config | {"FLASK_DEBUG": True})
    place(app)
    app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=True)  # type: ignore[method-assign]
    response = browser_like(app, "http://localhost").get("/tested-fail")
    assert response.status_code == 500
    assert [sign for sign in ("__debugger__", "EVALEX", KEY) if sign in response.text] == []


@pytest.mark.parametrize("status", STATUSES)
def test_5_T1_the_text_of_an_http_exception_is_not_shown_either(app: Flask, status: int) -> None:
    app.add_url_rule("/tested-fail", view_func=public(lambda: abort(status, INSIDE)))
    response = browser_like(app).get("/tested-fail")
    assert response.status_code == status
    assert [leak for leak in LEAKS if leak in response.text.lower()] == []


def test_5_S1_each_status_has_a_page_and_a_problem_of_its_own_words(app: Flask) -> None:
    app.add_url_rule("/tested-fail/<int:status>", view_func=public(lambda status: abort(status)))
    client = browser_like(app)
    seen = set()
    for status in STATUSES:
        page = client.get(f"/tested-fail/{status}")
        problem = client.get(f"/tested-fail/{status}", headers={"Accept": "application/json"})
        assert (page.status_code, page.mimetype) == (status, "text/html")
        assert (problem.status_code, problem.mimetype) == (status, "application/problem+json")
        assert problem.json is not None
        assert set(problem.json) == {"title", "status", "detail", "request_id"}
        assert problem.json["status"] == status
        assert problem.json["request_id"] == problem.headers["X-Request-ID"]
        seen.add((re.findall(r"<h1>(.*?)</h1>", page.text)[0], problem.json["detail"]))
    assert len(seen) == len({title for title, _ in seen}) == len({detail for _, detail in seen}) == len(STATUSES)


FETCH = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
NAVIGATION = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
XHR = {"X-Requested-With": "XMLHttpRequest"}
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
# Who asks → the headers as that program sends them, and whether it gets a page or a problem.
WHO_ASKS = {
    "nobody in particular": ({"Accept": ""}, "page"),
    "a person in Firefox": ({"Accept": HTML, **NAVIGATION}, "page"),
    "a person in Android's WebView": ({"Accept": HTML, "X-Requested-With": "com.example.app", **NAVIGATION}, "page"),
    "a person in an old browser": ({"Accept": "application/xml,text/html;q=0.9,*/*;q=0.5"}, "page"),
    "curl": ({"Accept": "*/*"}, "page"),
    "curl with a form": ({"Accept": "*/*", "Content-Type": "application/x-www-form-urlencoded"}, "page"),
    "curl with JSON": ({"Accept": "*/*", "Content-Type": "application/json"}, "problem"),
    "a client of an API of its own": ({"Accept": "*/*", "Content-Type": "application/vnd.api+json"}, "problem"),
    "an image": ({"Accept": "image/avif,image/webp,*/*;q=0.8", "Sec-Fetch-Dest": "image"}, "page"),
    "an image in Android's WebView": (
        {"Accept": "image/webp,*/*;q=0.8", "X-Requested-With": "com.example.app"},
        "page",
    ),
    "a style sheet": ({"Accept": "text/css,*/*;q=0.1", "Sec-Fetch-Dest": "style"}, "page"),
    "fetch": ({"Accept": "*/*", **FETCH}, "problem"),
    "fetch without Accept": ({"Accept": "", **FETCH}, "problem"),
    "fetch that wants a page": ({"Accept": "text/html", **FETCH}, "page"),
    "fetch that wants no JSON": (
        {"Accept": "*/*, application/json;q=0, application/problem+json;q=0", **FETCH},
        "page",
    ),
    "fetch of a text": ({"Accept": "text/plain", **FETCH}, "problem"),
    "EventSource": ({"Accept": "text/event-stream", **FETCH}, "problem"),
    "jQuery": ({"Accept": "*/*", **XHR}, "problem"),
    "jQuery for a part of a page": ({"Accept": "text/html, */*; q=0.01", **XHR}, "page"),
    "axios": ({"Accept": "application/json, text/plain, */*"}, "problem"),
    "an API's client": ({"Accept": "application/json"}, "problem"),
    "an API's client with a preference": ({"Accept": "text/html;q=0.5, application/json"}, "problem"),
    "a client that knows problems": ({"Accept": "application/problem+json"}, "problem"),
    "nonsense": ({"Accept": "no/ne;q=x,,;"}, "page"),
}


@pytest.mark.parametrize("who", WHO_ASKS)
def test_5_S1_people_get_pages_and_scripts_get_problems(client: FlaskClient, who: str) -> None:
    headers, kind = WHO_ASKS[who]
    answer = client.get("/nothing", headers=headers)
    assert answer.mimetype == {"page": "text/html", "problem": "application/problem+json"}[kind]
    # Caches must not give one the answer for the other.
    assert {"accept", "sec-fetch-dest", "x-requested-with"} <= {name.lower() for name in answer.vary}


@pytest.mark.parametrize("headers", [FETCH, XHR], ids=["fetch", "XMLHttpRequest"])
def test_5_S1_a_script_gets_a_problem_from_a_form_too_and_the_page_itself_as_it_is(
    member: FlaskClient, headers: dict[str, str]
) -> None:
    """A view that shows its form again after a fault does so for people only."""
    headers = {"Accept": "*/*", **headers}
    refused = post(member, "/uploads", headers=headers)
    assert (refused.status_code, refused.mimetype) == (400, "application/problem+json")
    assert (refused.get_json() or {})["detail"] == "Please choose a file."
    shown = member.get("/uploads", headers=headers)
    assert (shown.status_code, shown.mimetype) == (200, "text/html")


def test_5_S1_our_own_words_are_shown_escaped(app: Flask) -> None:
    app.add_url_rule("/tested-fail", view_func=public(lambda: errors.refuse(409, "At most <1> MB.")))
    client = browser_like(app)
    assert "At most &lt;1&gt; MB." in client.get("/tested-fail").text
    problem = client.get("/tested-fail", headers={"Accept": "application/json"}).json
    assert problem is not None
    assert (problem["title"], problem["detail"]) == ("Conflict", "At most <1> MB.")


@pytest.mark.parametrize(
    ("raised", "status", "header", "value"),
    [
        (lambda: errors.refuse(429, "Wait.", retry_after=7), 429, "Retry-After", "7"),
        (lambda: abort(503, retry_after=30), 503, "Retry-After", "30"),
        (lambda: abort(401, www_authenticate=WWWAuthenticate("basic")), 401, "WWW-Authenticate", "Basic"),
        (lambda: abort(Response("", 307, {"Location": "/here"})), 307, "Location", "/here"),
        (lambda: abort(416), 416, "X-Frame-Options", "DENY"),
    ],
)
def test_5_S5_status_and_headers_survive(
    app: Flask, raised: Callable[[], Any], status: int, header: str, value: str
) -> None:
    app.add_url_rule("/tested-fail", view_func=public(raised))
    response = browser_like(app).get("/tested-fail")
    assert (response.status_code, response.headers[header]) == (status, value)


def test_5_S5_a_405_names_the_methods_and_a_missing_slash_still_redirects(app: Flask) -> None:
    app.add_url_rule("/tested-folder/", view_func=public(lambda: "in"))
    client = browser_like(app)
    assert set(client.put("/healthz").headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert {client.open(path, method="TRACE").status_code for path in ("/", "/uploads", "/healthz")} == {405}
    response = client.get("/tested-folder")
    assert (response.status_code, response.headers["Location"]) == (308, f"{ORIGIN}/tested-folder/")


@pytest.mark.parametrize("place", ["after_request", "errorhandler"])
def test_5_S5_a_refusal_keeps_its_status_wherever_it_is_raised(app: Flask, place: str) -> None:
    def refuse(*_: object) -> Response:
        errors.refuse(409, "Too late.")

    app.register_error_handler(404, refuse) if place == "errorhandler" else app.after_request(refuse)
    response = browser_like(app).get("/nothing")
    assert response.status_code == 409
    assert "Too late." in response.text


def test_5_S4_a_broken_error_page_keeps_the_status(app: Flask) -> None:
    app.jinja_env.globals["url_for"] = fail
    response = browser_like(app).get("/nothing")
    assert (response.status_code, response.mimetype) == (404, "text/plain")
    assert response.headers["X-Request-ID"] in response.text


def test_5_T2_no_response_tells_what_the_app_is_built_with(app: Flask) -> None:
    app.add_url_rule("/tested-folder/", view_func=public(lambda: "in"))
    client = browser_like(app)
    requests = [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/tested-folder"),
        ("PUT", "/"),
        ("POST", "/"),
        ("GET", "/static/none"),
    ]
    for method, path in requests:
        response = client.open(path, method=method)
        told = f"{response.headers}{response.text}".lower()
        found = [name for name in ("werkzeug", "jinja", "powered-by", "gunicorn") if name in told]
        assert (path, found) == (path, [])
        assert "<title>Redirecting" not in response.text
        assert "manually please check your spelling" not in response.text


@pytest.mark.parametrize("how", ["gunicorn", "gunicorn behind nginx"])
def test_5_T2_the_server_tells_no_version(request: pytest.FixtureRequest, how: str) -> None:
    """The last answer is nginx's own."""
    server = request.getfixturevalue("serve" if how == "gunicorn" else "serve_proxied")()
    for path in ("/", "/nothing", "/" + "a" * 20_000):
        _, headers, body = server.request(path)
        assert headers.get_all("Server", []) in ([], ["web" if how == "gunicorn" else "nginx"])
        assert "gunicorn" not in f"{headers}{body!r}".lower()
        assert not re.search(rb"nginx/\d", body)


# Method, path, headers, body. Each is nonsense somewhere; the answer must be a client error or plain success.
MALFORMED: list[tuple[str, str, dict[str, str], bytes]] = [
    ("GET", "/%00", {}, b""),
    ("GET", "/?next=%00", {}, b""),
    ("GET", "/?%00=1", {}, b""),
    ("GET", "/%ff%fe", {}, b""),
    ("GET", "/?q=%ff%fe", {}, b""),
    ("GET", "/?q=%ed%a0%80", {}, b""),
    ("GET", "/?" + "a&" * 3000, {}, b""),
    ("GET", "/" + "a" * 7000, {}, b""),
    ("GET", "/..%2f..%2fetc%2fpasswd", {}, b""),
    ("GET", "/static/..%5c..%5cetc", {}, b""),
    ("GET", "/static/%00.css", {}, b""),
    ("GET", "/static/" + "a" * 300, {}, b""),
    ("GET", "/static/app.css", {"Range": "bytes=9999999-"}, b""),
    ("GET", "/static/app.css", {"Range": "bytes=a-b,c"}, b""),
    ("GET", "/static/app.css", {"If-Modified-Since": "yesterday", "If-None-Match": '"'}, b""),
    ("GET", "/static/app.css", {"If-Range": "%%%", "Range": "bytes=0-1"}, b""),
    ("GET", "/", {"Cookie": "__Host-session=" + "." * 500}, b""),
    ("GET", "/", {"Cookie": '__Host-session="\\000\\377"; =; ;;;=x'}, b""),
    ("GET", "/", {"Accept": "a/b;q=" + "9" * 400, "Accept-Language": ";;;", "Accept-Charset": "\xff"}, b""),
    ("GET", "/", {"Authorization": "Basic \xff", "Referer": "http://[", "Origin": "null"}, b""),
    ("GET", "/", {"X-Forwarded-For": "a" * 4000, "X-Forwarded-Proto": "x,y", "X-Forwarded-Host": "["}, b""),
    ("GET", "/", {"Host": "localhost:99999999"}, b""),
    ("GET", "/", {"Host": "evil.example"}, b""),
    ("GET", "/", {"Host": "["}, b""),
    ("GET", "/", {"Host": "localhost\\@evil"}, b""),
    ("GET", "/", {"Host": ""}, b""),
    ("GET", "/", {"Host": "\xff.example"}, b""),
    ("NONSENSE", "/", {}, b""),
    ("TRACE", "/", {}, b""),
    ("POST", "/", {}, b""),
    ("POST", "/uploads", {"Content-Type": "multipart/form-data"}, b"--x"),
    ("POST", "/uploads", {"Content-Type": "multipart/form-data; boundary="}, b"--\r\n\r\n--"),
    ("POST", "/uploads", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nContent-Disposition: form-data"),
    ("POST", "/uploads", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nA\xff\r\n\r\n\xff\r\n--x--\r\n"),
    (
        "POST",
        "/uploads",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="\0"\r\n\r\n\0\r\n--x--\r\n',
    ),
    (
        "POST",
        "/uploads",
        {"Content-Type": "multipart/form-data; boundary=x"},
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 2000 + b"--x--\r\n",
    ),
    (
        "POST",
        "/uploads",
        {"Content-Type": "multipart/form-data; boundary=x", "Origin": "https://localhost"},
        b"--x\r\nContent-Disposition: attachment\r\n\r\nb\r\n--x--\r\n",
    ),
    ("GET", "/static/app.css", {"If-Modified-Since": "Fri, 31 Dec 9999999999 23:59:59 GMT"}, b""),
    ("GET", "/static/app.css", {"If-Unmodified-Since": "Fri, 31 Dec 9999999999 23:59:59 GMT"}, b""),
    ("GET", "/static/app.css", {"Range": "bytes=0-1", "If-Range": "Fri, 31 Dec 9999999999 23:59:59 GMT"}, b""),
    ("GET", "/readyz", {"Authorization": "Basic \xff"}, b""),
    ("POST", "/uploads", {"Content-Type": "application/x-www-form-urlencoded"}, b"csrf_token=%00&a=%ff"),
    ("POST", "/uploads", {"Content-Type": "application/x-www-form-urlencoded"}, b"&" * 20000),
    ("POST", "/uploads", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-7"}, b"+ADw-"),
    ("POST", "/uploads", {"Content-Type": ";;;\xff"}, b"x"),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b""),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b"\xff\xfe\0"),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b"[" * 16000),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b"9" * 16000),
    ("POST", "/csp-reports", {"Content-Type": "application/reports+json"}, b'[{"type":"csp-violation","body":7}, 1]'),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b'{"csp-report":{"document-uri":"http://["}}'),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, b'{"csp-report":{"document-uri":"\\ud800"}}'),
    ("POST", "/csp-reports", {"Content-Type": "text/plain"}, b"x" * 20000),
]


@pytest.mark.parametrize(("method", "path", "headers", "body"), MALFORMED)
def test_5_T3_a_malformed_request_is_the_client_s_fault(
    member: FlaskClient, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    with member.open(path, method=method, headers=headers, data=body) as response:
        assert response.status_code < 500


@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since"])
def test_5_T3_a_date_with_a_huge_year_is_ignored(app: Flask, header: str) -> None:
    app.add_url_rule("/tested-dated", "dated", public(lambda: dated().make_conditional(request)))
    answer = browser_like(app).get("/tested-dated", headers={header: "Fri, 31 Dec 9999999999 23:59:59 GMT"})
    assert (answer.status_code, answer.text) == (200, "new")


def dated() -> Response:
    response = Response("new")
    response.last_modified = datetime(2026, 1, 1, tzinfo=UTC)
    return response


@pytest.mark.parametrize("path", ["/%00", "/?a=%00", "/?%00=a", "/static/%00"])
def test_5_T3_a_null_byte_is_refused_at_the_door(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 400


@pytest.mark.parametrize("field", ["a=%00", "%00=a"])
def test_5_T3_a_null_byte_in_a_form_is_refused_before_a_view_sees_it(client: FlaskClient, field: str) -> None:
    body = f"csrf_token={csrf_token(client)}&{field}"
    response = client.post("/uploads", data=body, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 400
    assert "never allowed" in response.text


# JSON that is none, or more than Python can hold.
JSON_BODIES = {
    "nested lists": b"[" * 100_000,
    "nested lists that end": b"[" * 50_000 + b"]" * 50_000,
    "nested objects": b'{"a":' * 20_000,
    "a number of 100,000 digits": b"9" * 100_000,
    "no end": b'{"a": "',
    "no UTF-8": b'"\xff"',
    "nothing": b"",
}


@pytest.mark.parametrize("body", JSON_BODIES.values(), ids=JSON_BODIES)
def test_5_T3_no_json_body_is_an_error_of_ours(app: Flask, body: bytes) -> None:
    read: dict[str, Callable[[], object]] = {
        "json": lambda: request.json,
        "get_json": lambda: request.get_json(),
        "silent": lambda: request.get_json(silent=True),
    }
    for name, get in read.items():
        app.add_url_rule(f"/tested-{name}", name, public(lambda get=get: str(get())), methods=["POST"])
    client = browser_like(app)
    headers = {"X-CSRFToken": csrf_token(client), "Content-Type": "application/json"}
    answers = [client.post(f"/tested-{name}", data=body, headers=headers) for name in read]
    assert [answer.status_code for answer in answers] == [400, 400, 200]
    assert answers[2].text == "None"


def test_5_T3_every_parameter_of_every_route_takes_any_nonsense(member: FlaskClient) -> None:
    nonsense = ("%00", "%ff", "..%2f", "9" * 5000, "-1", "%ed%a0%80", "a" * 2000, "%F0%9F%92%A9")
    faults = []
    for rule in member.application.url_map.iter_rules():
        for text in nonsense:
            path = re.sub(r"<[^>]+>", text, rule.rule)
            for method in ("GET", "POST"):
                with member.open(f"{path}?next={text}&token={text}", method=method) as response:
                    if response.status_code >= 500:
                        faults.append((method, path[:80], response.status_code))
    assert faults == []


def test_5_T3_every_form_field_takes_any_nonsense(member: FlaskClient) -> None:
    fields = ("email", "password", "password_confirm", "next", "file", "new_password", "new_password_confirm")
    faults = []
    token = csrf_token(member)
    paths = {rule.rule for rule in member.application.url_map.iter_rules() if "POST" in (rule.methods or ())}
    for path in sorted(path for path in paths if "<" not in path):
        for text in ("\0", "a\0@example.com", "\ud800".encode("utf-8", "surrogatepass"), "x" * 100_000, "-1"):
            response = member.post(path, data={"csrf_token": token} | dict.fromkeys(fields, text))
            if response.status_code >= 500:
                faults.append((path, text[:20], response.status_code))
    assert faults == []


# What no HTTP client library would send. Only some of it reaches gunicorn.
RAW = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /\xff\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /<b>\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"<B> / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"AB / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET https://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"G@T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 500 + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n",
    b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"POST /csp-reports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/csp-report\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    b"POST /uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
]


def test_5_T3_raw_nonsense_gets_no_5xx_from_the_server(serve_proxied: Callable[..., Server]) -> None:
    """What is not HTTP never reaches the app: nginx answers, or gunicorn, whose page gets its headers from nginx."""
    server = serve_proxied()
    wanted = {"X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Strict-Transport-Security"}
    faults = []
    for sent in RAW:
        with server.raw() as connection:
            connection.sendall(sent)
            response = http.client.HTTPResponse(connection)
            response.begin()
            once = [name for name in wanted if len(response.headers.get_all(name, [])) == 1]
            # 501 says that a coding is unknown and 505 that a version is, as RFC 9110 and 9112 ask for.
            refused = response.status < 500 or response.status in (501, 505)
            if not refused or len(once) < len(wanted) or b"<b>" in response.read().lower():
                faults.append((sent[:80], response.status, str(response.headers)))
    assert faults == []
    assert server.request("/healthz")[0] == 200
    assert "Traceback" not in server.log.read_text()


# Line ends, a terminal command, a separator and a bidi override, as they are and as a path carries them.
INJECTION = "a\r\nERROR forged\x1b[31m\u2028\u202e\x85\x00\ud800"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_5_S3_nobody_can_forge_a_line(app_config: dict[str, object], log_format: str) -> None:
    app = create_app(app_config | {"LOG_FORMAT": log_format})
    log = capture_log()
    client = browser_like(app)
    client.get("/a%0d%0aERROR%20forged%1b%5b31m%e2%80%a8%e2%80%ae", headers={"User-Agent": "x", "Host": "e\x1bvil"})
    try:
        raise RuntimeError(INJECTION)
    except RuntimeError:
        app.logger.exception("%s", INJECTION)
    lines = log.getvalue().split("\n")
    assert len(lines) == 3  # two records and the end of the last
    assert lines[2] == ""
    for line in lines:
        assert line.isprintable()
        assert json.loads(line) if log_format == "json" and line else True


def test_5_S3_json_lines_have_fields(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"LOG_FORMAT": "json"})
    log = capture_log()
    response = browser_like(app).get("/nothing")
    line = json.loads(log.getvalue())
    assert set(line) == {"time", "level", "logger", "request_id", "message"}
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert "GET /nothing" in line["message"]


def test_5_S3_the_request_id_is_never_the_client_s_own(client: FlaskClient) -> None:
    own = "4bf92f3577b34da6a3ce929d0e0e4736"
    ids = {client.get("/healthz", headers={"X-Request-ID": own}).headers["X-Request-ID"] for _ in range(3)}
    assert len(ids - {own}) == 3


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("4bf92f3577b34da6a3ce929d0e0e4736", True),
        ("Root=1-67891233-abcdef012345678912345678", True),  # of AWS
        ("", False),
        ("short", False),
        ("x" * 129, False),
        ("two words of it", False),
        ("<script>alert(1)</script>", False),
        ("1234567890\u202e", False),
    ],
)
def test_5_S3_the_request_id_of_a_trusted_proxy_is_taken(
    app_config: dict[str, object], given: str, taken: bool
) -> None:
    app = create_app(app_config | {"TRUSTED_PROXY_HOPS": 1, "REQUEST_ID_HEADER": "X-Trace-ID"})
    log = capture_log()
    headers = {"X-Forwarded-Proto": "https", "X-Trace-ID": given.encode().decode("latin-1")}
    answer = browser_like(app).get("/nothing", headers=headers)
    assert (answer.headers["X-Request-ID"] == given) is taken
    assert (f" {given} " in log.getvalue()) is taken


def test_5_S3_behind_the_shipped_proxy_a_client_names_no_request(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied(REQUEST_ID_HEADER="X-Request-ID")
    forged = "4bf92f3577b34da6a3ce929d0e0e4736"
    ids = {server.request("/nothing", headers={"X-Request-ID": forged})[1]["X-Request-ID"] for _ in range(2)}
    assert len(ids - {forged}) == 2
    assert all(each in server.log.read_text() for each in ids)


def test_5_S3_what_gunicorn_logs_later_has_not_the_id_of_a_request(serve: Callable[..., Server]) -> None:
    server = serve(THREADS=1)
    seen = server.request("/healthz")[1]["X-Request-ID"]
    with server.raw() as connection:
        connection.sendall(b"no request at all\r\n\r\n")
        connection.recv(4096)
    line = next(line for line in server.log.read_text().splitlines() if "Invalid request" in line)
    assert seen not in line


def test_5_S3_a_wrong_log_call_loses_no_line() -> None:
    record = logging.LogRecord("app", logging.ERROR, "", 0, "%d items", ("no number",), None)
    assert "%d items" in logs.LineFormatter("text", []).format(record)


def test_in_debug_the_page_and_the_terminal_have_the_lines_of_a_traceback(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"FLASK_DEBUG": "1"})
    app.add_url_rule("/tested-fail", view_func=public(lambda: fail(KEY)))
    log, client = capture_log(), browser_like(app, "http://localhost")
    page = client.get("/tested-fail")
    problem = client.get("/tested-fail", headers={"Accept": "application/json"}).get_json()["traceback"]
    assert page.status_code == 500
    for shown in (page.text, problem, log.getvalue()):
        assert f"RuntimeError: {INSIDE}" in shown
        assert "\n    raise RuntimeError(INSIDE)\n" in shown
        assert KEY not in shown


@pytest.mark.parametrize(("debug", "named"), [("1", True), ("0", False)])
def test_in_debug_a_foreign_host_names_the_setting(app_config: dict[str, object], debug: str, named: bool) -> None:
    answer = browser_like(create_app(app_config | {"FLASK_DEBUG": debug}), "http://devbox:8000").get("/")
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert ("TRUSTED_HOSTS does not list 'devbox:8000'" in answer.text) is named


def test_8_T4_a_long_list_of_accepted_types_is_not_read_to_its_end(app: Flask) -> None:
    """A client over its limit is answered in the type that it accepts."""
    with app.test_request_context(headers={"Accept": "text/html," + "a/b;q=0.1," * 8000}):
        assert request.accept_mimetypes.best == "text/html"
        assert len(request.accept_mimetypes) <= 200
