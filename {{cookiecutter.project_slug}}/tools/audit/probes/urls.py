"""10 URLs: where can a redirect lead, and which parts of a request does the app trust?"""

from __future__ import annotations

import ast
import contextlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import quote, urlsplit

from flask import redirect, request, url_for
from flask_wtf.csrf import generate_csrf
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response
from wtforms import StringField

from app.security import outgoing, urls
from app.security.findings import Finding
from app.settings import Settings
from app.visitors import public
from tests.lint.nodes import nodes_of
from tools.audit.steps import Relaxed, probe
from tools.audit.subject import ALLOWED_HOST, HOST, UNSAFE_METHODS, NotApplicable, Subject, imported

EVIL = (
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "/\t/evil.example",
    "https:evil.example",
    "https://{host}.evil.example/",
    "https://{host}@evil.example/",
    "javascript:alert(1)",
    "/%2fevil.example",
    "/a/..//..//evil.example/",
)
PRIVATE = (
    "http://169.254.169.254/",
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://127.1/",
    "https://[::1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::10.0.0.1]/",
    "https://[64:ff9b::a00:1]/",
    "https://[2002:a00:1::]/",
    "https://[fd00::1]/",
    "https://168.63.129.16/",
    "https://192.88.99.1/",
    "https://[3fff::1]/",
    "https://[2a00:1450::5efe:a00:1]/",
    "file:///etc/passwd",
    "ftp://example.com:443/",
    "https://user@example.com/",
    "https://example.com:22/",
)
CHECKS = re.compile(r"urlsplit|urlparse|url_parse|\w*(is|get|ensure)_?(safe|allowed|local)\w*|url_has_allowed\w*")
OUR_OWN = ("url", "base_url", "path", "full_path", "endpoint", "method", "root_path", "query_string", "host_url")
UNCLEAR = (
    "/up\tloads",
    "/a\\b",
    "//evil.example",
    "/%2fevil.example",
    "/%5cevil.example",
    "/%2fevil.example/..",
    "/a/../%2fevil.example",
    "https:/evil.example",
)
CLIMBING = ("/..//evil.example", "/a/../..//evil.example", "/a/.././/evil.example", "/./%2e%2e//evil.example")
FETCHERS = ("urlopen", "requests", "httpx", "urllib3", "aiohttp", "HTTPSConnection", "HTTPConnection")
FETCHING = {*FETCHERS, "http.client", "urllib.request"}


class _Ask(urls.QueryForm):
    audit = StringField()


@probe("10.S1")
def parameters_are_bounded(subject: Subject) -> Iterator[str]:
    """Send long and repeated parameters, and check the routes' converters."""
    page = subject.page.rule
    for path, status, what in (
        (f"{page}?x={'a' * 9000}", 414, "A URL of 9,000 characters"),
        (f"/{'a' * 9000}", 414, "A path of 9,000 characters"),
    ):
        if (found := subject.browser().open(path).status_code) != status:
            yield f"{what} answers {found}."
    with subject.view(subject.page.endpoint, lambda: request.args.get("audit", "")):
        if (found := subject.browser().open(f"{page}?audit=1&audit=2").status_code) != 400:
            yield f"A parameter that is given twice and read once answers {found}."
    with subject.view(subject.page.endpoint, lambda: str(_Ask().audit.data)):
        if subject.own and subject.browser().open(f"{page}?audit=1&audit=2").status_code != 400:
            yield "A form takes the first of several values of a parameter."
    for rule in subject.rules("GET", "POST"):
        for name in rule.arguments:
            converter = rule._converters.get(name)  # none if the route's defaults set it
            if converter is not None and converter.regex in ("[^/]{1,}", "[^/]+"):
                evidence = f"{rule.rule} accepts any text as {name}"
                library = subject.library_of(rule.endpoint) if subject.own else ""
                yield Relaxed(f"{evidence}: it is a route of {library}.") if library else f"{evidence}."


@probe("10.S2")
def redirects_stay_here(subject: Subject) -> Iterator[str]:
    """Request redirects to other sites."""
    if not subject.own:
        found = list(_redirects_by_request(subject))
        if not found:
            raise NotApplicable("no code redirects to a target from a request")
        yield from found
        return
    yield from _declared(subject)
    yield from _declaring(subject)
    if not subject.takes("/redirect", "GET"):
        raise NotApplicable("no route redirects to targets from a request")
    for target in (
        *(each.format(host=subject.host) for each in EVIL),
        f"http://{ALLOWED_HOST}/",
        f"https://{ALLOWED_HOST}:8443/",
        f"https://{ALLOWED_HOST}.evil.example/",
        f"https://evil{ALLOWED_HOST}/",
    ):
        answer = _ask_for(subject, target)
        if answer.status_code == 200 or _leaves(subject, answer):
            yield f"{target!r} leads to another site ({answer.status_code})."
    leaving = _ask_for(subject, f"https://{ALLOWED_HOST}/a")
    if leaving.status_code != 200 or ALLOWED_HOST not in leaving.text or "Location" in leaving.headers:
        yield "Before an allowed site, no page shows where the link leads."
    if not re.search(rf">\s*{re.escape(ALLOWED_HOST)}\s*<", leaving.text) or "http-equiv" in leaving.text:
        yield "The page before another site does not show its host, or redirects automatically."
    if not re.search(r'(?s)<main.*<a\b[^>]*href="/.*</main', leaving.text):
        yield "The page before another site has no link back."
    with subject.instead({"ALLOWED_REDIRECT_HOSTS": "xn--bcher-kva.example"}):
        if "b\u00fccher" in _ask_for(subject, "https://xn--bcher-kva.example/").text:
            yield "The page before another site shows the host with look-alike letters."
    careless = Response(status=302, headers={"Location": f"https://{ALLOWED_HOST}/a"})
    with subject.view(subject.page.endpoint, lambda: careless):
        if ALLOWED_HOST in str(urlsplit(subject.browser().open(subject.page.rule).headers.get("Location", "")).netloc):
            yield "A redirect leads to an allowed site without the page in between."
    if Settings.model_fields["ALLOWED_REDIRECT_HOSTS"].default:
        yield "By default, other sites are allowed."
    inside = _ask_for(subject, "/uploads?x=1")
    if not inside.headers.get("Location", "").endswith("/uploads?x=1"):
        yield "A redirect within the site does not work."


def _declared(subject: Subject) -> Iterator[str]:
    """Yield the sites that views may redirect to."""
    with subject.app.test_request_context(base_url=f"https://{subject.host}"):
        for rule in subject.rules("GET", *UNSAFE_METHODS):
            found = (urls.targets_of(rule.endpoint, method) for method in sorted(rule.methods or ()))
            for hosts, reason in {(", ".join(sorted(hosts)), reason) for hosts, reason in found if hosts}:
                evidence = f"{rule.rule} may redirect to {hosts}, and any form may lead there: {reason}"
                yield Relaxed(evidence, "It is declared with @may_redirect_to")


def _declaring(subject: Subject) -> Iterator[str]:
    """Add a view that may redirect to one site, and one that may not, and compare where they lead."""
    app = subject.make({})
    mark = urls.may_redirect_to("pay.audit.example", reason="The audit tries what a declaration opens.")

    def leave() -> Response:
        return redirect(request.args["next"])

    app.add_url_rule("/audit/declared", "declared", public(mark(partial(leave))))
    app.add_url_rule("/audit/other", "other", public(leave))
    good, *bad = (
        "https://pay.audit.example/a",
        "http://pay.audit.example/a",
        "https://pay.audit.example:8443/a",
        "https://pay.audit.example.evil.example/a",
        *(each.format(host="pay.audit.example") for each in EVIL),
    )
    for path, target in (*(("/audit/declared", target) for target in (good, *bad)), ("/audit/other", good)):
        answer = subject.browser(app).open(f"{path}?next={quote(target, safe='')}")
        if path == "/audit/declared" and target == good:
            if answer.headers.get("Location") != good:
                yield "A redirect to a site that its view declares with @may_redirect_to is stopped."
        elif _leaves(subject, answer):
            yield f"@may_redirect_to lets {'its' if target in bad else 'another'} view redirect to {target!r}."
    policy = subject.browser(app).open(subject.page.rule).headers.get("Content-Security-Policy", "")
    if "pay.audit.example" not in re.sub("(?s).*form-action|;.*", "", policy):
        yield "The policy stops the forms of a view that may redirect to another site."


@probe("10.S3")
def links_are_made(subject: Subject) -> Iterator[str | Finding]:
    """Read all templates, and the texts in the code."""
    found = subject.static("UR03")
    if not (found or subject.own or subject.templates):
        raise NotApplicable("the app has no templates")
    yield from found


@probe("10.S4")
def one_function_decides(subject: Subject) -> Iterator[str | Finding]:
    """Make a view redirect to unsafe targets, sign in with one, and read the code."""
    yield from subject.static("UR04")
    subject.needs_page()
    for target in (each.format(host=subject.host) for each in EVIL):
        with subject.view(
            subject.page.endpoint, lambda target=target: Response(status=302, headers={"Location": target})
        ):
            answer = subject.browser().open(subject.page.rule)
        if _leaves(subject, answer):
            yield f"An unsafe redirect to {target!r} is sent."
            break
    if subject.own:
        with subject.app.test_request_context(base_url=f"https://{HOST}"):
            for target in UNCLEAR:
                if urls.safe_redirect_target(target) is not None:
                    yield f"{target!r}, which programs interpret in different ways, is accepted."
            for target in CLIMBING:
                if re.search(r"^//|\.\.", str(urls.safe_redirect_target(target))):
                    yield f"{target!r} is resolved to another host."
    with subject.view(subject.page.endpoint, lambda: redirect(url_for(subject.page.endpoint))):
        if not 300 <= subject.browser().open(subject.page.rule).status_code < 400:
            yield "A redirect within the app is stopped."
    if subject.own and subject.member:
        email, password = subject.new_account()
        for target in EVIL[:3]:
            form = {"email": email, "password": password, "next": target}
            if _leaves(subject, subject.browser().send("/login", form)):
                yield f"The sign-in redirects to {target!r}."


@probe("10.S5")
def hosts_are_ours(subject: Subject) -> Iterator[str]:
    """Send requests with another host, and check private addresses with check_outgoing_url."""
    for headers, host in (
        ({}, "evil.example"),
        ({}, f"evil.{subject.host}"),
        ({"X-Forwarded-Host": "evil.example"}, ""),
    ):
        with subject.view(subject.page.endpoint, lambda: url_for(subject.page.endpoint, _external=True)):
            answer = subject.browser().open(subject.page.rule, host=host, headers={"Referer": "", **headers})
        if host and answer.status_code != 400:
            yield f"Host: {host} is accepted ({answer.status_code})."
        if answer.status_code == 200 and "evil" in answer.text:
            yield f"An absolute URL repeats {'X-Forwarded-Host' if headers else 'Host'}."
    if subject.own:
        spelt = f"{subject.host.upper()}."
        with subject.view(subject.page.endpoint, lambda: url_for(subject.page.endpoint, _external=True)):
            answer = subject.browser().open(subject.page.rule, host=spelt)
        if answer.status_code != 200 or subject.host not in answer.text:
            yield f"Host: {spelt}, the same host in another spelling, is refused or repeated ({answer.status_code})."
        second = subject.make({"TRUSTED_HOSTS": f"{subject.host},second.example", "SERVER_NAME": ""})
        with subject.view(subject.page.endpoint, lambda: url_for(subject.page.endpoint, _external=True), second):
            if "second.example" in subject.browser(second).open(subject.page.rule, host="second.example").text:
                yield "An absolute URL repeats the request's host."
        yield from _proxies(subject)
        yield from _mails(subject)
    yield from _guard(subject)


def _proxies(subject: Subject) -> Iterator[str]:
    """Send a proxy's headers as a client, and as a trusted proxy."""
    # A proxy appends the client's address to the header that the client sent.
    addresses = "203.0.113.66, 192.0.2.99"
    forged = {"X-Forwarded-For": addresses, "X-Forwarded-Proto": "http", "X-Forwarded-Host": "second.example"}
    hosts = f"{subject.host},second.example"

    def seen() -> str:
        return f"{request.remote_addr} {request.host}"

    for hops, wanted in ((0, f"192.0.2.1 {subject.host}"), (1, f"192.0.2.99 {subject.host}")):
        app = subject.make({"TRUSTED_PROXY_HOPS": hops, "TRUSTED_HOSTS": hosts})
        headers = forged | {"X-Forwarded-Proto": "https"} if hops else forged
        with subject.view(subject.page.endpoint, seen, app):
            if (
                text := subject.browser(app, address="192.0.2.1").open(subject.page.rule, headers=headers).text
            ) != wanted:
                yield f"With {hops} trusted proxies, the proxy headers result in {text[:60]!r}."


def _mails(subject: Subject) -> Iterator[str]:
    """Request a reset link by mail, at another trusted host."""
    if not subject.takes("/reset"):
        return
    email, _ = subject.new_account()
    mails: list[str] = []
    with (
        subject.instead({"TRUSTED_HOSTS": f"{subject.host},second.example"}),
        mock.patch("app.accounts.mail._deliver", side_effect=lambda _, message: mails.append(message.get_content())),
    ):
        browser = subject.browser()
        with subject.view(subject.page.endpoint, generate_csrf):
            token = browser.open(subject.page.rule, host="second.example").text
        browser.open("/reset", method="POST", host="second.example", data={"csrf_token": token, "email": email})
    if f"https://{subject.host}/reset/" not in "".join(mails):
        yield "A link in a mail repeats the request's host, or no mail was sent."


def _redirects_by_request(subject: Subject) -> Iterator[str]:
    """Yield each function in which data of a request, maybe through variables, becomes a redirect target."""
    for file, tree in subject.trees.items():
        for function in nodes_of(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            asked = {"request"}
            nodes = nodes_of(function)
            for _ in range(3):  # a variable may be assigned to another one
                for node in nodes:
                    if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.For) and _names(
                        getattr(node, "value", None) or getattr(node, "iter", None), asked
                    ):
                        for target in getattr(node, "targets", None) or [node.target]:  # type: ignore[union-attr]
                            asked |= {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
            for node in nodes:
                if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "redirect" and node.args:
                    if not _names(node.args[0], asked):
                        continue
                    evidence = f"{file}:{node.lineno}: The target of a redirect comes from a request"
                    checked = CHECKS.search(ast.unparse(function))
                    yield Relaxed(f"{evidence}, and {checked[0]} may check it.") if checked else f"{evidence}."


def _names(node: ast.AST | None, asked: set[str]) -> bool:
    """Return whether an expression uses one of these names. Arguments of url_for are safe: it stays on the host."""
    if node is None or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("url_for")):
        return False
    if isinstance(node, ast.Name):
        return node.id in asked
    if isinstance(node, ast.Attribute) and node.attr in OUR_OWN and ast.unparse(node.value).endswith("request"):
        return False
    start = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else getattr(node, "left", None)
    if isinstance(start, ast.Constant) and re.match(r"/[^/\\]", str(start.value)):
        return False
    return any(_names(child, asked) for child in ast.iter_child_nodes(node))


def _leaves(subject: Subject, answer: TestResponse) -> bool:
    """Return whether a browser would leave this host."""
    location = re.sub(r"[\t\r\n]", "", answer.headers.get("Location", "")).replace("\\", "/")
    try:
        parts = urlsplit(location)
    except ValueError:
        return True
    return parts.scheme not in ("", "https", "http") or parts.netloc not in ("", subject.host)


def _guard(subject: Subject) -> Iterator[str]:
    fetches = subject.code_mentions(*FETCHERS)
    if "security/outgoing.py" not in subject.trees:
        if fetches:
            yield f"{fetches}: The code fetches URLs, and no guard checks them."
        return
    for file, tree in subject.trees.items():
        imports = [node for node in nodes_of(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        fetching = [node.lineno for node in imports if imported(node) & FETCHING]
        if fetching and "check_outgoing_url" not in ast.unparse(tree):
            yield Relaxed(
                f"{file}:{fetching[0]}: The code fetches URLs without check_outgoing_url, "
                "which is safe only for URLs that are constants in the code.",
                "Use outgoing.fetch_outgoing; what it may reach inside is an Internal(origin, reason=…)",
            )
    for url in PRIVATE:
        try:
            outgoing.check_outgoing_url(url, resolve=lambda *_: ["93.184.216.34"])
        except ValueError:
            continue
        yield f"The guard allows {url}."
    for addresses in (["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], ["fd00::1"]):
        try:
            outgoing.check_outgoing_url("https://rebinding.example/", resolve=lambda *_, addresses=addresses: addresses)
        except ValueError:
            continue
        yield f"The guard allows a name that resolves to {addresses[-1]}."
    answers = iter((["93.184.216.34"], ["10.0.0.1"]))
    pinned = outgoing.check_outgoing_url("https://example.com/a", resolve=lambda *_: next(answers))
    if pinned.address != "93.184.216.34":
        yield "The guard does not pin the address: the name may resolve to another one later (DNS rebinding)."
    for file, node in subject.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == outgoing.Internal.__name__:
            evidence = f"{file}:{node.lineno}: The server may fetch from inside: {ast.unparse(node)}"
            yield Relaxed(evidence, "It is declared with Internal")
    yield from _client()


def _client() -> Iterator[str]:
    """Fetch from a server on loopback that redirects to itself under a name that is not allowed."""
    asked = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host'].replace('localhost', '127.0.0.1')}/inside")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port, origin = server.server_port, f"http://localhost:{server.server_port}"
        for path, internal in (("/outside", []), ("/redirects", [outgoing.Internal(origin, reason="the audit")])):
            with contextlib.suppress(ValueError):
                outgoing.fetch_outgoing(origin + path, schemes=("http",), ports=(port,), internal=internal)
        server.shutdown()
    if "/outside" in asked:
        yield "fetch_outgoing fetches from this machine."
    if "/inside" in asked or "/redirects" not in asked:
        yield "fetch_outgoing follows redirects without the guard, or not at all."


def _ask_for(subject: Subject, target: str) -> TestResponse:
    return subject.browser().open(f"/redirect?next={quote(target, safe='')}")
