"""Redaction: no secret is written anywhere (5.S3). The log, the security events and the CSP reports all use it.

Clients choose much of what is written, so redaction must take linear time. For each repetition in a pattern, one of
these is true: it is bounded; nothing after it can fail; it starts only where a word starts. A long text is also cut.
Source: OWASP Logging Cheat Sheet, "Data to exclude"; ASVS 5.0 V16.2.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from http import HTTPMethod
from urllib.parse import quote, unquote

from werkzeug.routing import Rule

REDACTED = "[redacted]"

# Characters of a text that are kept: half from its start, half from its end, where a traceback names the exception.
MAX_LENGTH = 16 * 1024
# A secret that the cut divides is not recognized. So this much more is redacted, then dropped: a cookie, a private key.
MARGIN = 4 * 1024

# What the name of a secret contains. A password may have spaces, and the values of these headers do.
_PASSWORD, _HEADER = "passw|passphrase|pwd", "cookie|authorization"
_WORDS = (*f"{_PASSWORD}|{_HEADER}".split("|"), "secret", "token", "credential", "csrf", "jwt", "signa", "sess", "key")
_REST = r"[\w.-]{0,64}+"  # of a name: password_confirm
_NAME = (
    rf"(?:{_PASSWORD}|{_HEADER}|secret|token|credential|csrf|jwt|signature|sess(?:ion)?[_-]?id"
    rf"|(?:api|access|auth|private|signing|encryption)[_-]?key){_REST}"
)
_SPACE = r"\s{0,8}"
_LINE_END = r"(?:\\r|\\n|\r|\n)"
_QUOTE = r"(?:\\{0,7}[\"'])"
_FIELD = rf"\bname={_QUOTE}[\w-]{{0,40}}?{_NAME}{_QUOTE}"
# JSON within JSON escapes its quotes: a value ends at a quote with as many backslashes as its first one, or the line.
_QUOTED = r"(?P<quote>\\{0,7}[\"'])(?:(?!(?<!\\)(?P=quote))[^\r\n])*(?P=quote)?"
_SEVERAL = r"[\[({](?:\"(?:\\.|[^\"\\\r\n])*\"?|'(?:\\.|[^'\\\r\n])*'?|[^\"'\])}\r\n])*[\])}]?"  # ['a', 'b]']
_LITERAL = rf"[\w.]{{0,40}}(?:{_QUOTED}|{_SEVERAL})"  # also b'…', Markup('…')
_VALUE = rf"(?:{_LITERAL}|[^\s&\"']+)"
# Secrets only as a whole name: the first ones also where they are quoted, all of them in a URL or of an argument.
_SHORT_QUOTED = "pass|pw|pin|otp"
_SHORT = f"key|sig|code|auth|hash|{_SHORT_QUOTED}"

# What is redacted → its pattern. The group "shown" is kept.
PATTERNS = {
    "a private key": r"(?P<shown>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)(?:(?!-----END)[\s\S])+",
    # scheme://user:password@host
    "a password in a URL": r"(?P<shown>://[^\s/:@]*:)[^\s/\"'<>]*(?=@)",
    "a token in a URL": r"(?P<shown>://)[^\s/:@\"'<>]{20,}(?=@)",
    "an argument of a URL": rf"(?P<shown>[?&](?:{_SHORT})=)[^\s&#\"'<>]+",
    # "pw": …, ('pin', …): the whole name
    "a short quoted name": rf"(?P<shown>{_QUOTE}(?:{_SHORT_QUOTED}){_QUOTE}\]?{_SPACE}[:=,]{_SPACE})"
    rf"(?!\[redacted){_LITERAL}",
    # payload.time.signature, of itsdangerous: session cookies, CSRF tokens, reset links.
    "a signed value": r"(?<![\w-])\.?[\w-]++\.[\w-]{6,7}\.(?:[\w-]{86}|[\w-]{43}|[\w-]{27})(?![\w-])",
    "a JSON Web Token": r"(?<![\w-])eyJ[\w-]++(?:\.[\w-]*)+",
    # $argon2id$…, and $salt$hash in that of Werkzeug.
    "a hash of a password": r"\$(?:(?:argon2\w{1,2}|2\w|scrypt|[156])\$[^\s\"';)\]}]+|\w{8,32}\$[\da-f]{40,}+)",
    "HTTP credentials": r"(?P<shown>\b(?:bearer|basic)\s{1,4})[\w.~+/=-]{8,}",
}
# Those that depend on a name, which are slower. They are tried if the text contains one of the words.
NAMED = {
    # Password: three words, Cookie: a=b; c=d
    "the rest of a line": rf"(?P<shown>(?:(?:{_PASSWORD}){_REST}{_SPACE}[:=](?=[ \t])|(?:{_HEADER}){_REST}{_SPACE}[:=])"
    rf"[ \t]{{0,8}})(?![ \t]|\w{{0,2}}{_QUOTE}|[\[({{])[^\r\n]+",
    # ('password', …): a part of the name, but not a path or a word with a comma behind it
    "a quoted name and a comma": rf"(?P<shown>{_QUOTE}[\w.-]{{0,40}}?{_NAME}{_QUOTE}{_SPACE},{_SPACE})"
    rf"(?!\[redacted){_LITERAL}",
    # password=…, "password": …, form['password'] = …, user[password]=…, and their form in a URL
    "a named value": rf"(?P<shown>{_NAME}(?:{_QUOTE}\]?{_SPACE}[:=]>?{_SPACE}|\]?{_SPACE}[:=]>?{_SPACE}"
    rf"|(?:%(?:25){{0,3}}(?:2[27]|5D|3[AD])){{1,4}}))(?!\[redacted){_VALUE}",
    # <input name="password" value="…">, <meta name="csrf-token" content="…">
    "an attribute": rf"(?P<shown>{_FIELD}[^<>]{{0,99}}?\b(?:value|content)=){_QUOTED}",
    "a part of a form": rf"(?P<shown>{_FIELD}{_LINE_END}{{2,4}})(?:(?!{_LINE_END})[\s\S])+",
    "an XML element": rf"(?P<shown><[\w:.-]{{0,40}}?{_NAME}(?:\s[^<>]{{0,200}})?>)[^<]+(?=</)",
    "an option of a command": rf"(?<![^\s\"'])(?P<shown>--[\w-]{{0,40}}?{_NAME}\s{{1,4}})[^\s\"']+",
}

_COMPILED = [re.compile(pattern, re.IGNORECASE) for pattern in PATTERNS.values()]
_COMPILED_NAMED = [re.compile(pattern, re.IGNORECASE) for pattern in NAMED.values()]
_SECRET_NAME = re.compile(rf"{_NAME}|^(?:{_SHORT})$", re.IGNORECASE)
# The segment of a path that looks random: capitals, small letters and digits, or a long run without a separator.
_RANDOM = re.compile(r"(?<=/)(?=[^/]*[A-Z])(?=[^/]*[a-z])(?=[^/]*\d)[\w.~-]{20,}(?![^/])|(?<=/)[^\W_]{40,}(?![^/])")
_CONVERTER = re.compile(r"<[^<>]*:([^<>:]*)>")


def redact(text: str, known: Collection[str] = ()) -> str:
    """Return ``text`` without secrets: those of a known form, and the strings ``known``. Cut to about MAX_LENGTH."""
    if len(text) <= MAX_LENGTH:
        return _redact(text, known)
    half, margin = MAX_LENGTH // 2, max(MARGIN, *map(len, known), 0)
    start, end = _redact(text[: half + margin], known), _redact(text[-half - margin :], known)
    return f"{start[:-margin]}[{len(text) - MAX_LENGTH} characters cut]{end[margin:]}"


def redact_path(path: str, rule: Rule | None = None) -> str:
    """Return a path as it may be written: percent-encoded, without the segments that look like a token.

    If its route has an argument with a name like ``token``, return the route instead. Percent-encoded, a path can't
    pass for another part of its line, and can't make the rest of its line look like a secret: a client must not hide
    its address from the log with ``/cookie: ``.
    """
    if rule and any(map(is_secret, rule.arguments)):
        return route_of(rule)
    return _RANDOM.sub(REDACTED, redact(quote(path, safe="/@!$*+~", errors="replace")))


def method_of(method: str) -> str:
    """Return a method of HTTP, else "other": a client may send any word, and ``TOKEN /path`` looks like a secret."""
    return method if method in HTTPMethod.__members__ else "other"


def route_of(rule: Rule) -> str:
    """Return a route without its converters, as in ``/reset/<token>``."""
    return _CONVERTER.sub(r"<\1>", rule.rule)


def is_secret(name: str) -> bool:
    """Return whether the value of this name must not be shown."""
    return bool(_SECRET_NAME.search(name))


def secrets_of(config: Mapping[str, object]) -> Iterator[str]:
    """Yield the secrets among the settings that are redacted wherever they occur.

    Keys are long and random (1.S4). A password of a database, of Redis or of the mail server may be a common word:
    redacted everywhere, it would garble the log, and a reader could tell from the gaps what it is. So it is redacted
    only where it stands as a password: in a URL, or after its name.
    """
    names = ("SECRET_KEY", "SECRET_KEY_NEXT", "READYZ_TOKEN", "METRICS_TOKEN")
    keys = map(config.get, (*names, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    yield from filter(None, [*keys, *config.get("SECRET_KEY_FALLBACKS", ())])  # type: ignore[misc]
    for value in config.values():
        if isinstance(value, str) and "://" in value and "@" in value:
            # With characters that a URL must not contain, programs differ in what they take for the password.
            passwords = {*re.findall("://[^:/@]*:([^/]+)@", value), *re.findall("://[^:/@]*:([^@]+)@", value)}
            yield from (f":{each}@" for each in passwords | set(map(unquote, passwords)))


def _redact(text: str, known: Collection[str]) -> str:
    for secret in sorted(known, key=len, reverse=True):  # one may contain another
        text = text.replace(secret, REDACTED)
    lower = text.lower()
    named = _COMPILED_NAMED if any(word in lower for word in _WORDS) else []
    for pattern in [*_COMPILED, *named]:
        text = pattern.sub(lambda found: f"{found.groupdict().get('shown') or ''}{REDACTED}", text)
    return text
