"""The requirements for an account's e-mail address and password.

A password must be long and hard to guess. There are no composition rules, and passwords don't expire.

- ``common_passwords.txt`` has the 5,069 most frequent ones of at least 12 characters from known breaches.
- zxcvbn estimates the guesses that a password takes: it knows words, names, keyboard patterns, sequences, repetitions,
  dates, and the usual substitutions in them. The account's address and this project's names count as known words.

Flask-Security's own check with zxcvbn fails on more than 72 characters, and takes seconds for some shorter ones.
Source: NIST SP 800-63B-4; ASVS 5.0 V6.2.1-V6.2.12. V6.2.12 (breached passwords) only as far as the list: a query of all
known breaches needs a connection to another service.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from threading import Lock

from app import project
from app.accounts.models import utcnow

MIN_LENGTH = 12  # characters; ASVS requires 8
MAX_LENGTH = 128  # characters; hashing more would only cost time
MAX_EMAIL = 254  # characters; RFC 5321

COMMON = Path(__file__).with_name("common_passwords.txt")
MIN_GUESSES = 10**10  # zxcvbn's best score

# zxcvbn's time grows with the square of the length, and with the ways to read the signs that may stand for letters. A
# part that is hard to guess makes the whole hard to guess, so the parts are judged one by one.
JUDGED = 40  # characters
SIGNS, MANY_SIGNS, JUDGED_OF_MANY_SIGNS = set("4@8({[<369!1|0$57+%2"), 6, 16

_one_at_a_time = Lock()  # zxcvbn keeps the known words of a call in a global variable


def normal_email(address: str) -> str:
    """Return the normalized form of an address, by which accounts are found. Raises ValueError.

    Mails decode ``=?…?=`` (RFC 2047): each such spelling of one mailbox would have mails of its own. What NFKC changes,
    such as a full-width letter, would be an account of its own with the guesses of another one (``visitors.digest``).
    """
    from email_validator import EmailNotValidError, validate_email  # here, because a start would pay for it

    if len(address) > MAX_EMAIL:
        raise ValueError(f"This address is too long: the maximum is {MAX_EMAIL} characters.")
    try:
        if "=?" in address:
            raise EmailNotValidError
        normal = validate_email(address.strip(), check_deliverability=False).normalized.lower()
        if normal != unicodedata.normalize("NFKC", normal):
            raise EmailNotValidError
        return normal
    except EmailNotValidError as error:
        raise ValueError("This is not an e-mail address.") from error


def normal_password(password: str) -> str:
    """Return a password in NFKC, since keyboards encode characters differently. One that is too long is unchanged."""
    return unicodedata.normalize("NFKC", password) if len(password) <= MAX_LENGTH else password


def fault(password: str, email: str) -> str | None:
    """Return what is wrong with a new password for ``email``, or None if it is accepted."""
    if len(password) < MIN_LENGTH:
        return f"Please use at least {MIN_LENGTH} characters. A few words in a row will do."
    if len(password) > MAX_LENGTH:
        return f"Please use at most {MAX_LENGTH} characters."
    common = [line for line in COMMON.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    if password.casefold() in common:
        return "Many people use this password, so attackers try it first. Please choose another one."
    if _guesses(password, [*_known_words(email), *common]) < MIN_GUESSES:
        return "Attackers guess this password early: it is a pattern, a well-known word or name, or it repeats your \
address or this site's name. Please add a few words that have nothing to do with each other."
    return None


def _known_words(email: str) -> list[str]:
    """Return words that an attacker tries first at this account: from its address, this project, and recent years."""
    names = [email, project.NAME, project.SLUG, project.AUTHOR]
    parts = [part for name in names for part in re.split(r"[\W_]+", name) if len(part) > 2]
    joined = [re.sub(r"[\W_]+", "", name) for name in (*names, email.partition("@")[0])]
    return [*names, *parts, *joined, *map(str, range(2020, utcnow().year + 2))]


def _guesses(password: str, known_words: list[str]) -> int:
    """Estimate how many guesses ``password`` takes."""
    from zxcvbn import zxcvbn  # here, because its word lists take 14 MB

    if repeated := re.fullmatch(r"(.+?)\1+", password, re.DOTALL):
        password = repeated[1]  # cut in the middle, a repetition would seem harder to guess
    judged = JUDGED if len(SIGNS.intersection(password)) <= MANY_SIGNS else JUDGED_OF_MANY_SIGNS
    start = re.sub(r"\s", " ", password[:judged])  # zxcvbn fails on some line breaks
    with _one_at_a_time:
        guesses = int(zxcvbn(start, known_words)["guesses"])
    rest = password[judged:].partition(" ")[2]
    return max(guesses, _guesses(rest, known_words)) if rest else guesses
