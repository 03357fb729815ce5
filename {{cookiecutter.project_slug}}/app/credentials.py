"""What an account's e-mail address and password may be.

A password is long and not well known, and that is all: no rules for the kinds of its characters, no expiry.
Source: NIST SP 800-63B-4; ASVS 5.0 V6.2.1-V6.2.12.
"""

from __future__ import annotations

import unicodedata

from email_validator import EmailNotValidError, validate_email

from app import project

MIN_LENGTH = 12  # characters; ASVS asks for 8
MAX_LENGTH = 128  # characters; more would only make the server work
MAX_EMAIL = 254  # characters; RFC 5321


def normal_email(address: str) -> str:
    """Give the one form of an address that accounts are found by. Raises ValueError."""
    if len(address) > MAX_EMAIL:
        raise ValueError("This address is too long.")
    try:
        return validate_email(address, check_deliverability=False).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError("This is not an e-mail address.") from error


def normal_password(password: str) -> str:
    """Give a password in the form that all keyboards make of it (NFKC). One that is too long comes back as it is."""
    return unicodedata.normalize("NFKC", password) if len(password) <= MAX_LENGTH else password


def fault(password: str, email: str) -> str | None:
    """Say what is wrong with a new password for ``email``, or None if it will do."""
    if len(password) < MIN_LENGTH:
        return f"Please use at least {MIN_LENGTH} characters. A few words in a row will do."
    if len(password) > MAX_LENGTH:
        return f"Please use at most {MAX_LENGTH} characters."
    rest = password.casefold()
    for word in (email, email.partition("@")[0], project.NAME, project.SLUG):
        rest = rest.replace(word.casefold(), "") if word else rest
    if len(rest) < MIN_LENGTH // 2 or len(set(rest)) < MIN_LENGTH // 2:
        return "This one is easy to guess: it repeats itself, your address or this site's name."
    return None
