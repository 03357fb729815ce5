"""Mitigation 5, error handling: the page says what the visitor can do, the log says what happened.

Tracebacks, paths, versions and SQL statements help an attacker. Every failure, wherever it happens, ends in an error
page of this module. The page shows a request id, which finds the details in the log.
Source: OWASP Error Handling Cheat Sheet; RFC 9457; ASVS 5.0 V13.4.2, V13.4.4, V16.5.1-V16.5.4.
"""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Flask, Response, current_app, g, got_request_exception, json, render_template, request
from flask import Request as FlaskRequest
from werkzeug.exceptions import HTTPException, InternalServerError, SecurityError
from werkzeug.http import HTTP_STATUS_CODES, parse_date
from werkzeug.utils import cached_property
from werkzeug.wsgi import ClosingIterator, FileWrapper

from app import logs
from app.redaction import method_of, redact, redact_path, secrets_of
from app.visitors import visitors

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.datastructures import Authorization, ImmutableMultiDict

NUMBER = 5
TITLE = "Error handling"
SUMMARY = "When something fails, the page says what you can do, and never how the app is built."

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON_TYPES = ("application/json", "application/problem+json")
_REQUEST_ID = re.compile(r"[A-Za-z0-9=;:.-]{8,128}")

# Status → title and message. They say what to do and reveal nothing about the cause.
WORDS = {
    400: ("That request made no sense", "Something in the address or the form is wrong. Please go back and try again."),
    401: ("Please sign in", "This page is for people who are signed in."),
    403: ("Not allowed", "You may not open this page or do this."),
    404: ("Nothing here", "There is no page at this address. It may have been removed, or the link is mistyped."),
    405: ("Wrong way in", "This address can't be used like this. Please start from one of this site's pages."),
    408: ("That took too long", "The request did not arrive in time. Please check your connection and try again."),
    409: ("It changed meanwhile", "Another window or person was faster. Please reload the page and try again."),
    410: ("Gone for good", "This was removed and will not come back."),
    414: ("That address is too long", "Please go back and follow the link again."),
    413: ("Too large", "What you sent is larger than this site accepts. Please send something smaller."),
    415: ("Wrong kind of content", "This type of file or data is not accepted here."),
    422: ("Please check your entries", "Your request was understood, but something in it is not valid."),
    429: ("Slow down, please", "There were too many requests. Please wait a little, then try again."),
    500: ("Something went wrong", "It is our fault, not yours. It has been logged; please try again later."),
    502: ("A part we need did not answer", "Another service gave no usable answer. Please try again in a few minutes."),
    503: ("Not available at the moment", "The service is busy or being worked on. Please try again in a few minutes."),
}


# The security events that a refusal is by its status. Other refusals are common, and get a line without an event.
EVENT_OF_STATUS = {
    400: "input_validation_fail",
    403: "authz_fail",
    413: "input_validation_fail",
    414: "input_validation_fail",
    415: "input_validation_fail",
    422: "input_validation_fail",
    429: "excess_rate_limit_exceeded",
}


class Refusal(HTTPException):
    """An HTTP error whose ``message`` is safe to show. The texts of other exceptions are never shown.

    It is logged once, as the security event ``event`` with ``fields``, by default that of ``EVENT_OF_STATUS``.
    With the event None it is not logged, because an earlier one has said it all.
    """

    def __init__(
        self, status: int, message: str, *, retry_after: int | None = None, event: str | None = "", **fields: object
    ) -> None:
        super().__init__(message)
        self.code = status
        self.message = message
        self.retry_after = retry_after
        self.event = event
        self.fields = fields

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        """Return the headers of the response, including ``Retry-After``."""
        headers = super().get_headers(*args, **kwargs)
        return headers if self.retry_after is None else [*headers, ("Retry-After", str(self.retry_after))]


def refuse(
    status: int, message: str, *, retry_after: int | None = None, event: str | None = "", **fields: object
) -> NoReturn:
    """Answer the request with ``status`` and show ``message``, which must not contain an exception's text.

    ``retry_after`` is in seconds; for ``event`` and ``fields`` see Refusal, which this always raises.
    """
    raise Refusal(status, message, retry_after=retry_after, event=event, **fields)


def wants_json(asked: FlaskRequest = request) -> bool:
    """Return whether the client prefers JSON to HTML as an answer. One that accepts both equally gets HTML."""
    return _prefers_json(asked, default=False)


def wants_problem(asked: FlaskRequest = request) -> bool:
    """Return whether the client prefers a problem in JSON (RFC 9457) to an error page.

    The header ``Accept`` decides. Without a preference in it, as ``fetch`` and XMLHttpRequest send it, scripts get a
    problem and people a page. A request is a script's if its body is JSON, or a browser or a library says so. A
    command-line client like curl says nothing: it gets the page, unless it sends JSON or an ``Accept``.
    """
    is_script = (
        asked.is_json
        or asked.headers.get("X-Requested-With") == "XMLHttpRequest"
        or asked.headers.get("Sec-Fetch-Dest") == "empty"  # fetch, XMLHttpRequest, sendBeacon, EventSource
    )
    return _prefers_json(asked, default=is_script)


def _prefers_json(asked: FlaskRequest, *, default: bool) -> bool:
    offers = [*JSON_TYPES, "text/html"] if default else ["text/html", *JSON_TYPES]  # of equals, the first is the best
    return asked.accept_mimetypes.best_match(offers, offers[0]) in JSON_TYPES


DATES = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE")


class StrictRequest(FlaskRequest):
    """A request that refuses what Werkzeug or a database can't handle, as a fault of the client."""

    def __init__(self, environ: WSGIEnvironment, *arguments: Any, **more: Any) -> None:
        """Ignore an invalid date (RFC 9110, 13.1): Werkzeug raises an error for a year that is too large.

        Only the start of "Accept" counts: parsing 32 kB takes 30 ms, also for a client over its limit.
        """
        environ["HTTP_ACCEPT"] = environ.get("HTTP_ACCEPT", "")[:1000]
        for name in DATES:
            try:
                parse_date(environ.get(name))
            except OverflowError:
                del environ[name]
        super().__init__(environ, *arguments, **more)

    @cached_property
    def authorization(self) -> Authorization | None:
        """What the header says. None if it is damaged: Werkzeug expects ASCII in it."""
        try:
            return super().authorization
        except ValueError:
            return None

    @cached_property
    def form(self) -> ImmutableMultiDict[str, str]:
        """The form fields. Raises Refusal if one contains a null byte, or has no name."""
        form = super().form
        if None in form:
            refuse(400, "A field of this form has no name.")
        _refuse_null_bytes(*form.keys(), *chain(*form.listvalues()))
        return form

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the JSON body. Raises Refusal for one that is nested too deeply; with ``silent``, returns None."""
        try:
            return super().get_json(force, silent, cache)
        except RecursionError:
            return None if silent else refuse(400, "This JSON is nested too deeply.")


def init_app(app: Flask) -> None:
    """Handle everything: HTTP errors, exceptions in views and hooks, and failures outside of them."""
    app.config["PROPAGATE_EXCEPTIONS"] = False  # TESTING and debug would pass exceptions to the server or its debugger
    app.before_request(_begin)
    app.after_request(_without_default_page)
    app.register_error_handler(Exception, respond)
    app.wsgi_app = _guard(app.wsgi_app, app.config["REQUEST_ID_HEADER"])  # type: ignore[method-assign, assignment]


def respond(error: Exception) -> Response:
    """Return the response to any exception. This is the handler of last resort, so it must not fail itself."""
    if isinstance(error, InternalServerError) and isinstance(error.original_exception, HTTPException):
        error = error.original_exception  # raised by a hook after the view, or by another error handler
    headers: list[tuple[str, str]] = []
    if isinstance(error, HTTPException):
        status = error.code or 500
        if error.response is not None or status < 400:
            return current_app.make_response(error.get_response(request.environ))
        headers = [(name, value) for name, value in error.get_headers(request.environ) if name != "Content-Type"]
        log_refusal(error)
    elif type(error).__module__ == "gunicorn.http.errors":
        status = 400  # the client disconnected, or its body is malformed
        _log(logging.INFO, status, error)
    else:
        status = 500
        current_app.logger.error("Exception on %s %s", method_of(request.method), _path(), exc_info=error)
        got_request_exception.send(current_app._get_current_object(), exception=error)  # type: ignore[attr-defined]

    response = _page(status, error)
    g.is_error_page = True  # which keeps the strict policy when the view is relaxed (headers.py)
    response.status_code = status
    response.headers.extend(headers)
    response.vary.update(("Accept", "Sec-Fetch-Dest", "X-Requested-With"))
    return response


def log_refusal(error: HTTPException) -> None:
    """Log a refusal in one line. Call it for a refusal that a page shows instead of an error page."""
    status, reason = error.code or 500, error.description
    event, fields = getattr(error, "event", ""), getattr(error, "fields", {})
    if event == "":
        event = EVENT_OF_STATUS.get(status, "")
    if event:
        logs.security_event(event, **{"status": status, "reason": reason} | fields)
    elif event is not None:
        _log(logging.ERROR if status >= 500 else logging.INFO, status, reason)


def _log(level: int, status: int, reason: object) -> None:
    line = "%s %s from %s: %s %s"
    current_app.logger.log(level, line, method_of(request.method), _path(), request.remote_addr, status, reason)


def _path() -> str:
    return redact_path(request.path, request.url_rule)


def _page(status: int, error: Exception) -> Response:
    phrase = HTTP_STATUS_CODES.get(status, "Error")
    title, message = WORDS.get(status) or (phrase, WORDS[400 if status < 500 else 500][1])
    if isinstance(error, Refusal):
        message = error.message
    request_id = logs.request_id.get()
    debug = {"traceback": _traceback(error)} if status == 500 and current_app.debug else {}
    if wants_problem():
        # A problem without a type has the phrase of its status as title (RFC 9457, 4.2.1).
        problem = {"title": phrase, "status": status, "detail": message, "request_id": request_id, **debug}
        return Response(json.dumps(problem), content_type="application/problem+json")
    if not isinstance(request.routing_exception, SecurityError):  # for an untrusted host, url_for fails
        try:
            visitors().stay_unknown()
            page = {"status": status, "title": title, "message": message, "request_id": request_id, **debug}
            return Response(render_template("error.html", **page, retry_after=getattr(error, "retry_after", None)))
        except Exception:
            current_app.logger.exception("The error page itself failed")
    elif current_app.debug:
        message = f"{message}\nDebug: TRUSTED_HOSTS does not list {request.environ.get('HTTP_HOST')!r}."
    return Response(_plain_text(title, message), content_type=PLAIN_TEXT)


def _traceback(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    return redact(text, set(secrets_of(current_app.config)))


def _plain_text(title: str, message: str) -> str:
    return f"{title}\n\n{message}\n\nRequest {logs.request_id.get()}\n"


def _begin() -> None:
    """Set the request id, and refuse untrusted hosts and null bytes before any view sees them."""
    if isinstance(request.routing_exception, SecurityError):
        raise request.routing_exception  # an untrusted host: refused before another hook uses it
    _refuse_null_bytes(request.path, request.query_string.decode("latin-1").replace("%00", "\0"))


def _without_default_page(response: Response) -> Response:
    """Drop the body of redirects: it reveals the framework and repeats the target, and no browser shows it."""
    if 300 <= response.status_code < 400 and response.mimetype == "text/html":
        response.set_data("")
    return response


def _refuse_null_bytes(*texts: str) -> None:
    if any("\0" in text for text in texts):
        refuse(400, "This request contains a null character, which is never allowed.")


def _guard(wsgi_app: WSGIApplication, id_header: str) -> WSGIApplication:
    """Set each request's id, and handle failures that Flask's error handlers don't catch.

    These are: opening the session, teardown functions, the error handler itself, the start of a streamed body.
    The response is held back until all these are done, since the headers can be sent only once.
    """
    id_key = f"HTTP_{id_header.upper().replace('-', '_')}"

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Never one that the client chose: it could impersonate another client's requests in the log.
        given = environ.get(id_key, "") if id_header else ""
        logs.request_id.set(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16))
        held: list[Any] = []
        try:
            body = wsgi_app(environ, lambda *answer: held.extend(answer))  # type: ignore[arg-type]
            if not isinstance(body, environ.get("wsgi.file_wrapper", FileWrapper)):
                body = _begun(body)
        except Exception as error:
            if _is_signal(error, environ):
                raise
            path = redact_path(environ.get("PATH_INFO", ""))
            logging.getLogger(__name__).exception("Exception outside of the view on %s", path)
            held = ["500 INTERNAL SERVER ERROR", [("Content-Type", PLAIN_TEXT)]]
            body = [_plain_text(*WORDS[500]).encode()]
        if not held:  # the view answered on the connection itself, and the server knows
            return body
        status, headers = held[:2]
        start_response(status, [*headers, ("X-Request-ID", logs.request_id.get())])
        return body

    return guarded


def _is_signal(error: Exception, environ: WSGIEnvironment) -> bool:
    """Return whether ``error`` tells the server that a WebSocket has ended, so that no response must follow.

    Under gunicorn, a view that took the connection over ends with StopIteration, as flask-sock does. Anywhere else,
    StopIteration is a fault like others.
    """
    return isinstance(error, StopIteration) and environ.get("HTTP_UPGRADE", "").lower() == "websocket"


def _begun(body: Iterable[bytes]) -> Iterable[bytes]:
    close = getattr(body, "close", lambda: None)
    chunks = iter(body)
    try:
        first = list(islice(chunks, 1))
    except BaseException:
        close()
        raise
    return ClosingIterator(chain(first, chunks), close)
