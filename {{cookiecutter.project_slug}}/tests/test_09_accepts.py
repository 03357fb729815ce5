"""Views that accept larger requests than the others, or only smaller ones (9.S5, 9.T4)."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Blueprint, Flask, request
from flask.views import MethodView

from app import create_app
from app.security import bodies, uploads
from app.security.bodies import accepts
from app.visitors import public
from tests.conftest import browser_like, csrf_token, post
from tests.samples import JSON
from tests.test_09_uploads import BODY, FIELD, FORM, fields, multipart

# Werkzeug leaves the parts of a form that it refuses to the garbage collector, which closes them with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    gc.collect()


RAW = "application/octet-stream"
MIB = 2**20
# How a limit is named that no view has declared.
ENDS = {
    "max_bytes": "MAX_CONTENT_LENGTH; @accepts(max_bytes=…) sets another for a view",
    "max_form_bytes": "MAX_FORM_MEMORY_SIZE; @accepts(max_form_bytes=…) sets another for a view",
}
Make = Callable[[], tuple[bytes, str]]


def text(size: int, media_type: str) -> tuple[bytes, str]:
    return (b"a=" if media_type == FORM else b"") + b"a" * size, media_type


# What the view accepts, what is sent, and what is too large in that: None for nothing, else the maximum.
SIZES: dict[str, tuple[dict[str, int], Make, tuple[str, str, str] | None]] = {
    "a field": ({"max_form_bytes": 300_000}, lambda: fields(1, 290_000), None),
    "a field that is too large": (
        {"max_form_bytes": 300_000},
        lambda: fields(1, 310_000),
        (FIELD, "293.0 KiB", "@accepts(max_form_bytes=300000) of sized"),
    ),
    "a field of a view that accepts files": (
        {"max_bytes": 2 * MIB},
        lambda: fields(1, 290_000),
        (FIELD, "128.0 KiB", ENDS["max_form_bytes"]),
    ),
    "a form": ({"max_form_bytes": 300_000}, lambda: text(290_000, FORM), None),
    "a form that is too large": (
        {"max_form_bytes": 300_000},
        lambda: text(310_000, FORM),
        (BODY, "293.0 KiB", "@accepts(max_form_bytes=300000) of sized"),
    ),
    "a form where files may be large": (
        {"max_bytes": 2 * MIB},
        lambda: text(290_000, FORM),
        (BODY, "128.0 KiB", ENDS["max_form_bytes"]),
    ),
    "JSON": ({"max_form_bytes": 300_000}, lambda: text(290_000, "application/json"), None),
    "JSON where files may be large": (
        {"max_bytes": 2 * MIB},
        lambda: text(290_000, "application/cloudevents+json"),
        (BODY, "128.0 KiB", ENDS["max_form_bytes"]),
    ),
    "files": ({"max_bytes": 2 * MIB}, lambda: multipart(2, b"a" * 1_000_000), None),
    "files that are too large": (
        {"max_bytes": 2 * MIB},
        lambda: multipart(2, b"a" * 1_100_000),
        (BODY, "2.0 MiB", f"@accepts(max_bytes={2 * MIB}) of sized"),
    ),
    "files of a view with large fields": (
        {"max_form_bytes": 2 * MIB},
        lambda: multipart(2, b"a" * 1_000_000),
        (BODY, "1.0 MiB", ENDS["max_bytes"]),
    ),
    "bytes": ({"max_bytes": 300_000}, lambda: text(290_000, RAW), None),
    "bytes that are too large": (
        {"max_bytes": 300_000},
        lambda: text(310_000, RAW),
        (BODY, "293.0 KiB", "@accepts(max_bytes=300000) of sized"),
    ),
    "a small request": ({"max_bytes": 1000}, lambda: text(900, FORM), None),
    "a request that is not small": (
        {"max_bytes": 1000},
        lambda: text(1100, FORM),
        (BODY, "1000 Bytes", "@accepts(max_bytes=1000) of sized"),
    ),
}


def received() -> str:
    sizes = [len(value) for value in request.form.values()]
    sizes += [file.stream.seek(0, io.SEEK_END) for file in request.files.getlist("file")]
    return str(sum(sizes) or len(request.get_data()))


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_9_S5_a_view_accepts_what_it_declares(app_config: dict[str, object], case: str, announced: bool) -> None:
    sizes, make, too_large = SIZES[case]
    app = create_app(app_config | {"FLASK_DEBUG": True, "MAX_CONTENT_LENGTH": MIB})
    app.add_url_rule("/tested-sized", "sized", public(accepts(**sizes)(partial(received))), methods=["POST"])
    client, (body, media_type) = browser_like(app, "http://localhost"), make()
    headers = {**JSON, "X-CSRFToken": csrf_token(client)}
    length = {"content_length": len(body)} if announced else {"environ_overrides": {"wsgi.input_terminated": True}}
    answer = client.post(
        "/tested-sized", input_stream=io.BytesIO(body), content_type=media_type, headers=headers, **length
    )
    if too_large:
        what, most, door = too_large
        assert answer.status_code == 413
        assert answer.get_json()["detail"] == f"{what}: the maximum is {most}. (Debug: the limit is {door}.)"
    else:
        assert answer.status_code == 200, answer.text
        assert int(answer.text) >= min(len(body), 2 * MIB) * 0.9


def test_9_S5_the_token_of_a_large_form_is_read(app: Flask) -> None:
    """The CSRF check parses the form, before the view could say what it accepts."""
    app.add_url_rule("/tested-sized", "sized", public(accepts(max_form_bytes=MIB)(partial(received))), methods=["POST"])
    assert post(browser_like(app), "/tested-sized", {"a": "a" * 900_000}).status_code == 200


class Sized(MethodView):
    def post(self) -> str:
        return received()


class SizedMethod(Sized):
    @accepts(max_form_bytes=300_000)
    def post(self) -> str:
        return received()


# What accepts more, and beside it what does not.
VIEWS: dict[str, tuple[Any, Any]] = {
    "function": (accepts(max_form_bytes=300_000)(lambda: received()), lambda: received()),
    "class": (accepts(max_form_bytes=300_000)(type("Large", (Sized,), {})).as_view("view"), Sized.as_view("view")),
    "method": (SizedMethod.as_view("view"), Sized.as_view("view")),
}


@pytest.mark.parametrize("kind", [*VIEWS, "blueprint"])
def test_9_S5_one_view_accepts_more_and_no_other(app: Flask, kind: str) -> None:
    for number, name in enumerate(("tested-large", "tested-other")):
        blueprint = Blueprint(name, __name__)
        view = Sized.as_view("view") if kind == "blueprint" else VIEWS[kind][number]
        blueprint.add_url_rule(f"/{name}", "view", public(view), methods=["POST"])
        app.register_blueprint(
            accepts(max_form_bytes=300_000)(blueprint) if (kind, number) == ("blueprint", 0) else blueprint
        )
    client = browser_like(app)
    assert post(client, "/tested-large", {"a": "a" * 200_000}).status_code == 200
    assert post(client, "/tested-other", {"a": "a" * 200_000}).status_code == 413


def test_9_S5_a_view_that_accepts_more_stores_larger_files(app_config: dict[str, object]) -> None:
    app = create_app(app_config | {"MAX_CONTENT_LENGTH": MIB})

    def receive() -> str:
        return uploads.save(request.files["file"], uploads.new_session_owner()).id

    app.add_url_rule("/tested-large", "large", public(accepts(max_bytes=3 * MIB)(partial(receive))), methods=["POST"])
    app.add_url_rule("/tested-other", "other", public(receive), methods=["POST"])
    client = browser_like(app)
    for path, status in (("/tested-large", 200), ("/tested-other", 413)):
        file = (io.BytesIO(b"a" * 2 * MIB), "a.txt", "text/plain")
        assert post(client, path, {"file": file}).status_code == status


def test_9_S5_a_view_that_accepts_more_is_a_fact(app_config: dict[str, object]) -> None:
    """The proxy in front must let it through, and the app can't know that."""
    app = create_app(app_config | {"MAX_CONTENT_LENGTH": MIB})
    app.add_url_rule("/tested-large", "large", accepts(max_bytes=50 * MIB)(partial(received)), methods=["POST"])
    app.add_url_rule("/tested-small", "small", accepts(max_bytes=1000)(partial(received)), methods=["POST"])
    (fact,) = (fact for fact in bodies.check(app) if fact.evidence.startswith("/tested-"))
    assert (fact.id, fact.severity) == ("UP05", "note")
    assert fact.evidence.startswith("/tested-large accepts")
    assert "50.0 MiB" in fact.evidence
    assert "client_max_body_size" in fact.fix


@pytest.mark.parametrize("sizes", [{}, {"max_bytes": 0}, {"max_form_bytes": -1}, {"max_bytes": 2**30 + 1}])
def test_9_S5_a_size_that_is_none_is_an_error(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        accepts(**sizes)
