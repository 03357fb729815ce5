"""Mitigation 5, error handling: attacks that try to read a secret in what is written, or to make writing it slow."""

from __future__ import annotations

import json
import re
import time

import pytest
from flask import Flask

from app import create_app
from app.redaction import MARGIN, MAX_LENGTH, NAMED, PATTERNS, REDACTED, redact, secrets_of
from app.visitors import public
from tests.conftest import HAS_ACCOUNTS, KEY, browser_like
from tests.test_05_errors import capture_log

SIGNED = "IjRhYmMi.aVx8Qw.q1Z0m3vXbE7cT5yR9uK2wLsDfGh"  # the shape of all that itsdangerous signs
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.q1Z0m3vXbE7cT5yR9uK2wLsDfGhJkLzX"
FORMER_KEY = "former-key-of-this-app-0123456789"
NEXT_KEY = "next-key-of-this-app-9876543210"
BUCKET_KEY, BUCKET_TOKEN = "wJalrXUtnFEMIbPxRfiCYzEXAMPLEKEY", "IQoJb3JpZ2luX2VjEEXAMPLETOKEN0"

# What somebody may write to a log. Each has secrets, of which no "hunter" may be left; "kept" must be.
MESSAGES = rf"""
GET /?password=hunter2&a=kept
new_password=hunter2
password=)hunter2
password=hunt,hunter2
password='it\'s hunter2', kept
password: correct horse hunter2
password = "hunter2" kept
b'password': b'hunter2', kept
{{'new_password': 'hunter 2', 'a': 'kept'}}
{{'password': ['hunter2', 'hunt]hunter2'], 'a': 'kept'}}
{{'password': ('hunter2',), 'a': 'kept'}}
{{"csrf_token": "hunter2", "a": "kept"}}
{{"password": "hunt\"hunter2", "a": "kept"}}
{{"password":17hunter2,"a":"kept"}}
"{{\"password\": \"hunter2\", \"a\": \"kept\"}}"
{{\"password\": \"hunt\\\"hunter2\", \"a\": \"kept\"}}
('password', 'hunter2')
{{'user': 'kept', 'pass': 'hunter2'}}
('pw', 'hunter2') kept
{{"pin": "hunter2", "a": "kept"}}
[('a', 'kept'), ('password', 'hunter2')]
ImmutableMultiDict([('email', 'kept'), ('password', 'hunter2'), ('password_confirm', 'hunter2')])
CombinedMultiDict([ImmutableMultiDict([('password', 'hunter2')]), ImmutableMultiDict([])])
EnvironHeaders([('Host', 'kept'), ('Cookie', 'a=b; c=hunter2'), ('X-CSRFToken', 'hunter2')])
{{'HTTP_COOKIE': 'a=b; c=hunter2', 'HTTP_HOST': 'kept', 'HTTP_AUTHORIZATION': 'Basic hunter2'}}
Cookie: __Host-session=hunter2; other=hunter2
Set-Cookie: a=hunter2; Path=/
Cookie:a=hunter2; b=hunter2
Authorization: Bearer hunter2
Authorization: Digest username="bob", response="hunter2"
the scheme of 'Bearer hunter2hunter2' is wrong: kept
X-CSRFToken: hunter2
X-API-Key: hunter2
api_key: hunter2
"apiKey" => "hunter2"
User(email='kept', password='hunter2')
<LoginForm password=Markup('hunter2') kept>
form['password'] = 'hunter2'
form.password.data = 'hunter2'
user[password]=hunter2&a=kept
user%5Bpassword%5D=hunter2&a=kept
next=%2Flogin%3Fpassword%3Dhunter2&a=kept
next=%252Flogin%253Fpassword%253Dhunter2
<password>hunter2</password><a>kept</a>
<ns:Password type="x">hunter2</ns:Password>
<input name="password" type="password" value="hunter2"><a>kept</a>
<meta name="csrf-token" content="hunter2">
name="password"\r\n\r\nhunter 2 hunter\r\n--kept
UID=sa;PWD=hunter2
connecting to postgresql://app:hunter2@db/kept
redis://:p@hunter2@kept/0
https://hunter2hunter2hunter2@kept.example/
GET /invite?code=hunter2&a=kept
PUT https://kept.example/x?X-Amz-Signature=hunter2
mysqldump --password hunter2 kept
['mysqldump', '--password', 'hunter2', 'kept']
session_id=hunter2 kept
Failing row contains (1, kept, $argon2id$v=19$m=19456,t=2,p=1$hunter2$hunter2).
kept scrypt:32768:8:1$abcdefghijkl${"0" * 64}
-----BEGIN PRIVATE KEY-----\nhunter2\nhunter2\n-----END PRIVATE KEY----- kept
GET /reset/{SIGNED} kept
Unexpected {JWT} kept
the key is {KEY} kept
the old key is {FORMER_KEY} kept
the staged key is {NEXT_KEY} kept
the key of the bucket is {BUCKET_KEY} kept
its token is {BUCKET_TOKEN} kept
""".strip().splitlines()
KEYS = [KEY, FORMER_KEY, NEXT_KEY, BUCKET_KEY, BUCKET_TOKEN]
SECRETS = re.compile(rf"(?i)hunter|0{{64}}|{'|'.join(KEYS)}|{SIGNED.split('.')[2]}|{JWT.split('.')[2]}")


@pytest.fixture(params=["text", "json"])
def app(app_config: dict[str, object], request: pytest.FixtureRequest) -> Flask:
    keys = {"SECRET_KEY_FALLBACKS": (FORMER_KEY,), "SECRET_KEY_NEXT": NEXT_KEY}
    keys |= {"AWS_SECRET_ACCESS_KEY": BUCKET_KEY, "AWS_SESSION_TOKEN": BUCKET_TOKEN}
    return create_app(app_config | {"LOG_FORMAT": request.param} | keys)


def test_5_S3_secrets_do_not_reach_the_log(app: Flask) -> None:
    """As a message, as a traceback, and over several lines."""
    log = capture_log()
    faults = []
    for message in MESSAGES:
        log.seek(0)
        log.truncate()
        try:
            raise RuntimeError(message.replace(r"\n", "\n"))
        except RuntimeError:
            app.logger.exception("%s", message)
        written = log.getvalue().replace(__file__, "")
        if SECRETS.search(written) or written.count(REDACTED) < 2 or written.count("kept") < 2 * ("kept" in message):
            faults.append((message, written))
    assert faults == []


@pytest.mark.parametrize(
    "text",
    [
        '{"document": "/account/password", "blocked": "https://cdn.example/x.js"}',
        '{"blocked": "https://evil.example/token", "document": "/"}',
        'The field "token", which is the last one, is not known.',
        "{'passed': 3, 'pins': [1, 2]}",
    ],
)
def test_5_S3_what_is_no_secret_is_kept(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", NAMED | PATTERNS)
def test_5_S3_each_pattern_redacts_what_no_other_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken out of the table, it lets through one of the messages: none is there in vain."""
    from app import redaction

    for table in ("_COMPILED", "_COMPILED_NAMED"):
        left = [each for each in getattr(redaction, table) if each.pattern != (NAMED | PATTERNS)[name]]
        monkeypatch.setattr(redaction, table, left)
    assert any(SECRETS.search(redact(message, KEYS)) for message in MESSAGES)


# What makes a regular expression try the same characters again and again.
_ENDS = ("", *"-.:=\"' [%")
SEEDS = (
    *"aé-.\\\"'<>/:=[({%&?@$ \t",
    *(f"{word}{end}" for word in ("secret", "password", "cookie", "api_key", "session_id") for end in _ENDS),
    *('"password"', "'password', ", "password: ", "password=['", 'password=["', "password={'a", "passwpwd"),
    *("secret%3D", "secret%25253D", 'secret\\\\\\\\\\\\\\"', "secret\n\n\n\n", "secret       "),
    *('name="', 'name="secret', 'name="secret"', 'name="secret"\n\n', "<secret", "<secret ", "<secret>", "<a:"),
    *("--", "--secret ", " --a", "://", "://x:", "://x:@", "://x@", "?key", "?key=", "basic ", "bearer       "),
    *("a.b.", "x.abcdef.", f"x.abcdef.{'a' * 26}.", "eyJ", "eyJ.", "eyJa.", "A1b/", "\r\n"),
    *("$2b$", "$argon2id$", f"$aaaaaaaa${'a' * 39}", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----END"),
)
SLACK = 0.002  # seconds of CPU, for what the clock and other processes add


@pytest.mark.parametrize("name", NAMED | PATTERNS)
def test_8_T4_each_pattern_takes_time_in_proportion_to_the_text(name: str) -> None:
    """Twice the text may take three times the time, not four times as in a quadratic pattern."""
    pattern = re.compile((NAMED | PATTERNS)[name], re.IGNORECASE)

    def cost(text: str) -> float:
        begun = time.process_time()
        pattern.sub("", text)
        return time.process_time() - begun

    def is_linear(seed: str, end: str) -> bool:
        half = seed * (8000 // len(seed))
        return cost(half + half + end) <= 3 * cost(half + end) + SLACK

    # Somebody else may have slowed down one measurement, not five.
    slow = (seed for seed in SEEDS for end in ("", "!") if not any(is_linear(seed, end) for _ in range(5)))
    assert next(slow, None) is None


def test_8_T4_a_long_text_is_cut(app: Flask) -> None:
    log = capture_log()
    for length in (10**5, 10**6):
        app.logger.warning("first %s last", "secret" * (length // 6))
    short, long = log.getvalue().splitlines()
    assert abs(len(long) - len(short)) < 10  # the number of characters that were cut
    for line in (short, long):
        assert "first" in line
        assert "last" in line
        assert len(line) < MAX_LENGTH + 300
    assert f"[{len('first  last') + 10**6 // 6 * 6 - MAX_LENGTH} characters cut]" in long


@pytest.mark.parametrize(
    "secret", [f"password='{'hunter2' * 9}'", KEY, SIGNED, f"a.b: {JWT}", f"Cookie: a={'hunter2;' * 50}"]
)
def test_5_S3_a_cut_shows_no_piece_of_a_secret(secret: str) -> None:
    """The cut, and the end of what is redacted beyond it, fall on each place of the secret, and beside it."""
    value = secret.partition("=")[2] or secret.split()[-1]
    pieces = {value[start : start + 8] for start in range(len(value) - 8)}
    shown, many = [], "x " * 2 * MAX_LENGTH
    for place in range(-len(secret) - 3, 4, max(3, len(secret) // 30)):
        for cut in (MAX_LENGTH // 2 + place, MAX_LENGTH // 2 + MARGIN + place):
            for text in (f"{many[:cut]} {secret} {many}", f"{many} {secret} {many[:cut]}"):
                written = redact(text, [KEY])
                assert "characters cut" in written
                shown += [(place, cut, piece) for piece in pieces if piece in written]
    assert shown == []


@pytest.mark.parametrize(
    "url",
    ["redis://:app@localhost:1/0", "redis://a:in@localhost:1/0", "redis://:p@ss@localhost:1/0", "redis://:%61pp@h:1"],
)
def test_5_S3_a_password_that_is_a_word_is_redacted_in_its_url_alone(app_config: dict[str, object], url: str) -> None:
    """Cut out of every line, it would garble them, and the gaps would tell the word."""
    words = {"MAIL_PASSWORD": "the"} if HAS_ACCOUNTS else {}
    app = create_app(app_config | words | {"RATELIMIT_STORAGE_URI": url})
    log = capture_log()
    sentence = "What happens in the app, the application logs: p, ss, pass"
    app.logger.warning("%s", sentence)
    app.logger.warning("lost: %s!", url)
    app.logger.warning("lost: %s!", url.replace("%61pp", "app"))
    plain, *with_url = log.getvalue().splitlines()
    assert sentence in plain
    for line in with_url:
        assert re.search(rf"lost: redis://a?:?{re.escape(REDACTED)}@?(localhost|h):1(/0)?!$", line)


@pytest.mark.parametrize("password", ["p/ss", "p[ss", "p/s:s", "p?s#s", "p%2Fss", "p/ss'"])
def test_5_S3_a_database_s_password_may_have_any_character(password: str) -> None:
    url = f"postgresql://app:{password}@db/app"
    known = set(secrets_of({"DATABASE_URL": url}))
    for text in (url, f"[{url}]", url.replace("%2F", "/")):
        assert "ss@" not in redact(text, known)
        assert "p/" not in redact(text, known)
        assert "db/app" in redact(text, known)


TOKENS = (
    SIGNED,
    JWT,
    "p1bOxgmvSmVQh4yq9cVYz0uX5b7NwQmW-hJ0Ty_kq3U",  # as secrets.token_urlsafe(32) and (16) make them
    "Zb2dJ0sYt-9PqLw4_XhRkA",
    "3f1c0a6be2d94c87b5a90d1e4f7a2c3b6d8e9f01",  # secrets.token_hex(20)
)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("path", ["/nothing/{}", "/{}", "/nothing/{}/again"])
def test_5_S3_a_token_in_a_path_does_not_reach_the_log(app: Flask, path: str, token: str) -> None:
    log = capture_log()
    browser_like(app).get(path.format(token))
    assert token not in log.getvalue()
    assert REDACTED in log.getvalue()


@pytest.mark.parametrize("method", ["--TOKEN", "BEARER", "PASSWORD"])
@pytest.mark.parametrize("path", ["/nothing", "/"])
def test_5_S3_a_method_hides_no_path(app: Flask, method: str, path: str) -> None:
    log = capture_log()
    browser_like(app).open(path, method=method)
    assert f"other {path} from " in log.getvalue()


@pytest.mark.parametrize("name", ["token", "reset_token", "code", "api_key"])
@pytest.mark.parametrize("how", ["refused", "failing", "event"])
def test_5_S3_an_argument_with_the_name_of_a_secret_never_reaches_the_log(app: Flask, name: str, how: str) -> None:
    def view(**arguments: str) -> str:
        if how == "failing":
            raise RuntimeError
        from app.security.errors import refuse

        refuse(409 if how == "refused" else 400, "No.")

    app.add_url_rule(f"/tested-confirm/<string(maxlength=99):{name}>/now", view_func=public(view))
    log = capture_log()
    browser_like(app).get("/tested-confirm/correct-horse/now")
    assert "correct-horse" not in log.getvalue()
    assert f"/tested-confirm/<{name}>/now" in log.getvalue()


@pytest.mark.parametrize(
    "path",
    [
        *("cookie:", "cookie: ", "Authorization: ", "password: ", "password='", 'password="', "password=[", "token="),
        *("secret:", "password: x", "a\n", "a\r\npassword: ", '{"password": "', "('password', '", "<password>", "%3C"),
        *("-----BEGIN PRIVATE KEY-----", "://x:", "--password ", "password%3D", "password%253A"),
        *("x' from 1.2.3.4: 200", "event=authn_login_success"),
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_5_S3_a_path_hides_nothing_else_of_its_line(app_config: dict[str, object], log_format: str, path: str) -> None:
    """A client that makes the rest of the line look like a secret would not be found by its address."""
    from urllib.parse import quote

    app = create_app(app_config | {"LOG_FORMAT": log_format})
    log = capture_log()
    browser_like(app).get(f"/{quote(path)}", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    (line,) = log.getvalue().splitlines()
    message = json.loads(line)["message"] if log_format == "json" else line
    assert re.search(r"GET /[^\s'\"=:]* from 192\.0\.2\.7: 404 The requested URL was not found", message)
    assert len(re.findall("from", message)) == 1 + path.count("from")
    assert "event=" not in message
