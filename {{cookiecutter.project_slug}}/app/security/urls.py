"""Mitigation 10, redirects and URLs: no link to this site redirects elsewhere, the server fetches no private URLs.

``safe_redirect_target`` alone decides where a redirect may lead that a request names. One that code chose may lead to
the hosts that its view declares with ``@may_redirect_to``. The ``Location`` header of every response is checked again
before it is sent, and so are ``Refresh`` and htmx's ``HX-Redirect``. What the server may fetch: see outgoing.py.
Source: OWASP Unvalidated Redirects and Forwards Cheat Sheet; WHATWG URL; ASVS 5.0 V1.3.6, V3.7.2, V3.7.3, V4.1.3,
V15.3.7.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response, current_app, has_request_context, redirect, request, url_for
from werkzeug.datastructures import ImmutableMultiDict, MultiDict
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter
from werkzeug.urls import iri_to_uri
from werkzeug.utils import cached_property
from wtforms import Field, FieldList, Form, FormField, SelectMultipleField

from app.security.declarations import Declared, declare, declared_by
from app.security.errors import Refusal, StrictRequest, refuse, respond
from app.security.findings import Finding
from app.security.networks import UNKNOWN, network
from app.security.outgoing import OutgoingURLError as OutgoingURLError  # public here too
from app.security.outgoing import check_outgoing_url as check_outgoing_url
from app.settings import LOOPBACK_HOSTS, is_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

NUMBER = 10
TITLE = "Redirects and URLs"
SUMMARY = "A link to this site stays on this site, or a page first shows where it leads."

UNKNOWN_PLACE = "This link leads to a place that this site does not know."
MAX_URL = 4096  # characters of path and query
PROBED = ("/healthz", "/readyz", "/metrics")

# The name of a declaration: the hosts that a view may redirect to, and the reason.
TARGETS = "may_redirect_to"

# Browsers remove tabs and line breaks from a URL: "/\t/evil.example" leads to another site.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Relative to the page: no slash, backslash or scheme comes first, so no browser reads a host in it.
_RELATIVE = re.compile(r"(?a)(?=[\w?-])[\w./%~-]*(\?.*)?")
# The same, percent-encoded once or more: a proxy that decodes turns "/%2fevil.example" into "//evil.example".
_ENCODED_START = re.compile(r"/%(25)*(2f|5c|[01][0-9a-f]|20|7f)", re.IGNORECASE)
# What comes before the target of a Refresh, in the spellings that browsers read (HTML, "shared declarative refresh").
_SECONDS = re.compile(r"(?i)\A[\s\d.]*[;,]?\s*(?:url\s*=\s*)?")

# A host, or a function that returns one.
Host = str | Callable[[], str]


class HexId(BaseConverter):
    """The URL converter ``hex_id``: 128 random bits, as ``secrets.token_hex(16)`` returns them."""

    regex = "[0-9a-f]{32}"


def _refuse_repeated(name: str) -> NoReturn:
    message = f"The address contains the parameter {name[:40]!r} twice. Please go back and try again."
    refuse(400, message, parameter=name)


class OneValueEach(MultiDict[str, str]):
    """Query arguments. One that came twice can't be read as a single value: programs differ in which one they take.

    ``getlist``, ``lists`` and ``items(multi=True)`` return all values. The others raise Refusal (400).
    """

    def __getitem__(self, name: str) -> str:
        """Return the value; ``get`` and ``to_dict`` come here too."""
        if len(self.getlist(name)) > 1:
            _refuse_repeated(name)
        return super().__getitem__(name)

    def items(self, multi: bool = False) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        """Return pairs of names and values, with ``multi`` one for each value."""
        return iter(super().items(multi=True) if multi else ((name, self[name]) for name in self))

    def values(self) -> Iterator[str]:  # type: ignore[override]
        """Return the values."""
        return (self[name] for name in self)


class QueryArguments(OneValueEach, ImmutableMultiDict[str, str]):  # type: ignore[misc]
    """The query arguments of a request, which can't be changed."""

    def copy(self) -> OneValueEach:  # type: ignore[override]
        """Return a copy that can be changed."""
        return OneValueEach(self)


class Request(StrictRequest):
    """A request whose query arguments are ``QueryArguments``."""

    @cached_property
    def args(self) -> QueryArguments:
        """The query arguments. Read one that may come more than once with ``getlist``."""
        return QueryArguments(super().args)


class QueryForm(Form):
    """A form over the query arguments, such as that of a search. It changes nothing, so it has no token.

    A repeated argument is refused (400) here too: WTForms would take the first of its values. Only a
    ``SelectMultipleField`` takes several. Call ``validate()``.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Read the arguments of this request; ``kwargs`` are those of a form, such as ``obj``."""
        super().__init__(request.args, **kwargs)
        for field in _fields(self):
            if not isinstance(field, SelectMultipleField) and len(field.raw_data or ()) > 1:
                _refuse_repeated(field.name)


def _fields(form: Iterable[Field]) -> Iterator[Field]:
    """Yield the fields of a form that have a value, those of the forms and lists in it too."""
    for field in form:
        yield from _fields(field) if isinstance(field, FormField | FieldList) else (field,)


def init_app(app: Flask) -> None:
    """Trust only the configured hosts and proxies, limit URLs and their arguments, and check redirects."""
    config = app.config
    hosts = config["TRUSTED_HOSTS"]
    # In debug, only the request knows the port. Its host is checked too.
    config["SERVER_NAME"] = config["SERVER_NAME"] or (None if app.debug else hosts[0])
    config["TRUSTED_HOSTS"] = list(filter(None, dict.fromkeys((*hosts, config["SERVER_NAME"]))))  # ports are ignored
    config["PREFERRED_URL_SCHEME"] = "http" if app.debug else "https"
    app.url_map.converters["hex_id"] = HexId
    app.request_class = Request
    app.before_request(_refuse_long_urls)
    app.after_request(_check_redirects)
    app.wsgi_app = _with_normal_host(app, app.wsgi_app)  # type: ignore[method-assign, assignment]
    if hops := config["TRUSTED_PROXY_HOPS"]:
        app.wsgi_app = _behind_proxies(app.wsgi_app, hops)  # type: ignore[method-assign, assignment]


def _behind_proxies(wsgi_app: WSGIApplication, hops: int) -> WSGIApplication:
    """Take the client's address and the scheme from the proxies; the host never comes from one: SERVER_NAME sets it.

    Each proxy adds an address to X-Forwarded-For, but often only the first one, which terminates TLS, sets
    X-Forwarded-Proto. So a request that came through all proxies may name fewer schemes than addresses.
    """
    fixed: list[WSGIApplication] = [
        ProxyFix(wsgi_app, x_for=hops, x_proto=schemes, x_host=0) for schemes in range(hops + 1)
    ]

    def behind(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        addresses, schemes = (environ.get(f"HTTP_X_FORWARDED_{name}", "").count(",") + 1 for name in ("FOR", "PROTO"))
        return fixed[min(schemes, hops) if addresses >= hops else hops](environ, start_response)

    return behind


def check(app: Flask) -> Iterator[Finding]:
    """Report a missing proxy, and trusted hosts that only this machine can use."""
    if not app.config["TRUSTED_PROXY_HOPS"] and not app.debug:
        evidence = "The app has no proxy in front (TRUSTED_PROXY_HOPS=0): a few slow clients can occupy every thread."
        yield Finding("DP02", "note", evidence, "Use a proxy with deploy/nginx.conf, and set TRUSTED_PROXY_HOPS=1.")
    if set(app.config["TRUSTED_HOSTS"]) <= set(LOOPBACK_HOSTS) and not app.debug:
        evidence = "The app answers only to the names of this machine (TRUSTED_HOSTS is not set)."
        yield Finding("DP03", "note", evidence, "In production, set TRUSTED_HOSTS to the names of the site.")


def may_redirect_to(*hosts: Host, reason: str) -> Callable[[Declared], Declared]:
    """Let a view redirect to other sites that its own code chooses, for ``reason``, which the audit shows.

    For a sign-in elsewhere, a hosted checkout, a signed link to a file; also if a library makes the redirect. Visitors
    go straight there. ``hosts`` are exact names, with a port if it is not 443; only https, in debug http too. A host
    that is a setting is given as a function: ``lambda: current_app.config["CHECKOUT_HOST"]``. If it returns "", there
    is none. It accepts the same targets as ``csrf.exempt``. Raises ValueError for what is not a host, or no reason.

    Chromium applies a page's ``form-action`` to the redirects that follow its form, and the form may be on any page. So
    the policy of all pages names these hosts. If one of them redirects on at once, list the next host too.
    """
    if not (reason.strip() and hosts):
        raise ValueError("A redirect to other sites needs their hosts and a reason.")
    list(_names(host for host in hosts if isinstance(host, str)))
    return lambda target: declare(target, TARGETS, (hosts, reason))


def targets_of(endpoint: str | None, method: str) -> tuple[set[str], str]:
    """Return the hosts that a view of the current app may redirect to, and the reason."""
    hosts, reason = declared_by(current_app, endpoint, method, TARGETS, ((), ""))
    return set(_names(hosts)), reason


def form_targets() -> str:
    """Return the hosts that any view may redirect to, as sources of the policy's ``form-action``."""
    if TARGETS not in current_app.extensions:
        views = ((rule.endpoint, method) for rule in current_app.url_map.iter_rules() for method in rule.methods or ())
        names = set[str]().union(*(targets_of(*view)[0] for view in views))
        current_app.extensions[TARGETS] = " ".join(sorted(names))
    sources: str = current_app.extensions[TARGETS]
    return sources


def _names(hosts: Iterable[Host]) -> Iterator[str]:
    """Yield the names of hosts. Raises ValueError for what is none: the names become a part of the policy."""
    for host in hosts:
        name = host if isinstance(host, str) else host()
        if is_host(name):
            yield name.lower()
        elif name or isinstance(host, str):
            raise ValueError(f"{name!r} is not a host, such as 'pay.example.com' or 'localhost:8080'.")


def safe_redirect_target(target: str | None) -> str | None:
    """Return ``target`` in a safe form, or None. This function alone decides where a redirect may lead.

    A path that starts with a slash, or an absolute URL of this site, becomes a normalized path of this site. An https
    URL with a host of ``ALLOWED_REDIRECT_HOSTS`` and the default port stays an absolute URL. All else is None. The
    result is ASCII. Never raises.
    """
    try:
        return _decide((target or "").strip(" "))
    except ValueError:  # not a URL, or not encodable
        return None


def redirect_to(target: str | None, fallback_endpoint: str) -> Response:
    """Return a redirect (303) to ``target`` if it is safe; to another site, via the leaving page.

    Any other target leads to ``fallback_endpoint``. Use this for every target that comes from a request.
    """
    safe = safe_redirect_target(target)
    return redirect(_by_the_leaving_page(safe) if safe else url_for(fallback_endpoint), 303)  # type: ignore[return-value]


def _decide(target: str) -> str | None:
    if len(target) > MAX_URL or _CONTROLS.search(target) or target.startswith("//"):
        return None
    parts = urlsplit(target)
    origin = f"{parts.scheme}://{parts.netloc.lower()}"
    if not (parts.scheme or parts.netloc) or origin in _own_origins():
        path = re.sub("%2e", ".", parts.path or ("/" if parts.netloc else ""), flags=re.IGNORECASE)
        # Browsers read a backslash in a path as a slash.
        if not path.startswith("/") or "\\" in path or _ENCODED_START.match(path):
            return None
        # Resolving ".." could leave two slashes at the start: "/..//evil.example".
        ending = "/" if path.endswith(("/", "/.", "/..")) else ""
        path = "/" + (posixpath.normpath(path).strip("/") + ending).lstrip("/")
        return None if _ENCODED_START.match(path) else iri_to_uri(urlunsplit(("", "", path, *parts[3:])))
    host = parts.netloc.lower().removesuffix(":443")
    if parts.scheme == "https" and host.isascii() and host in current_app.config["ALLOWED_REDIRECT_HOSTS"]:
        return iri_to_uri(urlunsplit(("https", host, parts.path or "/", *parts[3:])))
    return None


def normal_host(host: str) -> str:
    """Return the one spelling of a host, with or without a port: ``App.Test.:8443`` is ``app.test:8443`` (RFC 9110)."""
    name, colon, port = host.lower().partition(":")
    return name.removesuffix(".") + (colon + port if port else "")


def _with_normal_host(app: Flask, wsgi_app: WSGIApplication) -> WSGIApplication:
    """Let the app see one spelling of the request's host: Werkzeug compares it to TRUSTED_HOSTS letter by letter.

    Load balancers send the machine's address as the host, or no host. Health checks answer them: they repeat no host.
    """

    def normal(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST") or environ["SERVER_NAME"]
        if environ.get("PATH_INFO") in PROBED and network(host) != UNKNOWN:
            environ["HTTP_HOST"] = app.config["TRUSTED_HOSTS"][0]
        elif "HTTP_HOST" in environ:
            environ["HTTP_HOST"] = normal_host(environ["HTTP_HOST"])
        return wsgi_app(environ, start_response)

    return normal


def canonical_host() -> str | None:
    """Return the host in absolute URLs, or None in debug. Code may set SERVER_NAME to None, Flask's default, later."""
    config = current_app.config
    return config["SERVER_NAME"] or (None if current_app.debug else config["TRUSTED_HOSTS"][0])


def _own_origins() -> set[str]:
    """Return the canonical origin and the request's origin, whose host is a trusted one."""
    host = canonical_host()
    origins = {f"{current_app.config['PREFERRED_URL_SCHEME']}://{host}"} if host else set()
    return origins | {request.host_url.rstrip("/")} if has_request_context() else origins


def _is_declared(location: str) -> bool:
    """Return whether this request's view declares the host that a browser reads in ``location``."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return False
    # In debug, the app itself is on http, and so may be the other site, on the same machine.
    fits = parts.scheme == "https" or (parts.scheme == "http" and current_app.debug)
    return fits and parts.netloc.lower().removesuffix(":443") in targets_of(request.endpoint, request.method)[0]


def _by_the_leaving_page(safe: str) -> str:
    return safe if safe.startswith("/") else url_for("redirects.leave", next=safe)


def _check_redirects(response: Response) -> Response:
    """Check each header that leads elsewhere: other code (an extension, the router) may have set it."""
    for name in (*(["Location"] if 300 <= response.status_code < 400 else ()), "Refresh", "HX-Redirect"):
        if name in response.headers:
            _check_redirect(response, name)
    return response


def _check_redirect(response: Response, name: str) -> None:
    before, location = "", response.headers[name]
    if name == "Refresh":
        quoted = _SECONDS.sub("", location)
        before, location = location.removesuffix(quoted), quoted.strip("\"'")
    own = tuple(f"{origin}/" for origin in _own_origins())
    if not location or _RELATIVE.fullmatch(location) or location.startswith(own) or _is_declared(location):
        return
    safe = safe_redirect_target(location)
    if safe is None:
        # Reuse this response: the scripts and styles of the page need the headers that it already has.
        reason = "A redirect was stopped: it leads to no path of this site, and to no host in @may_redirect_to."
        page = respond(Refusal(400, UNKNOWN_PLACE, reason=reason, target=location))
        response.status_code, response.content_type = page.status_code, page.content_type
        response.set_data(page.get_data())
        del response.headers[name]
    else:
        response.headers[name] = before + _by_the_leaving_page(safe)


def _refuse_long_urls() -> None:
    if len(request.path) + len(request.query_string) > MAX_URL:
        refuse(414, f"This address is too long: the maximum is {MAX_URL} characters.")
