"""Attacks on mitigation 7, templates: payloads in every place of every route, and what became of the pages."""

from __future__ import annotations

import html
import io
import logging
import re
import string
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import html5lib
import pytest
from ada_url import URL
from flask import Flask, render_template, request
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader, TemplateNotFound, UndefinedError
from markupsafe import Markup
from werkzeug.test import TestResponse

from app import create_app
from app.security import templating
from app.security.rate_limits import limiter
from app.visitors import public
from tests import payloads
from tests.conftest import KEY, ORIGIN, browser_like, csrf_token, pages, post
from tests.samples import stored

ID = "0123456789abcdef" * 2
SSTI = payloads.lines("ssti.txt")
XSS = payloads.strings("xss.txt")
# Attributes in which pages show what somebody typed.
SHOWING = {"aria-label", "data-confirm", "data-x", "title", "value"}

# What an evaluated payload prints: the product, a setting, /etc/passwd, and objects of Python, escaped or not.
EVALUATED = re.compile(rf"9801547|{KEY}|root:x:0|(<|&lt;)(Config|Request|class|function|module|bound|Template)\b")


# What a developer may write, and the audit lets pass.
ECHO = """<!DOCTYPE html><title>{{ x }}</title><p>{{ x }}</p><p title="{{ x }}"></p><p title='{{ x }}'></p>
<a href="{{ x|safe_url }}">x</a><textarea>{{ x }}</textarea><p data-x='{{ x|tojson }}'></p>"""


def app_with_echo(config: dict[str, object]) -> Flask:
    """The app, and one page more, which shows what it is sent in all the ways that are allowed."""
    app = create_app({**config, "ALLOWED_REDIRECT_HOSTS": "docs.example.com", "UPLOAD_QUOTA_FILES": 10_000})
    app.jinja_env.loader = ChoiceLoader([app.jinja_env.loader, DictLoader({"echo": ECHO})])
    app.add_url_rule("/tested-echo", "echo", public(lambda: render_template("echo", x=request.args["payload"])))
    return app


@pytest.fixture
def app(app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Flask:
    app = app_with_echo(app_config)
    monkeypatch.setattr(limiter, "enabled", False)
    monkeypatch.setattr(logging.root, "level", logging.ERROR)  # a line for each refusal would take most of the time
    return app


def fields(app: Flask, member: FlaskClient) -> set[str]:
    """The names of all fields of all forms that a page shows, to a visitor or to a member."""
    pages = [
        client.get(rule.rule).text
        for client in (browser_like(app), member)
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.arguments
    ]
    return {name for page in pages for name in re.findall(r'<(?:input|select|textarea)[^>]+name="([^"]+)"', page)}


def headers(payload: str) -> dict[str, str]:
    """Headers as hostile as a client can make them: no line ends, one byte a character."""
    value = re.sub(r"[\r\n\0]", "", payload).encode("utf-8", "replace").decode("latin-1")
    names = (
        "User-Agent",
        "Accept-Language",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Request-ID",
        "X-Hacked",
        "Cookie2",
    )
    return {**dict.fromkeys(names, value), "Accept": "text/html"}


def multipart(token: str, name: str, kind: str, text: str) -> bytes:
    """An upload with quotes and all in its name, which Werkzeug's client would let end the header."""
    name, kind = (re.sub(r"[\r\n\0]", "", value) for value in (name, kind))
    name = name.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'--B\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{token}\r\n'
        f'--B\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n{text}\r\n--B--\r\n"
    ).encode()


def spray(app: Flask, member: FlaskClient, corpus: list[str]) -> Iterator[tuple[str, TestResponse]]:
    """Send each payload in every place of every third route, as somebody who may; then look at what pages keep of it.

    Where payloads are shown, each is sent: to the echo, an error page, the page before leaving, and the list of files.
    """
    names = fields(app, member) - {"csrf_token", "file"}
    visitor = browser_like(app)
    tokens = {visitor: csrf_token(visitor), member: csrf_token(member)}
    routes = list(app.url_map.iter_rules())
    for number, payload in enumerate(corpus):
        sent = headers(payload)
        # Each from an address of its own: the backoff after wrong passwords is another mitigation's.
        visitor.environ_base["REMOTE_ADDR"] = f"10.0.{number // 256}.{number % 256}"
        query = "&".join(f"{name}={quote(payload)}" for name in {"payload", "inline", "q", payload} | names)
        for rule in routes[number % 3 :: 3]:
            if rule.endpoint == "security.logout":
                continue  # it would end the attack, and has no field but the token
            client = member if re.match(r"accounts|uploads|security\.change", rule.endpoint) else visitor
            path = f"{re.sub('<[^>]+>', quote(payload, safe=''), rule.rule)}?{query}"
            if "GET" in (rule.methods or ()):
                yield payload, client.get(path, headers=sent)
            if "POST" in (rule.methods or ()):
                form = {**dict.fromkeys(names, payload), "csrf_token": tokens[client]}
                yield payload, client.post(path, data=form, headers=sent)
        yield payload, visitor.get(f"/tested-echo?payload={quote(payload)}")
        yield payload, visitor.get(f"/{quote(payload)}?{query}", headers=sent)
        leaving = quote(f"https://docs.example.com/{payload}?{payload}#{payload}")
        yield payload, visitor.get(f"/redirect?next={leaving}", headers=sent)
    for payload in corpus:  # afterwards, since the list of uploads grows
        sent = headers(payload)
        for kind, text in (("text/plain", "text"), (payload, payload)):
            body = multipart(tokens[member], f"{payload}x.txt", kind, text)
            answer = member.post("/uploads", data=body, headers=sent, content_type="multipart/form-data; boundary=B")
            assert answer.status_code == 303 or kind == payload
            yield payload, answer
    for page in pages(member):
        yield f"all that {page} keeps", member.get(page)


def runs(address: str) -> bool:
    """Whether a browser would run it, or show it as a page of its own making."""
    try:
        return URL(address, base=ORIGIN).protocol not in ("https:", "http:", "mailto:", "about:")
    except ValueError:
        return False


def injected(page: str) -> list[str]:
    """What of the payloads became a part of the page, as an HTML parser sees it; text and SHOWING are no part."""
    found = []
    for element in html5lib.parse(page, namespaceHTMLElements=False).iter():
        is_code = not isinstance(element.tag, str) or element.tag in ("script", "style", "template")
        if "hacked" in str(element.tag) or (is_code and "hacked" in (element.text or "")):
            found.append(str(element.tag))
        for name, value in element.attrib.items():
            leads_on = element.tag == "a" and name == "href" and not runs(value)
            if (
                "hacked" in name
                or name.startswith("on")
                or ("hacked" in value and name not in SHOWING and not leads_on)
            ):
                found.append(f"{element.tag} {name}={value}")
    return found


@pytest.mark.parametrize("corpus", payloads.parts(SSTI, 8), ids=range(8))
def test_7_T1_no_payload_is_evaluated(app: Flask, member: FlaskClient, corpus: list[str]) -> None:
    shown = 0
    for payload, answer in spray(app, member, corpus):
        assert answer.status_code < 500, payload
        assert not EVALUATED.search(answer.text), payload
        assert not EVALUATED.search(str(answer.headers)), payload
        shown += payload in html.unescape(answer.text)
    assert shown > len(corpus)  # the attack has reached pages that show what they got


@pytest.mark.parametrize("corpus", payloads.parts(XSS, 8), ids=range(8))
def test_7_T2_no_payload_becomes_markup(app: Flask, member: FlaskClient, corpus: list[str]) -> None:
    shown = 0
    for payload, answer in spray(app, member, corpus):
        assert answer.status_code < 500, payload
        assert "hacked" not in {name.lower() for name, _ in answer.headers}
        if "hacked" in answer.text and answer.mimetype == "text/html":
            assert injected(answer.text) == [], payload
            shown += 1
    assert shown > len(corpus)


def test_7_S2_a_file_name_is_shown_as_it_was_typed(member: FlaskClient) -> None:
    """A name has no angle brackets when it gets here; who prints it raw all the same lets its entities become some."""
    name = "O'Neil &amp; &lt;b&gt;.txt"
    assert post(member, "/uploads", {"file": (io.BytesIO(b"a"), name)}).status_code == 303
    page = html5lib.parse(member.get("/uploads").text, namespaceHTMLElements=False)
    assert [element.text for element in page.iter("bdi")] == [name]
    assert [element.text for element in page.iter("p") if element.get("class") == "message message"] == [
        f"{name} is uploaded."
    ]


def test_7_T2_the_judge_sees_what_is_printed_raw() -> None:
    contexts = ("<p>%s</p>", '<p title="%s">', "<p title='%s'>", "<p title=%s>", "<p title=`%s`>", '<a href="%s">')
    seen = [
        payload
        for payload in XSS
        if any(injected("<!DOCTYPE html>" + context.replace("%s", payload)) for context in contexts)
    ]
    assert len(XSS) > 150
    assert len(seen) > 130  # the rest is for scripts, for filters that decode twice, and for other character sets


def test_7_T3_a_template_among_the_uploads_cannot_be_loaded(app: Flask, member: FlaskClient) -> None:
    file = (io.BytesIO(b"{{ 1337 * 7331 }} {{ config }}"), "page.html.txt", "text/plain")
    post(member, "/uploads", {"file": file})
    files = stored(app)
    assert any(b"7331" in path.read_bytes() for path in files)
    with app.test_request_context():
        for path in files:
            relative = path.relative_to(app.config["UPLOAD_DIR"]).as_posix()
            for name in (str(path), path.name, relative, f"../../uploads/{relative}", f"/{relative}"):
                with pytest.raises(TemplateNotFound):
                    render_template(name)
    assert not EVALUATED.search(member.get("/uploads").text)
    with member.get(f"/uploads/{files[0].stem}") as answer:
        assert answer.text == "{{ 1337 * 7331 }} {{ config }}"


@pytest.mark.parametrize(
    "name", ["../settings.py", "../../.env", "/etc/passwd", "..\\settings.py", "base.html/../../x"]
)
def test_7_T3_names_do_not_lead_out_of_the_template_folder(app: Flask, name: str) -> None:
    with app.test_request_context(), pytest.raises(TemplateNotFound):
        render_template(name)


@pytest.mark.parametrize("name", ["page.html", "page.txt", "page.xml", "page.md", "page.js", "page", "page.html.j2"])
def test_7_S1_every_template_escapes(app: Flask, tmp_path: Path, name: str) -> None:
    app.template_folder = str(tmp_path)
    (tmp_path / name).write_text("{{ text }}<b title='{{ text }}'>{% set copy %}{{ text }}{% endset %}{{ copy }}")
    with app.test_request_context():
        assert render_template(name, text="<\"'&>") == "{0}<b title='{0}'>{0}".format("&lt;&#34;&#39;&amp;&gt;")


def test_7_S1_a_misspelt_name_fails(app: Flask, tmp_path: Path) -> None:
    app.template_folder = str(tmp_path)
    (tmp_path / "page.html").write_text("{{ pasword }}")
    with app.test_request_context(), pytest.raises(UndefinedError):
        render_template("page.html", password="x")


def test_7_S1_plain_text_is_what_was_given(app: Flask, tmp_path: Path) -> None:
    app.template_folder = str(tmp_path)
    (tmp_path / "mail.txt").write_text("Hello {{ name }} & all, {{ link }}")
    name = 'O\'Neil &amp; <b>"x"</b> &lt;&copy'
    with app.test_request_context():
        text = templating.render_text("mail.txt", name=name, link="https://localhost/?a=1&b=2")
    assert text == f"Hello {name} & all, https://localhost/?a=1&b=2"


def test_7_S1_only_plain_text_loses_its_escaping(app: Flask, tmp_path: Path) -> None:
    app.template_folder = str(tmp_path)
    (tmp_path / "page.html").write_text("{{ x }}")
    with app.test_request_context():
        assert templating.render_text("page.html", x="<b>") == "&lt;b&gt;"


def test_7_S4_a_users_placeholders_are_names_and_nothing_else() -> None:
    values = {"name": "$link {{ 1337 * 7331 }}", "link": "x"}
    assert templating.fill_placeholders("Dear ${name}, $link $$5 $other", values) == (
        "Dear $link {{ 1337 * 7331 }}, x $5 $other"
    )
    for hostile in [*SSTI, "${name.__class__}", "$name.__class__", "${name[0]}", "{name}", "%(name)s", "${", "$"]:
        filled = templating.fill_placeholders(hostile, {"name": "Alice"})
        assert not EVALUATED.search(filled)
        assert filled in (hostile, hostile.replace("$name", "Alice"))


# Where the link leads is not the filter's business; that it runs nothing is.
SAFE = ["/", "/a:b", "a/b:c", "?a:b", "#a:b", "//host/", "", "https://host/", "HTTP://host/", "mailto:a@example.com"]
UNSAFE = [
    "javascript:x",
    "JavaScript:x",
    " javascript:x",
    "\x01javascript:x",
    "java\tscript:x",
    "java\r\nscript:x",
    "javascript\t:x",
    "java\x00script:x",
    "\u00a0javascript:x",
    "data:text/html,x",
    "vbscript:x",
    "file:///x",
    "blob:x",
    "view-source:x",
    "localhost:80",
    "x:y",
    ":x",
]


@pytest.mark.parametrize("url", SAFE)
def test_safe_url_lets_addresses_pass(url: str) -> None:
    assert templating.safe_url(url) == url


@pytest.mark.parametrize("url", UNSAFE)
def test_7_T2_safe_url_refuses_what_a_browser_would_run(url: str) -> None:
    assert templating.safe_url(url) == templating.REFUSED_URL


def test_7_T2_safe_url_does_not_unescape(app: Flask, tmp_path: Path) -> None:
    app.template_folder = str(tmp_path)
    (tmp_path / "page.html").write_text('<a href="{{ url|safe_url }}">')
    with app.test_request_context():
        page = render_template("page.html", url=Markup("/\" onclick='x'"))
    assert page == '<a href="/&#34; onclick=&#39;x&#39;">'


def test_payload_files_hold_printable_words_of_ours() -> None:
    assert all("hacked" in payload for payload in XSS)
    assert set("".join(SSTI)) <= set(string.printable)
