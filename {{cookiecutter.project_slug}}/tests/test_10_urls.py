"""Attacks on mitigation 10, redirects and URLs. What counts is how a browser reads what is on the wire."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import html5lib
import pytest
from ada_url import URL
from flask import Blueprint, Flask, Response, abort, current_app, redirect, request, url_for
from flask.views import MethodView
from werkzeug.exceptions import NotFound
from werkzeug.routing import Rule
from werkzeug.test import EnvironBuilder, run_wsgi_app
from wtforms import (
    BooleanField,
    DateField,
    FieldList,
    Form,
    FormField,
    HiddenField,
    IntegerField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
)
from wtforms.validators import InputRequired, Optional

from app import create_app
from app.security import urls
from app.security.rate_limits import limiter
from app.security.urls import QueryForm, may_redirect_to, redirect_to, safe_redirect_target
from app.visitors import public
from tests import payloads
from tests.conftest import HAS_ACCOUNTS, ORIGIN, browser_like, csrf_token

ALLOWED = "docs.example.com"
# A name, one that browsers fold to ASCII, an IPv4 address as one number, an IPv6 address.
EVIL = ("evil.example", "\uff45\uff56\uff49\uff4c\u3002example", "3405803842", "[2001:db8::66]")

# The elements of its main part.
LEAVING_PAGE = ["main", "div", "div", "h1", "p", "p", "bdi", "p", "code", "p", "a", "a"]

FILLED = [
    shape.replace("EVIL", evil).replace("OWN", "localhost").replace("ALLOWED", ALLOWED)
    for shape in payloads.strings("open_redirects.txt")
    for evil in EVIL
]
OPEN_REDIRECTS = sorted({*FILLED, *map(unquote, FILLED)})


@pytest.fixture
def app(app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Flask:
    app = create_app({**app_config, "ALLOWED_REDIRECT_HOSTS": ALLOWED})
    monkeypatch.setattr(limiter, "enabled", False)

    @app.get("/tested-careless")
    @public
    def careless() -> Response:
        """Another part of the app, which trusts whatever it gets."""
        return Response(status=302, headers={"Location": request.args["next"]})

    @app.get("/tested-careful")
    @public
    def careful() -> Response:
        return redirect_to(request.args.get("next"), "uploads.index")

    return app


def on_the_wire(app: Flask, path: str, target: str, origin: str = ORIGIN) -> tuple[int, str | None, str]:
    """Status, Location and body, as a server gets them from the app."""
    query = "next=" + quote(target, safe="", errors="surrogatepass")
    environ = EnvironBuilder(path=path, query_string=query, base_url=origin).get_environ()
    body, status, headers = run_wsgi_app(app, environ)
    return int(status[:3]), headers.get("Location"), b"".join(body).decode()


def read_by_a_browser(target: str) -> URL | None:
    try:
        return URL(target.encode("utf-8", "replace").decode(), base=f"{ORIGIN}/redirect")
    except ValueError:
        return None


def test_the_corpus_would_open_a_careless_app() -> None:
    origins = [found.origin for target in OPEN_REDIRECTS if (found := read_by_a_browser(target))]
    assert len(OPEN_REDIRECTS) > 1000
    assert sum(origin != ORIGIN for origin in origins) > 500


@pytest.mark.parametrize("path", ["/redirect", "/tested-careless", "/tested-careful"])
def test_10_T1_no_redirect_leaves_the_host(app: Flask, path: str) -> None:
    left = []
    for target in OPEN_REDIRECTS:
        status, location, _ = on_the_wire(app, path, target)
        # A careless view may fail on a header of two lines.
        assert status in ((302, 400, 500) if path == "/tested-careless" else (200, 303, 400)), target
        if status == 200:  # the leaving page
            assert path == "/redirect"
            assert (found := read_by_a_browser(target))
            assert found.origin == f"https://{ALLOWED}"
        elif location is not None and (not (found := read_by_a_browser(location)) or found.origin != ORIGIN):
            left.append((target, location))
    assert left == []


# Normal targets, and what a browser must be sent: by hand, after RFC 3986.
@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/", "/"),
        ("/uploads", "/uploads"),
        ("/uploads?inline=1", "/uploads?inline=1"),
        ("/uploads?a=1&b=2#files", "/uploads?a=1&b=2#files"),
        ("/uploads/", "/uploads/"),
        ("/a/./b/../c", "/a/c"),
        ("/a/..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/%2e%2e/%2fevil.example", None),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/caf\u00e9?q=\u00fc", "/caf%C3%A9?q=%C3%BC"),
        ("/a b?c d", "/a%20b?c%20d"),
        ("/search?q=a\\b", "/search?q=a%5Cb"),
        ("/search?q=https://evil.example", "/search?q=https://evil.example"),
        ("/a;b=1,2/@c:d", "/a;b=1,2/@c:d"),
        ("/file%2Fname", "/file%2Fname"),
        ("/..//evil.example", "/evil.example"),
        ("/a/.././/evil.example", "/evil.example"),
        ("/\\evil.example", None),
        ("/%5Cevil.example", None),
        ("/%252fevil.example", None),
        ("/%09/evil.example", None),
        ("/up\tloads", None),
        ("/uploads\x00", None),
        ("?q", None),
        ("https://localhost", "/"),
        ("https://LOCALHOST/uploads?x#y", "/uploads?x#y"),
        ("http://localhost/uploads", None),
        ("https://localhost:8443/uploads", None),
        ("https://localhost./uploads", None),
        (f"https://{ALLOWED}", f"https://{ALLOWED}/"),
        (f"https://{ALLOWED}:443/a?b#c", f"https://{ALLOWED}/a?b#c"),
        (f"HTTPS://{ALLOWED.upper()}/A", f"https://{ALLOWED}/A"),
        (f"http://{ALLOWED}/", None),
        (f"https://{ALLOWED}:8443/", None),
        (f"https://{ALLOWED}./", None),
        (f"https://user@{ALLOWED}/", None),
        (f"https://www.{ALLOWED}/", None),
        ("/" + "a" * urls.MAX_URL, None),
        ("", None),
        (None, None),
    ],
)
def test_10_S2_benign_targets_work(app: Flask, target: str | None, location: str | None) -> None:
    with app.test_request_context(base_url=ORIGIN):
        assert safe_redirect_target(target) == location
    with app.app_context():
        assert safe_redirect_target(target) == location


def test_10_S2_no_other_site_is_allowed_by_default(app_config: dict[str, object]) -> None:
    with create_app(app_config).test_request_context(base_url=ORIGIN):
        assert safe_redirect_target("/uploads") == "/uploads"
        for target in (f"https://{ALLOWED}/", "https://www.example.com/", "https://www.google.com/url?q=x"):
            assert safe_redirect_target(target) is None


def test_10_S4_redirects_of_other_code_still_work(app: Flask) -> None:
    for target in (
        "/uploads?x=1",
        f"{ORIGIN}/uploads",
        f"{ORIGIN}//a",
        "?page=2",
        "edit",
        "a/../b?to=https://a.example",
    ):
        assert on_the_wire(app, "/tested-careless", target)[:2] == (302, target)
    status, location, _ = on_the_wire(app, "/tested-careless", f"https://{ALLOWED}/a?b")
    assert (status, location) == (302, f"/redirect?next=https://{ALLOWED}/a?b")


def test_10_S4_a_target_that_is_not_safe_leads_to_the_fallback(app: Flask) -> None:
    assert on_the_wire(app, "/tested-careful", "//evil.example")[:2] == (303, "/uploads")
    assert on_the_wire(app, "/tested-careful", f"https://{ALLOWED}/")[:2] == (303, f"/redirect?next=https://{ALLOWED}/")


# Redirects that code chose. What may redirect, and beside it what must not.
PAY = "pay.example.com"
CHOSEN = may_redirect_to(PAY, "Files.example.com:8443", reason="a hosted checkout")


def chosen() -> Callable[[], Response]:
    """A new view that trusts whatever it gets; all that are made here share one name."""

    def view() -> Response:
        return Response(status=303, headers={"Location": request.args["next"]})

    return view


class Shop(MethodView):
    def get(self) -> Response:
        return chosen()()


class ChosenShop(Shop):
    """The whole class may redirect, and its subclass may not."""


class ShopWithOneMethod(Shop):
    @CHOSEN
    def get(self) -> Response:
        return chosen()()


CHOSEN(ChosenShop)


class Inheriting(ChosenShop):
    """Does not say so itself."""


def raised() -> Response:
    """A library that leaves the view by an exception."""
    abort(redirect(request.args["next"], 303))


VIEWS: dict[str, tuple[Any, Any]] = {
    "function": (CHOSEN(chosen()), chosen()),
    "partial": (CHOSEN(partial(chosen())), partial(chosen())),
    "MethodView": (ChosenShop.as_view("shop"), Shop.as_view("shop")),
    "method": (ShopWithOneMethod.as_view("shop"), Shop.as_view("shop")),
    "subclass": (ChosenShop.as_view("shop"), Inheriting.as_view("shop")),
    "exception": (CHOSEN(partial(raised)), raised),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_10_S2_code_goes_straight_to_the_hosts_that_its_view_declares(app: Flask, kind: str) -> None:
    for path, view in zip(("/tested-chosen", "/tested-other"), VIEWS[kind], strict=True):
        app.add_url_rule(path, path, public(view))
    for target in (f"https://{PAY}", f"https://{PAY}:443/a?b=%2F+~#c", "HTTPS://FILES.example.com:8443/a"):
        status, location, _ = on_the_wire(app, "/tested-chosen", target)
        assert (status, str(location).lower()) == (303, target.lower())
        assert on_the_wire(app, "/tested-other", target)[:2] == (400, None)
    status, location, _ = on_the_wire(app, "/tested-chosen", f"https://{ALLOWED}/")
    assert (status, location) == (303, f"/redirect?next=https://{ALLOWED}/")


def test_10_S2_a_blueprint_declares_the_hosts_of_its_views(app: Flask) -> None:
    for name in ("tested-chosen", "tested-other"):
        blueprint = Blueprint(name, __name__)
        blueprint.add_url_rule(f"/{name}", "view", public(chosen()))
        app.register_blueprint(CHOSEN(blueprint) if name == "tested-chosen" else blueprint)
    assert on_the_wire(app, "/tested-chosen", f"https://{PAY}/")[:2] == (303, f"https://{PAY}/")
    assert on_the_wire(app, "/tested-other", f"https://{PAY}/")[:2] == (400, None)


def test_10_T1_a_view_leaves_for_the_hosts_that_it_declares_and_no_other(app: Flask) -> None:
    app.add_url_rule("/tested-chosen", "chosen", public(may_redirect_to(ALLOWED, reason="a hosted checkout")(chosen())))
    left, straight = [], 0
    for target in (*OPEN_REDIRECTS, f"https://{ALLOWED}/pay"):
        _, location, _ = on_the_wire(app, "/tested-chosen", target)
        origin = found.origin if location and (found := read_by_a_browser(location)) else ORIGIN
        straight += origin == f"https://{ALLOWED}"
        if origin not in (ORIGIN, f"https://{ALLOWED}"):
            left.append((target, location))
    assert left == []
    assert straight


@pytest.mark.parametrize(
    "target",
    [
        f"http://{PAY}/",
        f"https://{PAY}:8443/",
        "https://files.example.com/",
        f"https://www.{PAY}/",
        f"https://{PAY}.evil.example/",
        f"https://someone@{PAY}/",
        f"https://{PAY}@evil.example/",
        f"https://{PAY}\\@evil.example/",
        f"https://{PAY}\t.evil.example/",
        f"https://evil.example\\@{PAY}/",
        f"//{PAY}/",
        "https://pay.ex\u0430mple.com/",
        "https://[",
    ],
)
def test_10_T4_what_only_looks_like_a_declared_host_is_refused(app: Flask, target: str) -> None:
    app.add_url_rule("/tested-chosen", "chosen", public(CHOSEN(chosen())))
    assert on_the_wire(app, "/tested-chosen", target)[:2] == (400, None)


def test_10_S2_a_host_may_be_a_setting(app: Flask) -> None:
    mark = may_redirect_to(lambda: current_app.config["CHECKOUT_HOST"], reason="a hosted checkout")
    app.add_url_rule("/tested-chosen", "chosen", public(mark(chosen())))
    app.config["CHECKOUT_HOST"] = ""
    assert on_the_wire(app, "/tested-chosen", f"https://{PAY}/")[:2] == (400, None)
    app.config["CHECKOUT_HOST"] = PAY
    assert on_the_wire(app, "/tested-chosen", f"https://{PAY}/")[:2] == (303, f"https://{PAY}/")


def test_10_S2_forms_may_lead_to_the_declared_hosts_on_every_page(app: Flask) -> None:
    app.add_url_rule("/tested-chosen", "chosen", public(CHOSEN(chosen())), methods=["POST"])
    for path in ("/", "/nothing"):
        policy = browser_like(app).get(path).headers["Content-Security-Policy"]
        sources = re.search(r"form-action ([^;]*)", policy)
        assert sources
        assert {"'self'", PAY, "files.example.com:8443"} <= set(sources[1].split())


def test_10_S2_in_debug_the_other_site_may_be_on_http(app_config: dict[str, object]) -> None:
    app = create_app({**app_config, "FLASK_DEBUG": True})
    mark = may_redirect_to("localhost:8080", reason="a hosted checkout")
    app.add_url_rule("/tested-chosen", "chosen", public(mark(chosen())))
    target = "http://localhost:8080/pay"
    assert on_the_wire(app, "/tested-chosen", target, "http://localhost:5000")[:2] == (303, target)


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("https://pay.example.com",),
        ("*.example.com",),
        (".example.com",),
        ("a.example; script-src *",),
        ("a.example/path",),
        ("a.example:0",),
        ("a.example:x",),
        ("*",),
        ("p\u0430y.example",),
    ],
)
def test_10_S2_what_is_not_a_host_or_has_no_reason_is_an_error(app: Flask, hosts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="host"):
        may_redirect_to(*hosts, reason="a hosted checkout")
    with pytest.raises(ValueError, match="reason"):
        may_redirect_to(PAY, reason=" ")
    if any(hosts):
        app.add_url_rule(
            "/tested-chosen", "chosen", public(may_redirect_to(lambda: hosts[0], reason="a setting")(chosen()))
        )
        assert on_the_wire(app, "/tested-chosen", "/uploads")[0] == 500


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("HX-Redirect", "https://evil.example/", None),
        ("HX-Redirect", "//evil.example/", None),
        ("HX-Redirect", "/uploads", "/uploads"),
        ("HX-Redirect", f"https://{ALLOWED}/a", f"/redirect?next=https://{ALLOWED}/a"),
        ("Refresh", "5", "5"),
        ("Refresh", "5; url=/uploads", "5; url=/uploads"),
        ("Refresh", "0;?page=2", "0;?page=2"),
        ("Refresh", f"5; url={ORIGIN}/a", f"5; url={ORIGIN}/a"),
        ("Refresh", f"5; url='https://{ALLOWED}/a'", f"5; url=/redirect?next=https://{ALLOWED}/a"),
        ("Refresh", "0; url=https://evil.example/", None),
        ("Refresh", " .0 ,URL = 'https://evil.example/' /uploads", None),
        ("Refresh", '0; url="//evil.example/"', None),
        ("Refresh", "0 https://evil.example/", None),
        ("Refresh", "0;\t//evil.example/", None),
        ("Refresh", "0; url=url=https://evil.example/", None),
        ("Refresh", "0; url=javascript:alert(1)", None),
    ],
)
def test_10_S4_other_headers_that_lead_elsewhere_are_checked_like_a_redirect(
    app: Flask, name: str, value: str, sent: str | None
) -> None:
    app.add_url_rule("/tested-header", "header", public(lambda: ("", {name: value})))
    answer = browser_like(app).get("/tested-header")
    assert (answer.headers.get(name), answer.status_code) == (sent, 200 if sent else 400)


def test_10_S4_a_stopped_redirect_is_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    assert on_the_wire(app, "/tested-careless", "https://evil.example/")[:2] == (400, None)
    assert caplog.records[-1].security_event["target"] == "https://evil.example/"  # type: ignore[attr-defined]


def test_10_S4_the_page_of_a_stopped_redirect_has_its_styles(app: Flask) -> None:
    page = browser_like(app).get("/tested-careless?next=https://evil.example/")
    assert "a place that this site does not know" in page.text
    assert "style-src 'self'" in page.headers["Content-Security-Policy"]


def test_10_T2_a_target_is_never_markup_nor_script(app: Flask) -> None:
    shown = 0
    for payload in payloads.strings("xss.txt"):
        status, location, _ = on_the_wire(app, "/redirect", payload)
        assert (status, location) == (400, None) or (status == 303 and location and location.startswith("/"))
        status, _, page = on_the_wire(app, "/redirect", f"https://{ALLOWED}/?q={payload}")
        if status == 200:
            shown += 1
            main = html5lib.parse(page, namespaceHTMLElements=False).find("body/main")
            assert [element.tag for element in main.iter()] == LEAVING_PAGE, payload
            assert [link.get("href", "").split("?")[0] for link in main.iter("a")] == ["/", f"https://{ALLOWED}/"]
    assert shown > 100


def test_10_T4_the_leaving_page_shows_where_to(app_config: dict[str, object]) -> None:
    app = create_app({**app_config, "ALLOWED_REDIRECT_HOSTS": "xn--pypal-4ve.example"})  # a Cyrillic a
    target = "https://xn--pypal-4ve.example/sign?in=1"
    answer = browser_like(app).get("/redirect", query_string={"next": target})
    main = html5lib.parse(answer.text, namespaceHTMLElements=False).find("body/main")
    assert answer.status_code == 200
    assert "Location" not in answer.headers
    assert "Refresh" not in answer.headers
    assert 'http-equiv="refresh"' not in answer.text
    assert main.find(".//p[@class='host']/bdi").text == "xn--pypal-4ve.example"
    assert main.find(".//code").text == target
    back, onward = main.iter("a")
    assert back.get("href") == "/"
    assert onward.get("href") == target
    assert {"noopener", "noreferrer"} <= set(onward.get("rel").split())


# Each looks like the allowed host to a person.
@pytest.mark.parametrize(
    "target",
    [
        "https://docs.example.com@evil.example/",
        "https://docs.example.com:pass@evil.example/",
        "https://anyone@docs.example.com/",
        "https://docs.example.com.evil.example/",
        "https://docs-example.com/",
        "https://docs.ex\u0430mple.com/",
        "https://docs.example.com\u3002evil.example/",
        "https://\uff44ocs.example.com/",
        "https://docs.example.co\u217f/",
        "https://docs.examp1e.com/",
        "https://docs.example.com\u2024/",
    ],
)
def test_10_T4_look_alikes_and_user_info_are_refused(app: Flask, target: str) -> None:
    assert on_the_wire(app, "/redirect", target)[:2] == (400, None)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:443", "localhost@evil", ""])
def test_10_S5_an_unknown_host_gets_a_plain_400(app: Flask, host: str) -> None:
    answer = app.test_client().get("/", base_url=ORIGIN, headers={"Host": host})
    assert answer.status_code == 400
    assert answer.mimetype == "text/plain"
    assert "evil" not in answer.text


# The same host, as RFC 9110 (4.2.3) and RFC 3986 (3.2.2) compare it; and what only looks like it.
@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("App.Test", True),
        ("app.test.", True),
        ("APP.TEST.", True),
        ("APP.TEST:443", True),
        ("App.Test.:443", True),
        ("app.test:", True),
        ("XN--BCHER-KVA.Test.", True),
        ("app.test..", False),
        (".app.test", False),
        ("app.test.evil.example", False),
        ("app.test:443.evil.example", False),
        ("app.test.:x", False),
        ("b\u00fccher.test".encode().decode("latin-1"), False),
        ("app\u3002test".encode().decode("latin-1"), False),
        (".", False),
        (":443", False),
    ],
)
def test_10_S5_a_host_has_many_spellings_and_none_is_repeated(
    app_config: dict[str, object], host: str, trusted: bool
) -> None:
    app = create_app(app_config | {"TRUSTED_HOSTS": "Other.Test,App.Test.,xn--bcher-kva.test"})
    app.add_url_rule("/tested-where", "where", public(lambda: f"{request.host} {url_for('where', _external=True)}"))
    answer = app.test_client().get("/tested-where", base_url=ORIGIN, environ_overrides={"HTTP_HOST": host})
    name = host.lower().removesuffix(":").removesuffix(":443").removesuffix(".")
    wanted = (200, f"{name} https://other.test/tested-where") if trusted else (400, answer.text)
    assert (answer.status_code, answer.text) == wanted
    http = app.test_client().get("/tested-where", base_url="http://localhost", environ_overrides={"HTTP_HOST": host})
    assert http.headers.get("Location") == ("https://other.test/tested-where" if trusted else None)


def test_10_S5_the_canonical_host_is_spelt_normally_too(app_config: dict[str, object]) -> None:
    config = create_app(app_config | {"TRUSTED_HOSTS": "App.Test.", "SERVER_NAME": "WWW.App.Test.:8443"}).config
    assert (config["SERVER_NAME"], config["TRUSTED_HOSTS"][0]) == ("www.app.test:8443", "app.test")


def test_2_S6_a_form_works_on_a_host_in_another_spelling(app_config: dict[str, object]) -> None:
    """Browsers keep the dot at the end of a name: in Host, in Origin, and for the cookie."""
    app = create_app(app_config | {"TRUSTED_HOSTS": "app.test"})
    app.add_url_rule("/tested-act", "act", public(lambda: "done"), methods=["POST"])
    client = browser_like(app, "https://app.test.")
    token = csrf_token(client)
    for origin, status in (("https://app.test.", 200), ("https://app.test", 200), ("https://app.test..", 400)):
        headers = {"Origin": origin, "X-CSRFToken": token}
        assert client.post("/tested-act", headers=headers).status_code == status


def test_10_S5_absolute_urls_never_repeat_the_request(app_config: dict[str, object]) -> None:
    app = create_app({**app_config, "TRUSTED_HOSTS": "www.example.com,example.com", "TRUSTED_PROXY_HOPS": 1})
    headers = {"Host": "example.com", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    with app.test_request_context(base_url=ORIGIN, headers=headers):
        assert url_for("pages.home", _external=True) == "https://www.example.com/"
    answer = app.test_client().get("/uploads?a", base_url="http://example.com", headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://www.example.com/uploads?a")


# How many proxies there are, what the request says, and whose address and scheme count.
@pytest.mark.parametrize(
    ("hops", "headers", "address", "scheme"),
    [
        (0, {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}, "127.0.0.1", "http"),
        (1, {"X-Forwarded-For": "6.6.6.6, 8.8.8.8", "X-Forwarded-Proto": "https"}, "8.8.8.8", "https"),
        (2, {"X-Forwarded-For": "6.6.6.6, 8.8.8.8, 10.0.0.1", "X-Forwarded-Proto": "https, http"}, "8.8.8.8", "https"),
        (2, {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}, "127.0.0.1", "http"),
    ],
)
def test_10_S5_only_our_own_proxies_are_believed(
    app_config: dict[str, object], hops: int, headers: dict[str, str], address: str, scheme: str
) -> None:
    app = create_app({**app_config, "TRUSTED_PROXY_HOPS": hops})
    seen: list[tuple[str | None, str]] = []
    app.before_request_funcs[None].insert(0, lambda: seen.append((request.remote_addr, request.scheme)))
    app.test_client().get("/healthz", base_url="http://localhost", headers=headers)
    assert seen == [(address, scheme)]


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/redirect?next=/uploads&next=//evil.example", 400),
        ("/login?next=/uploads&next=//evil.example", 400 if HAS_ACCOUNTS else 404),
        ("/?utm_source=a&utm_source=b", 200),
        (f"/?x={'a' * urls.MAX_URL}", 414),
        (f"/{'a' * urls.MAX_URL}", 414),
        ("/?x=%00", 400),
    ],
)
def test_10_S1_parameters_are_bounded_and_single(app: Flask, url: str, status: int) -> None:
    assert browser_like(app).get(url).status_code == status


# How a view may read an argument: as one value, which one that came twice has not, or as all of them.
ONE: dict[str, Callable[[], object]] = {
    "[]": lambda: request.args["x"],
    "get": lambda: request.args.get("x", ""),
    "get a number": lambda: request.args.get("x", type=int),
    "to_dict": lambda: request.args.to_dict(),
    "items": lambda: list(request.args.items()),
    "values": lambda: list(request.args.values()),
    "copy": lambda: request.args.copy().get("x"),
    "copy.copy": lambda: copy(request.args)["x"],
    "request.values": lambda: request.values["x"],
    "request.values.get": lambda: request.values.get("x"),
    "request.values.to_dict": lambda: request.values.to_dict(),
    "in a template": lambda: current_app.jinja_env.compile_expression("x.get('x')")(x=request.args),
}
ALL: dict[str, Callable[[], object]] = {
    "getlist": lambda: request.args.getlist("x") == ["1", "2"],
    "getlist of numbers": lambda: request.args.getlist("x", type=int) == [1, 2],
    "lists": lambda: list(request.args.lists()) == [("x", ["1", "2"]), ("y", ["3"])],
    "items": lambda: list(request.args.items(multi=True)) == [("x", "1"), ("x", "2"), ("y", "3")],
    "to_dict": lambda: request.args.to_dict(flat=False) == {"x": ["1", "2"], "y": ["3"]},
    "the other": lambda: (request.args["y"], request.args.get("y"), request.values["y"]) == ("3",) * 3,
    "in": lambda: "x" in request.args and "z" not in request.args and len(request.args) == 2,
    "copy": lambda: request.args.copy().getlist("x") == ["1", "2"],
    "request.values": lambda: request.values.getlist("x") == ["1", "2"],
    "nobody": lambda: True,
}


@pytest.mark.parametrize("read", ONE)
def test_10_S1_an_argument_that_came_twice_is_no_single_value(app: Flask, read: str) -> None:
    app.add_url_rule("/tested-read", "read", public(lambda: str(ONE[read]())))
    client = browser_like(app)
    for query, status in (("x=1", 200), ("x=1&y=1", 200), ("x=1&x=2", 400), ("x=1&x=1", 400), ("x=1&y=1&%78=2", 400)):
        assert client.get(f"/tested-read?{query}").status_code == status


class Search(QueryForm):
    """A field of each kind. WTForms alone would take the first of two values in all but a few."""

    text = StringField(default="")
    number = IntegerField(validators=[Optional()])
    day = DateField(validators=[Optional()])
    box = BooleanField()
    one = SelectField(choices=["a", "b"], default="a")
    radio = RadioField(choices=["a", "b"], default="a")
    hidden = HiddenField()
    several = SelectMultipleField(choices=["a", "b"], validators=[InputRequired()])


VALUES = {"text": "x", "number": "1", "day": "2026-01-31", "box": "y", "one": "b", "radio": "b", "hidden": "x"}


@pytest.mark.parametrize("name", VALUES)
def test_10_S1_a_form_over_the_arguments_takes_one_value_for_a_field_too(app: Flask, name: str) -> None:
    def search() -> str:
        form = Search()
        return f"{form.validate()} {form[name].data} {form.several.data}"

    app.add_url_rule("/tested-search", "search", public(search))
    client, value = browser_like(app), VALUES[name]
    read = "True" if name == "box" else value
    assert (
        client.get(f"/tested-search?several=a&several=b&{name}={value}&utm=1&utm=2").text == f"True {read} ['a', 'b']"
    )
    assert client.get(f"/tested-search?{name}={value}").text.startswith("False")
    for other in (value, "", "other"):
        assert client.get(f"/tested-search?several=a&{name}={value}&{name}={other}").status_code == 400


class Place(Form):
    """A form in a form."""

    town = StringField()
    kinds = SelectMultipleField(choices=["a", "b"])


class Nested(QueryForm):
    """Forms and lists in a form have fields of their own."""

    place = FormField(Place)
    words = FieldList(StringField())
    places = FieldList(FormField(Place))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("place-town=x&place-town=y", 400),
        ("words-0=x&words-0=y", 400),
        ("places-1-town=x&places-1-town=y", 400),
        ("place-town=x&words-0=x&words-1=x&places-0-town=x", 200),
        ("place-kinds=a&place-kinds=b&places-0-kinds=a&places-0-kinds=b", 200),
    ],
)
def test_10_S1_nor_does_a_form_in_a_form_take_several(app: Flask, query: str, status: int) -> None:
    app.add_url_rule("/tested-nested", "nested", public(lambda: str(Nested().data)))
    assert browser_like(app).get(f"/tested-nested?{query}").status_code == status


@pytest.mark.parametrize("read", ALL)
def test_10_S1_all_values_of_an_argument_can_be_read(app: Flask, read: str) -> None:
    app.add_url_rule("/tested-read", "read", public(lambda: str(ALL[read]())))
    assert browser_like(app).get("/tested-read?x=1&x=2&y=3").text == "True"


@pytest.mark.parametrize(
    "value", ["0" * 31, "0" * 33, "A" * 32, "../" * 10 + "aa", "0" * 31 + "\u0660", "0" * 32 + "\n"]
)
def test_10_S1_ids_are_hexadecimal_and_of_one_length(app: Flask, value: str) -> None:
    app.add_url_rule("/tested-items/<hex_id:item>", "item", public(lambda item: item))
    client = browser_like(app)
    assert client.get(f"/tested-items/{'0123456789abcdef' * 2}").status_code == 200
    assert client.get(f"/tested-items/{quote(value)}").status_code == 404


def test_10_S1_every_part_of_a_path_is_typed_and_bounded(app: Flask) -> None:
    """Nonsense is no route at all: no view has to think of it."""
    own = [rule for rule in app.url_map.iter_rules() if rule.arguments and not is_from_a_library(app, rule)]
    typed = [rule for rule in own if "<path:" not in rule.rule]  # a path is as long as an address may be
    assert typed
    for rule in typed:
        for nonsense in ("a" * 2000, "-1" * 1000):
            with pytest.raises(NotFound):
                app.url_map.bind("localhost").match(
                    re.sub("<[^>]+>", nonsense, rule.rule), method=min(rule.methods or ())
                )


def is_from_a_library(app: Flask, rule: Rule) -> bool:
    """Whether the view of a route is not the app's own, as those of Flask-Admin."""
    module = sys.modules[inspect.unwrap(app.view_functions[rule.endpoint]).__module__]
    return not Path(str(module.__file__)).is_relative_to(app.root_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ["DP02", "DP03"]),
        ({"TRUSTED_PROXY_HOPS": 1}, ["DP03"]),
        ({"TRUSTED_PROXY_HOPS": 1, "TRUSTED_HOSTS": "www.example.com,localhost"}, []),
        ({"FLASK_DEBUG": True}, []),
    ],
)
def test_10_S5_how_the_app_is_reached_is_a_fact(
    app_config: dict[str, object], changes: dict[str, object], found: list[str]
) -> None:
    assert [fact.id for fact in urls.check(create_app(app_config | changes))] == found


def test_10_S5_in_debug_absolute_urls_have_the_port_of_the_request(app_config: dict[str, object]) -> None:
    app = create_app({**app_config, "FLASK_DEBUG": True})
    with app.test_request_context(base_url="http://localhost:5000"):
        assert url_for("pages.home", _external=True) == "http://localhost:5000/"
        assert safe_redirect_target("http://localhost:5000/uploads") == "/uploads"
