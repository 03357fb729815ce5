"""The app under audit: a copy that may be attacked, so that the real app is not touched.

An app generated from this template (its ``create_app`` takes settings) is created again, with its own key, counters,
database and upload folder in a temporary folder. Any other Flask app is examined as it is, in a copy of its folder,
and none of its views ever runs: a view of the audit replaces each of them, so that requests test the hooks around it
and have no effects. The audit reads in the code what the views would do.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import itertools
import logging
import re
import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_wtf import FlaskForm
from flask_wtf.csrf import generate_csrf
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.routing import BuildError, Rule
from werkzeug.test import Client, EnvironBuilder, TestResponse, encode_multipart

from app.security.declarations import declared_by
from app.security.findings import Finding
from app.security.headers import relax, relaxations_of
from app.settings import SettingsError, load_settings
from app.visitors import PUBLIC, public
from tests.answers import read_start
from tests.lint.code import check_code, trees_of
from tests.lint.files import check_files
from tests.lint.nodes import nodes_of
from tests.lint.templates import check_templates, templates_of
from tools.audit import yours

HOST = "audit.example"
ALLOWED_HOST = "docs.audit.example"
FOREIGN_ORIGIN = "https://evil.example"
UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")

PASSWORD = "mosaic tundra 7 lantern"  # noqa: S105 # nosec B105 - of the audit's own accounts

# Signs in an app's code that it uses sessions, or other credentials that a browser sends automatically.
SESSIONS = re.compile(
    r"from flask import[^\n]*\b(session|flash)\b|\bflask\.(session|flash)\b"
    r"|\bflask_(login|wtf|security|session|user|dance|admin|seasurf|oidc|oauthlib)\b|\bauthlib\b"
)
AMBIENT = re.compile(r"\.(set_)?cookies?\b|\bset_cookie\b|HTTPBasicAuth|HTTPDigestAuth|\brequest\.authorization\b")

try:
    from app.security.templating import ALLOWED
except ImportError:  # the team has removed this mitigation
    ALLOWED = {}

# The settings that the probes choose and that the app reads with each request. Each value that run.py chooses differs
# from the default: set_by_code takes one that stays the same for one that code sets.
CHOSEN = """
    ALLOWED_REDIRECT_HOSTS MAX_CONTENT_LENGTH PERMANENT_SESSION_LIFETIME RATELIMIT_DEFAULT SERVER_NAME
    SESSION_ABSOLUTE_LIFETIME TRUSTED_HOSTS UPLOAD_DIR UPLOAD_EXTENSIONS UPLOAD_QUOTA_BYTES UPLOAD_QUOTA_FILES
    UPLOAD_QUOTA_TOTAL_BYTES
""".split()  # noqa: SIM905 - a table

_clients = itertools.count(1)

View = Callable[..., Any]


class NotApplicable(Exception):  # noqa: N818 - not an error
    """There is nothing to protect in this app. The message says why."""


class NoAnswer(Exception):  # noqa: N818 - not an error either
    """A step can't be examined, because something that it depends on is missing. The message says what."""


class Unproved(NoAnswer):
    """The code suggests that a step is implemented, but no probe can prove it."""


@dataclass
class Subject:
    """The app, a factory for further copies, and the paths of its code and its project.

    In an image, the project is the checkout that is mounted there, and the code is not below it.
    ``factory`` takes settings; it is None for a foreign app. ``log`` collects the logs of all copies, and ``folder``
    is the folder that they may write to. ``hosts`` are the names of the real app.
    """

    app: Flask
    package: Path
    project: Path
    folder: Path
    log: io.StringIO
    factory: Callable[[Mapping[str, object]], Flask] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    hosts: Collection[str] = ()

    def __post_init__(self) -> None:
        if not self.own:
            for endpoint, view in self.app.view_functions.items():
                if not _is_static(endpoint):
                    self.app.view_functions[endpoint] = self._stand_in(view, lambda: "", self.app)
        self._choose(self.app, self.settings)

    @property
    def own(self) -> bool:
        """Whether this is an app generated from this template, whose copy may be attacked."""
        return self.factory is not None

    def make(self, changes: Mapping[str, object]) -> Flask:
        """Return another copy with changed settings (None: unset). Raises NotApplicable for a foreign app."""
        if self.factory is None:
            raise NotApplicable("the app can't be created with other settings")
        settings = {name: value for name, value in {**self.settings, **changes}.items() if value is not None}
        app = self.factory(settings)
        self._choose(app, settings)
        return app

    @cached_property
    def set_by_code(self) -> list[str]:
        """The settings that code sets whatever the environment says, to what the environment could say too."""
        if self.factory is None:
            return []
        elsewhere = {name: value for name, value in self.settings.items() if name not in CHOSEN}
        other = self.factory(elsewhere | {"UPLOAD_DIR": str(self.folder / "other")}).config
        same = {name: other[name] for name in CHOSEN if self.app.config[name] == other[name]}
        with contextlib.suppress(SettingsError):  # what the environment could not say, the probes must see
            load_settings({**self.settings, **same})
            return [*same]
        return []

    def _choose(self, app: Flask, settings: Mapping[str, object]) -> None:
        """Give a copy the settings of a probe where code has set others."""
        if self.set_by_code:
            chosen = load_settings(settings).model_dump()
            chosen["SERVER_NAME"] = chosen["SERVER_NAME"] or chosen["TRUSTED_HOSTS"][0]
            chosen["TRUSTED_HOSTS"] = [*chosen["TRUSTED_HOSTS"], chosen["SERVER_NAME"]]
            app.config.update({name: chosen[name] for name in self.set_by_code})

    def refuses(self, changes: Mapping[str, object]) -> bool:
        """Return whether the app refuses to start with these settings."""
        with contextlib.suppress(SettingsError):
            self.make(changes)
            return False
        return True

    @contextlib.contextmanager
    def instead(self, changes: Mapping[str, object]) -> Iterator[None]:
        """Replace the app by another copy with changed settings, within a ``with`` block.

        All apps share one limiter, and each new app replaces its storage. So the limiter is restored at the end.
        """
        with contextlib.ExitStack() as restored:
            for limiter in self.app.extensions.get("limiter", ()):
                restored.enter_context(mock.patch.dict(vars(limiter)))
            restored.enter_context(mock.patch.object(self, "app", self.make(changes)))
            yield

    @cached_property
    def _read(self) -> list[Finding]:
        """All findings of the static checks, with those that templating.ALLOWED excepts."""
        code = check_code(self.trees, hosts=self.hosts, strict=self.own)
        templates = check_templates(self.app, (), None if self.own else self.project, self.hosts)
        return [*code, *templates, *check_files(self.project)]

    def static(self, finding_id: str) -> list[Finding]:
        """Return the findings of the static checks of the templates, the code and other files for one step."""
        allowed = ALLOWED if self.own else ()
        found = (found for found in self._read if found.id == finding_id)
        return [each for each in found if not any(_excepts(exception, each) for exception in allowed)]

    def unused_exceptions(self) -> Iterator[str]:
        """Yield the exceptions in templating.ALLOWED that no code needs: they would hide a later fault."""
        for exception in ALLOWED:
            if not any(_excepts(exception, found) for found in self._read):
                yield f"The exception {exception!r} is on the list, but no code needs it."

    @cached_property
    def member(self) -> Browser | None:
        """A signed-in browser, always the same one; None in an app without accounts."""
        return self.new_member()

    def check_members(self) -> None:
        """Raise SettingsError if the app sends its members elsewhere than they ask: then most probes would fail."""
        with contextlib.suppress(NoAnswer, NotApplicable):  # the probes say so
            place = urlsplit(self.member.open("/account").headers.get("Location", "")).path if self.member else ""
            if place not in ("", "/login"):  # a session that does not begin is a finding of the probes
                raise SettingsError(
                    f"a member who asks for /account is sent to {place}, so the audit could not test what members do. "
                    "Let a setting of yours turn this off, and add its value to settings in [tool.audit] of "
                    'pyproject.toml: see "Small things" in docs/cookbook.md.'
                )

    def new_member(self) -> Browser | None:
        """Return a browser that is signed in to a new account; None in an app without accounts."""
        if not self.own or not self.takes("/register"):
            return None
        return self.sign_in(*self.new_account())

    def new_account(self) -> tuple[str, str]:
        """Register an account, and return its address and password. Raises NoAnswer."""
        email, password = f"member-{next(_clients)}@audit.example", PASSWORD
        self._fill_in(self.browser(), "/register", {"email": email, "password": password, "password_confirm": password})
        return email, password

    def sign_in(self, email: str, password: str) -> Browser:
        """Return a browser that has signed in to an account. Raises NoAnswer."""
        browser = self.browser()
        self._fill_in(browser, "/login", {"email": email, "password": password})
        browser.seen = ""  # the sign-in has started a new session
        return browser

    def reset_password(self, email: str, password: str) -> None:
        """Set a new password with a link like that of a mail."""
        with self.app.test_request_context(base_url=f"https://{self.host}"):
            user = self.app.extensions["security"].datastore.find_user(email=email)
            # An app without accounts has no such package.
            token = importlib.import_module("flask_security.recoverable").generate_reset_password_token(user)
        self.browser().send(f"/reset/{token}", {"password": password, "password_confirm": password})

    def _fill_in(self, browser: Browser, path: str, form: Mapping[str, str]) -> None:
        status = browser.send(path, form).status_code
        if status != 303:
            said = f"the audit could not get past {path}, which answers {status}"
            if status in (200, 400, 422):  # the form is shown again
                fields = ", ".join([*form, *yours.fields(path)])
                said += f" to {fields}: add the other fields of your form to fields in [tool.audit] of pyproject.toml"
            raise NoAnswer(said)

    @property
    def host(self) -> str:
        """A host name that the app accepts."""
        trusted = self.app.config.get("TRUSTED_HOSTS") or ["localhost"]
        return str(self.app.config.get("SERVER_NAME") or str(trusted[0]).lstrip("."))

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax trees of the app's Python files, by name in its package, or in its project for a foreign app."""
        if self.own:
            return trees_of(self.package)
        elsewhere = {} if self.package.is_relative_to(self.project) else trees_of(self.package)
        return elsewhere | trees_of(self.project)

    @cached_property
    def templates(self) -> dict[str, str]:
        """The source of every template, by its name."""
        return templates_of(self.app, None if self.own else self.project)

    @cached_property
    def code(self) -> str:
        """The code of all Python files as one text."""
        return "\n".join(map(ast.unparse, self.trees.values()))

    @property
    def keeps_sessions(self) -> bool:
        """Whether the app uses sessions, as far as its code shows."""
        return self.own or bool(SESSIONS.search(self.code)) or bool(self.app.config.get("SESSION_TYPE"))

    @property
    def knows_visitors(self) -> bool:
        """Whether browsers send credentials automatically: a session, another cookie, Basic authentication."""
        return (
            self.keeps_sessions
            or bool(AMBIENT.search(self.code))
            or "cookies" in str(self.app.config.get("JWT_TOKEN_LOCATION"))
        )

    def logged(self, since: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return what was logged, also to files by a foreign app, after ``since``, an earlier result of this method."""
        handlers = [*logging.getLogger().handlers, *self.app.logger.handlers]
        paths = sorted({each.baseFilename for each in handlers if isinstance(each, logging.FileHandler)})
        files = [Path(path).read_text(encoding="utf-8", errors="replace") for path in paths if Path(path).exists()]
        texts = (self.log.getvalue(), *files)
        before = (*since, *[""] * len(texts))
        return tuple(text.removeprefix(old) for text, old in zip(texts, before, strict=False))

    @cached_property
    def nodes(self) -> list[tuple[str, ast.AST]]:
        """All syntax nodes of these files, each with the name of its file."""
        return [(file, node) for file, tree in self.trees.items() for node in nodes_of(tree)]

    def text_of(self, *patterns: str) -> str:
        """Return the text of the project's files that match a glob pattern."""
        found = [path for pattern in patterns for path in sorted(self.project.glob(pattern)) if path.is_file()]
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in found)

    def code_mentions(self, *names: str) -> str:
        """Return the first place (``file:line``) where the code uses one of these names; '' for none.

        A name with a dot (``request.files``) is an attribute of an object.
        """
        ends = {name.rpartition(".")[2] for name in names}
        for file, node in self.nodes:
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            dotted = ast.unparse(node) if isinstance(node, ast.Attribute) and node.attr in ends else ""
            if {name, dotted} & set(names) or (
                isinstance(node, ast.ImportFrom | ast.Import) and imported(node) & set(names)
            ):
                return f"{file}:{getattr(node, 'lineno', 0)}"
        return ""

    def rules(self, *methods: str) -> list[Rule]:
        """Return the routes that accept one of these methods, without static files."""
        return [
            rule
            for rule in self.app.url_map.iter_rules()
            if not _is_static(rule.endpoint)
            and rule.endpoint in self.app.view_functions  # otherwise it is an alias that only url_for uses
            and not rule.websocket
            and set(methods) & (rule.methods or set())
        ]

    def innermost(self, endpoint: str) -> View:
        """Return a route's view without its decorators."""
        view: View = inspect.unwrap(self.app.view_functions[endpoint])
        while isinstance(view, partial):
            view = inspect.unwrap(view.func)
        return view

    def run_by(self, endpoint: str, method: str) -> View:
        """Return the function that a route runs for a method."""
        view = self.innermost(endpoint)
        kind = getattr(view, "view_class", None)
        run = getattr(kind, method.lower(), None) or kind.dispatch_request if kind else view
        found: View = inspect.unwrap(run if hasattr(run, "__code__") else type(run).__call__)
        return found

    def library_of(self, endpoint: str) -> str:
        """Return the package that a route's view comes from, such as ``flask_admin``; '' for the app's own."""
        view = self.innermost(endpoint)
        module = str(getattr(view, "__module__", "") or type(view).__module__)
        file = getattr(sys.modules.get(module), "__file__", None) or self.package
        return "" if Path(file).resolve().is_relative_to(self.package.resolve()) else module.partition(".")[0]

    def takes(self, path: str, method: str = "POST") -> bool:
        """Return whether there is such a route."""
        return any(rule.rule == path for rule in self.rules(method))

    @cached_property
    def answers(self) -> list[tuple[Rule, Headers]]:
        """The headers of every page without arguments as the app's own views answer; none for a foreign app."""
        browser, rules = self.member or self.browser(), self.rules("GET") if self.own else ()
        foreign = {"Origin": FOREIGN_ORIGIN}
        return [(rule, browser.open(rule.rule, headers=foreign).headers) for rule in rules if not rule.arguments]

    def relaxed_views(self) -> dict[relax, str]:
        """What the app declares that it relaxes, and where: each with its routes, or the whole app."""
        found: dict[relax, list[str]] = {each: ["the whole app"] for each in relaxations_of(self.app)}
        for rule in self.app.url_map.iter_rules():
            for method in sorted(rule.methods or ()):
                for each in relaxations_of(self.app, rule.endpoint, method):
                    places = found.setdefault(each, [])
                    if rule.rule not in places and places != ["the whole app"]:
                        places.append(rule.rule)
        return {each: ", ".join(places[:3]) + " …" * (len(places) > 3) for each, places in found.items()}

    def static_file(self, name: str) -> str:
        """Return the path of a static file."""
        return f"{self.app.static_url_path or '/static'}/{name}"

    def url(self, rule: Rule) -> str:
        """Return a path that matches a route."""
        defaults = rule.defaults or {}
        values = {name: defaults[name] if name in defaults else _sample(rule, name) for name in rule.arguments}
        with (
            self.app.test_request_context(base_url=f"https://{self.host}"),
            contextlib.suppress(BuildError, ValueError),
        ):
            adapter = self.app.url_map.bind(self.host)
            return str(adapter.build(rule.endpoint, values, method=sorted(rule.methods or {"GET"})[-1]))
        return re.sub("<[^>]*>", "a", rule.rule)

    @property
    def page(self) -> Rule:
        """The route of a page without arguments. Raises NotApplicable if there is none."""
        if self._page is None:
            raise NotApplicable("the app has no page")
        return self._page

    def needs_page(self) -> None:
        """Raise Unproved if a hook of a foreign app stops all requests without a sign-in before the views."""
        if not self.own and not self.reaches(self.page, "GET", self.browser()):
            answer = self.browser().open(self.page.rule).status_code
            raise Unproved(f"no view can be reached ({self.page.rule} answers {answer}), so no probe can test this")

    @cached_property
    def _page(self) -> Rule | None:
        pages = [rule for rule in self.rules("GET") if rule.arguments <= set(rule.defaults or ())]
        if not pages:
            for rule in self.rules("GET")[:1]:  # with a sample value in its path
                page = rule.empty()
                page.rule = self.url(rule)
                return page
        # Many apps treat health checks differently.
        pages.sort(key=lambda rule: ("health" in rule.endpoint, rule.rule != "/", rule.rule))
        if self.own:  # the home page may be for members, or have a limit of its own
            pages.sort(
                key=lambda rule: self.declares(rule, "limited_as", "unlimited") or not self.declares(rule, PUBLIC)
            )
        # Hooks of a foreign app may redirect all visitors to the sign-in.
        open_to_all = (rule for rule in pages if self.own or self.reaches(rule, "GET", self.browser()))
        return next(open_to_all, next(iter(pages), None))

    def declares(self, rule: Rule, *names: str) -> bool:
        """Return whether the view of a route has one of these declarations, for one of its methods."""
        methods = rule.methods or ()
        return any(declared_by(self.app, rule.endpoint, method, name) for name in names for method in methods)

    def browser(self, app: Flask | None = None, *, address: str = "") -> Browser:
        """Return a browser with a new client address, which no limit has counted yet."""
        number = next(_clients)
        return Browser(
            self, app or self.app, address or f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"
        )

    @contextlib.contextmanager
    def view(self, endpoint: str, view: View, app: Flask | None = None) -> Iterator[None]:
        """Replace the view of an endpoint by ``view``, within a ``with`` block; declarations are kept."""
        views = (app or self.app).view_functions
        with mock.patch.dict(views, {endpoint: self._stand_in(views[endpoint], view, app or self.app)}):
            yield

    def _stand_in(self, original: View, view: View, app: Flask) -> View:
        @wraps(original)
        def stand_in(*_args: object, **_kwargs: object) -> Any:
            if not self.own:
                _count(app, original)
            return view()

        return public(stand_in) if self.own else stand_in  # else the sign-in would hide what the hooks before it do

    def reaches(self, rule: Rule, method: str, browser: Browser, **kwargs: Any) -> bool:
        """Return whether a request reaches the view of a route."""
        calls = []
        again = declared_by(self.app, rule.endpoint, method, "shows_form_again")

        def view() -> str:
            # Such a view is also called to show a form again, and acts only if the form is valid.
            calls.append(FlaskForm().validate_on_submit() if again else True)
            return "reached"

        with self.view(rule.endpoint, view, browser.app):
            browser.open(self.url(rule), method=method, **kwargs)
        return any(calls)

    def run(self, *arguments: str) -> str:
        """Run a command of the copy, and return its output."""
        with self.app.app_context():
            return self.app.test_cli_runner().invoke(args=arguments).output

    def forge(self, content: Mapping[str, object], app: Flask | None = None) -> str:
        """Return the value of a session cookie with this content, signed with the app's key."""
        app = app or self.app
        if not isinstance(app.session_interface, SecureCookieSessionInterface):
            raise NoAnswer(f"sessions are stored by {type(app.session_interface).__name__}, and no probe can forge one")
        serializer = app.session_interface.get_signing_serializer(app)
        if serializer is None:
            raise NotApplicable("the app has no secret key, so no sessions")
        return str(serializer.dumps(dict(content)))


class Browser:
    """Sends requests like a browser on a page of the app. It stores cookies and never raises."""

    def __init__(self, subject: Subject, app: Flask, address: str) -> None:
        self.subject, self.app, self.address = subject, app, address
        self.client = Client(app)
        self.seen = ""

    def open(
        self,
        path: str,
        method: str = "GET",
        *,
        scheme: str = "https",
        host: str = "",
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> TestResponse:
        """Send a request, and read the start of the answer. An unhandled exception counts as a server's 500."""
        origin = f"{scheme}://{host or self.subject.host}"
        given = {"Referer": f"{origin}/", "Accept": "text/html", **(headers or {})}
        environ = {"REMOTE_ADDR": self.address, "wsgi.errors": self.subject.log}
        try:
            answer = self.client.open(
                path,
                base_url=origin,
                method=method,
                headers={name: value for name, value in given.items() if value},
                environ_overrides=environ,
                **kwargs,
            )
            return read_start(answer)
        except Exception as error:
            text = f"Traceback: {type(error).__name__}: {error}".encode()
            request = EnvironBuilder(base_url=origin).get_request()
            return TestResponse([text], "500 INTERNAL SERVER ERROR", Headers(), request)

    def token(self) -> str:
        """Return a CSRF token of this browser's session, as a page of the app would contain it."""
        page = self.subject.page
        with self.subject.view(page.endpoint, generate_csrf, self.app):
            answer = self.open(page.rule)
        return answer.text if answer.status_code == 200 else ""

    @property
    def _jar(self) -> tuple[str, str]:
        """The name of the session cookie and its domain."""
        domain = self.subject.app.config.get("SESSION_COOKIE_DOMAIN") or self.subject.host.partition(":")[0]
        return self.app.config["SESSION_COOKIE_NAME"], str(domain).lstrip(".")

    def cookie(self) -> str:
        """Return the value of the session cookie; '' for none."""
        name, domain = self._jar
        found = self.client.get_cookie(name, domain=domain)
        return found.value if found else ""

    def take_cookie(self, value: str) -> None:
        """Use a stolen or forged session cookie."""
        name, domain = self._jar
        self.client.set_cookie(name, value, domain=domain, secure=True)

    def session(self) -> dict[str, Any]:
        """Return the content of the session cookie, without its creation time."""
        app = self.app
        if not isinstance(app.session_interface, SecureCookieSessionInterface):
            return {}
        serializer = app.session_interface.get_signing_serializer(app)
        content = dict(serializer.loads(cookie)) if (cookie := self.cookie()) and serializer else {}
        return {name: value for name, value in content.items() if name != "_born"}

    def send(self, path: str, form: Mapping[str, Any], **kwargs: Any) -> TestResponse:
        """Send a form with its CSRF token."""
        self.seen = self.seen or self.token()
        form = {"csrf_token": self.seen, **yours.fields(path), **form}
        if not any(isinstance(value, FileStorage) for value in form.values()):
            return self.open(path, method="POST", data=form, **kwargs)
        # Encoded here, since the client would spool a large body to a file and never close it. The boundary is fixed,
        # since Werkzeug compiles patterns for each new one; no body of the audit contains it.
        boundary, body = encode_multipart(form, boundary="audit")
        content_type = f"multipart/form-data; boundary={boundary}"
        return self.open(path, method="POST", data=body, content_type=content_type, **kwargs)


def random_key() -> str:
    """Return a random key for the copy."""
    return secrets.token_urlsafe(48)


def _excepts(exception: str, found: Finding) -> bool:
    """Return whether a finding in ``file:line: what …`` is the ``file: what`` of templating.ALLOWED."""
    return re.sub(r":\d+: ", ": ", found.evidence, count=1).startswith(f"{exception} ")


def _is_static(endpoint: str) -> bool:
    return endpoint.rpartition(".")[2] == "static"


def _count(app: Flask, view: View) -> None:
    """Check the limits of Flask-Limiter's decorator, which does not run together with the replaced view."""
    name = f"{view.__module__}.{getattr(view, '__name__', '')}"
    names = {name, f"{name}.{getattr(view, '__qualname__', '')}"}
    for limiter in app.extensions.get("limiter", ()) if isinstance(app.extensions.get("limiter"), set) else ():
        for limited in names & limiter._marked_for_limiting:
            limiter._check_request_limit(in_middleware=False, callable_name=limited)


def imported(node: ast.ImportFrom | ast.Import) -> set[str]:
    """Return the imported names, and for ``from`` imports also the module and the dotted names."""
    names = {alias.name for alias in node.names}
    if isinstance(node, ast.Import):
        return names
    return names | {str(node.module)} | {f"{node.module}.{name}" for name in names}


def _sample(rule: Rule, name: str) -> Any:
    converter = rule._converters[name]
    for value in (
        *getattr(converter, "items", ()),
        1,
        "a",
        "0" * 32,
        "a.txt",
        1.5,
        "00000000-0000-0000-0000-000000000000",
    ):
        with contextlib.suppress(Exception):
            if re.fullmatch(converter.regex, converter.to_url(value)):
                return converter.to_python(converter.to_url(value))
    return "a"
