"""The requirements for an account's e-mail address and password.

A password must be long and not well known. There are no composition rules, and passwords don't expire.
Source: NIST SP 800-63B-4; ASVS 5.0 V6.2.1-V6.2.11. V6.2.4 and V6.2.12 (breached passwords) only as far as ``COMMON``.
"""

from __future__ import annotations

import unicodedata

from email_validator import EmailNotValidError, validate_email

from app import project

MIN_LENGTH = 12  # characters; ASVS requires 8
MAX_LENGTH = 128  # characters; hashing more would only cost time
MAX_EMAIL = 254  # characters; RFC 5321

# The most common passwords: those of at least MIN_LENGTH among the 20,000 most frequent in known breaches, without
# repetitive ones. (The list is by Royce Williams, taken from Django.)
COMMON = frozenset(
    """
    q1w2e3r4t5y6 1qaz2wsx3edc sojdlg123aljg 111222tianya 1q2w3e4r5t6y startfinding qwerty123456 123qweasdzxc
    123456qwerty megaparol12345 123456654321 telechargement 123456123456 yfdbufnjh10305070 qazwsxedcrfv g13916055158
    1q2w3e4r5t6y7u8i9o0p 123456789123 qwertyqwerty 112233445566 justinbieber 123456789987654321 qweasdzxc123
    123456789123456789 maprchem56458 5532361cnjqrf qwertyuiop[] qazwsxedc123 password1234 international temppassword
    1q2w3e4r5t6y7u professional 0r968ji9ufj6 jundian2011xr qwertyuiop123 qwerasdfzxcv leavemealone finalfantasy
    123456789abc administrator 123qwe123qwe zxcasdqwe123 demon1q2w3e4r jamesbond007 asdfghjkl123 demon1q2w3e4r5t
    projectsadminx ichliebedich playstation3 123456789qwe sonyericsson 1qazxsw23edc linkedin2011 1q2w3e4r5t6y7u8i
    ihatethisgame s8ylpe9jdpvym qwegta13091990 123456789asd seniseviyorum 010203040506 onedirection transformers
    1q2w3e4r5t6y7u8i9o supernatural gfhjkmgfhjkm sonnenschein password12345 peanutbutter 12345678900987654321
    1qaz2wsx3edc4rfv qwertyuiop12 needforspeed 1234567890-= migrationschool 1234567891011 liverpool123 xtseo2011tdx
    playstation2 gettherefast internazionale 123456789123456 102030405060 combat123654 abc123456789 ingodwetrust
    12345678901234567890 qwertyasdfgh christopher1 sdf7asdf6asdg8df ghhh47hj7649 1234567890qwertyuiop zmx870919123
    inactive1996aug lydcc20091314 jesuslovesme avrillavigne ilovemyfamily counterstrike stratocaster qwertyytrewq
    dfg5fhg5vgfh1 1234567891234567 123admin321a 123456789qwerty googletester hawkesbury93 qazwsxedcrfvtgb
    q1w2e3r4t5y6u7i8o9p0 qazxswedcvfr yemi19900911 password123456 123456789qaz jkiuztdftl57 xantria10315 starwarsfan10
    hannahmontana familiyafamiliya vitor1268123 m01759766727 123456789101112 weronika1992 1234567890123
    12345678987654321 neworleans12345 cookiemonster qwerty123456789 natiichen999 ghbdtnrfrltkf 520love101182
    kartoffelpuffer lightpower12345 stefangreil1983 total12scherz edwardcullen qwe123qwe123 cosmopolitan
    somanypickles27 michaeljackson zaq1xsw2cde3 minecraft123 leliane50934 moderncombat marek14michal przyjaciolki
    laurel12creek residentevil yandi20080527 ezekiel11991 123456789000 arabella24630 manchesterunited sebastian106
    knackwurst8853 1234567890987654321
    """.split()  # noqa: SIM905 - one per line would bury the rest of this file
)


def normal_email(address: str) -> str:
    """Return the normalized form of an address, by which accounts are found. Raises ValueError."""
    if len(address) > MAX_EMAIL:
        raise ValueError("This address is too long.")
    try:
        return validate_email(address.strip(), check_deliverability=False).normalized.lower()
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
    rest = password.casefold()
    if rest in COMMON:
        return "Many people use this password, so attackers try it first. Please choose another one."
    for word in (email, email.partition("@")[0], project.NAME, project.SLUG):
        rest = rest.replace(word.casefold(), "") if len(word) > 3 else rest
    if len(rest) < MIN_LENGTH // 2 or len(set(rest)) < MIN_LENGTH // 2:
        return "This password is easy to guess: it repeats itself, your address or this site's name."
    return None
