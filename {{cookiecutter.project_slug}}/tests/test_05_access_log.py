"""Mitigation 5, error handling: the access log says who asked for what, and nothing that a client wrote."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.visitors import public
from tests.conftest import HAS_ACCOUNTS, Server, address_of, browser_like, new_member, post
from tests.test_05_errors import capture_log, fail

# A password that nobody could tell from another word, and that is no part of an address, a digest or an id.
CANARY = "QuixoticZephyrWillow"
PIECES = {CANARY[start : start + 5].lower() for start in range(len(CANARY) - 4)}
ENCODED = "".join(f"%{ord(letter):02x}" for letter in CANARY)
FORMS = {
    "plain": CANARY,
    "encoded": ENCODED,
    "encoded twice": ENCODED.replace("%", "%25"),
    "doubled": CANARY * 2,
    "cut": CANARY[:9],
    "long": f"{CANARY * 20}{'%20' * 400}{CANARY * 20}",
}
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
FILE = 'Content-Disposition: form-data; name="file"; filename="{0}.txt"'
# Method, path, headers and body; {0} is the canary.
INPUTS: list[tuple[str, str, dict[str, str], str]] = [
    *(("GET", path, {}, "") for path in ("/{0}", "/static/{0}", "/static/{0}/app.css", "/uploads/{0}", "/reset/{0}")),
    *(("GET", f"/{page}?{query}", {}, "") for page in ("", "login", "redirect") for query in ("next={0}", "{0}=1&{0}")),
    *(
        ("GET", "/", {name: value}, "")
        for name in ("User-Agent", "Referer", "Origin", "Accept", "X-Request-ID", "X-Forwarded-For", "X-CSRFToken")
        for value in ("{0}", "https://{0}:{0}@a.example/{0}?password={0}")
    ),
    ("GET", "/", {"Host": "{0}.example"}, ""),
    ("GET", "/", {"X-{0}": "1"}, ""),
    ("GET", "/", {"Authorization": "Bearer {0}"}, ""),
    ("GET", "/account", {"Cookie": "__Host-session={0}.{0}; {0}={0}"}, ""),
    ("POST", "/login", {"Content-Type": FORM}, "email={0}@example.com&password={0}&csrf_token={0}&{0}=1"),
    ("POST", "/login", {"Content-Type": "application/json"}, '{{"password": "{0}", "{0}": 1}}'),
    ("POST", "/csp-reports", {"Content-Type": "application/csp-report"}, '{{"csp-report": {{"blocked-uri": "{0}"}}}}'),
    ("POST", "/uploads", {"Content-Type": MULTIPART}, f"--x\r\n{FILE}\r\n\r\n{{0}}\r\n--x--\r\n"),
    ("POST", "/uploads", {"Content-Type": "text/{0}"}, "{0}"),
]


@pytest.fixture(params=["text", "json"])
def app(app_config: dict[str, object], request: pytest.FixtureRequest) -> Flask:
    return create_app(app_config | {"LOG_FORMAT": request.param, "ACCESS_LOG": True})


def lines_of(log: str) -> dict[str, dict[str, Any]]:
    """The lines of the access log by their request; each has one."""
    found: list[tuple[str, dict[str, Any]]] = []
    for line in log.splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            text = dict(re.findall(r"(\S+)=(\S+)", fields["message"]))
            if fields["logger"] == "access":
                assert {name: str(fields[name]) for name in text} == text
                found.append((fields["request_id"], {name: fields[name] for name in text}))
        elif line.split()[2:3] == ["access"]:
            found.append((line.split()[3], dict(re.findall(r"(\S+)=(\S+)", line))))
    assert len(dict(found)) == len(found)
    return dict(found)


def pieces_in(log: str, lines: int) -> set[str]:
    """The pieces of the canary in the lines of the access log, of which there are ``lines``."""
    own = [line for line in log.splitlines() if re.search(r'^\S+ \S+ access |"logger": "access"', line)]
    assert len(own) == lines
    return {piece for line in own for piece in PIECES if piece in unquote(unquote(line)).lower()}


def test_5_S3_the_access_log_has_nothing_that_a_client_wrote(serve: Callable[..., Server]) -> None:
    """Neither a whole canary nor five letters of it, in whatever form it was sent; yet each request has its line."""
    for log_format in ("text", "json"):
        server = serve(ACCESS_LOG=1, LOG_FORMAT=log_format, RATELIMIT_DEFAULT="10000 per minute")
        asked = [(CANARY.upper(), "/", {}, "")]
        for form in FORMS.values():
            for method, path, headers, body in INPUTS:
                given = {name.format(form[:99]): value.format(form) for name, value in headers.items()}
                if "%" not in form or not any("{0}" in name for name in headers):  # no name of a header has a %
                    asked.append((method, path.format(form), given, body.format(form)))
        ids = [
            server.request(path, method, body.encode() or None, {"Origin": server.url} | headers)[1]["X-Request-ID"]
            for method, path, headers, body in asked
        ]
        log = server.log.read_text()
        lines = lines_of(log)
        missing = [what for what, request_id in zip(asked, ids, strict=True) if request_id not in lines]
        assert missing == [], log[-3000:]
        assert pieces_in(log, len(lines)) == set()


def test_5_S3_the_access_log_has_nothing_of_what_was_taken(app: Flask) -> None:
    """A name, a password, a file and its name that the app accepts."""
    log, email = capture_log(), f"{CANARY}@example.com".lower()
    member = new_member(app, email)
    sent = {"file": (io.BytesIO(CANARY.encode()), f"{CANARY}.txt")}
    assert post(member, "/uploads", sent).status_code == 303
    assert CANARY in member.get("/uploads").text
    if HAS_ACCOUNTS:
        sign_in = {"email": email, "password": CANARY}
        assert post(browser_like(app), "/login", sign_in).status_code == 403
    lines = lines_of(log.getvalue())
    assert {"303", "200"} <= {str(line["status"]) for line in lines.values()}
    assert pieces_in(log.getvalue(), len(lines)) == set()


def test_5_S3_an_access_line_says_what_was_asked_how_it_ended_and_how_long_it_took(app: Flask) -> None:
    app.add_url_rule("/tested-fail/<token>", view_func=public(fail))
    app.add_url_rule("/tested-slow", view_func=public(lambda: "late"))
    log, client = capture_log(), browser_like(app)
    for method, path, headers, wanted in [
        ("GET", "/", {}, ("GET", "/", "200")),
        ("HEAD", "/?a=b", {}, ("HEAD", "/", "200")),
        ("POST", "/uploads", {}, ("POST", "/uploads", "400")),  # without a token
        ("GET", "/nothing", {}, ("GET", "-", "404")),
        ("GET", "/", {"Host": "evil.example"}, ("GET", "-", "400")),
        ("PUT", "/healthz", {}, ("PUT", "-", "405")),
        ("MYOWN", "/", {}, ("other", "-", "405")),
        ("GET", "/tested-fail/secret", {}, ("GET", "/tested-fail/<token>", "500")),
        ("GET", "/static/none.css", {}, ("GET", "/static/<filename>", "404")),
        ("GET", "/static/app.css", {}, None),
        ("GET", "/healthz", {}, None),
        ("GET", "/readyz", {}, None),
    ]:
        with client.open(path, method=method, headers=headers) as answer:
            line = lines_of(log.getvalue()).get(answer.headers["X-Request-ID"])
        assert (line and (line["method"], line["route"], str(line["status"]))) == wanted
        assert not line or (float(line["duration_ms"]) >= 0 and line["network"] == "127.0.0.1")
    plain = client.get("/", base_url="http://localhost")
    assert str(lines_of(log.getvalue())[plain.headers["X-Request-ID"]]["status"]) == "308"


def test_5_S3_each_route_has_a_line_that_names_it_unredacted(app: Flask) -> None:
    log, client = capture_log(), browser_like(app)
    for rule in app.url_map.iter_rules():
        method = min((rule.methods or set()) - {"HEAD", "OPTIONS"})
        with client.open(address_of(app, rule), method=method) as answer:
            line = lines_of(log.getvalue()).get(answer.headers["X-Request-ID"])
        assert line or answer.status_code < 400
        assert not line or re.sub(r"<[^<>]+:", "<", rule.rule) == line["route"]


@pytest.mark.parametrize("where", ["in a hook", "in front of Flask"])
def test_5_S3_a_client_over_its_limit_has_access_lines(app_config: dict[str, object], where: str) -> None:
    app = create_app(app_config | {"ACCESS_LOG": True, "RATELIMIT_DEFAULT": "1 per minute"})
    log, client = capture_log(), browser_like(app)
    for _ in range(2 if where == "in a hook" else 3):
        answer = client.get("/?a=b")
    line = lines_of(log.getvalue())[answer.headers["X-Request-ID"]]
    assert (answer.status_code, line["status"], line["route"]) == (429, "429", "/")


def test_5_S4_a_failure_outside_of_flask_has_an_access_line(app: Flask) -> None:
    log = capture_log()
    app.session_interface.open_session = fail  # type: ignore[method-assign]
    answer = browser_like(app).get("/")
    line = lines_of(log.getvalue())[answer.headers["X-Request-ID"]]
    assert (line["route"], str(line["status"])) == ("-", "500")  # the route was not looked up yet


def test_5_S3_without_the_setting_there_is_no_access_log(client: FlaskClient, app_config: dict[str, object]) -> None:
    silent = create_app(app_config)
    log = capture_log()
    browser_like(silent).get("/nothing")
    assert " access " not in log.getvalue()
    assert "GET /nothing" in log.getvalue()
