"""8.S4, password guesses: how many are possible, and do one client's guesses affect others?"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

from flask.ctx import RequestContext
from werkzeug.exceptions import HTTPException

from app.security.backoff import attempt_succeeded, claim_attempt
from app.security.counters import GuardedStorage
from app.security.rate_limits import limiter
from tools.audit.steps import probe
from tools.audit.subject import PASSWORD, NotApplicable, Subject

WRONG = "a wrong guess"
GUESSABLE = ("Password123!", "Summer2026!!", "qwertyuiopas", "1q2w3e4r5t6y", "tdutybqjytuby")
SIGN_IN = ("login_user", "LoginManager", "check_password_hash", "check_password", "verify_password", "HTTPBasicAuth")


@probe("8.S4")
def guesses_wait(subject: Subject) -> Iterator[str]:
    """Guess passwords of an existing account and of an unknown one."""
    sign_in = [rule for rule in subject.rules("POST") if re.search(r"(?i)log.?in|sign.?in", rule.rule)]
    if not subject.own:
        if not sign_in and not subject.code_mentions(*SIGN_IN):
            raise NotApplicable("the app has no sign-in")
        yield "No increasing delay of password guesses was found."
        return
    guess = _form_guess if sign_in and subject.member else _call_guess
    with _stopped_clock():
        yield from _free_guesses(subject, guess)
    now = time.time()
    growing: list[int] = [0]
    for number in range(14):
        now += growing[-1] + 1 if number else 1000
        with mock.patch("time.time", return_value=now):
            if _call_guess(subject, "growing@audit.example", f"203.0.113.{number}"):
                break
            growing.append(_call_guess(subject, "growing@audit.example", f"192.0.2.{100 + number}") or 0)
    if len(growing) < 15 or growing != sorted(growing) or not 600 <= growing[-1] <= 900:
        yield f"The waits do not double up to 15 minutes: {growing[1:]}."
    if guess is _form_guess:
        yield from _right_password_ends_it(subject)
        yield from _reset_ends_it(subject)
        yield from _borrowed_browser(subject)
        yield from _known_and_unknown(subject)
        yield from _guessable_passwords(subject)
    yield from _spellings_and_storage(subject)
    yield from _owners_and_strangers(subject)
    yield from _at_the_same_time(subject)
    yield from _networks_of_one_customer(subject)


def _stopped_clock() -> AbstractContextManager[Any]:
    """Stop the time that the app sees: on a busy machine, a wait of one second is over before the next guess."""
    return mock.patch("time.time", return_value=time.time())


def _free_guesses(subject: Subject, guess: Callable[[Subject, str, str], int | None]) -> Iterator[str]:
    """Guess until one has to wait, and look for whom the wait holds."""
    statuses = {}
    for account in ("member@audit.example", "nobody@audit.example"):
        waits = [guess(subject, account, "192.0.2.50" if account[0] == "m" else "192.0.2.51") for _ in range(4)]
        statuses[account] = [0 if wait is None else wait for wait in waits]
        if statuses[account][:3] != [0, 0, 0] or not 1 <= statuses[account][3] <= 2:
            yield f"After three guesses, the waits were {statuses[account]}."
    if len({tuple(map(bool, waits)) for waits in statuses.values()}) > 1:
        yield "The waits of guesses reveal whether an account exists."
    if not guess(subject, "member@audit.example", "192.0.2.52"):
        yield "From another address, guesses at the account do not wait."
    if not guess(subject, "third@audit.example", "192.0.2.50"):
        yield "At another account, guesses from the address do not wait."


def _form_guess(subject: Subject, account: str, address: str) -> int | None:
    """Guess in the sign-in form. Returns the seconds to wait, or None if the guess was accepted."""
    form = {"email": account, "password": WRONG}
    answer = subject.browser(address=address).send("/login", form)
    return int(answer.headers.get("Retry-After", 0)) if answer.status_code == 429 else None


def _call_guess(subject: Subject, account: str, address: str) -> int | None:
    """Guess as the team's own sign-in would. Returns the same as ``_form_guess``."""
    with _request_from(subject, address):
        try:
            claim_attempt(account)
        except HTTPException as refusal:
            return int(getattr(refusal, "retry_after", 0))
    return None


def _request_from(subject: Subject, address: str) -> RequestContext:
    environ = {"REMOTE_ADDR": address}
    return subject.app.test_request_context(base_url=f"https://{subject.host}", environ_overrides=environ)


def _right_password_ends_it(subject: Subject) -> Iterator[str]:
    email, password = subject.new_account()
    now, right = time.time(), {"email": email, "password": password}
    with mock.patch("time.time", return_value=now):
        for number in range(3):
            _form_guess(subject, email, f"192.0.2.{80 + number}")
        early = subject.browser(address="192.0.2.89")
        answer = early.send("/login", right)
        if answer.status_code != 429 or early.open("/account").status_code == 200:
            yield f"During the wait, the right password is tried ({answer.status_code}): guesses don't wait."
    later = now + int(answer.headers.get("Retry-After", 1))
    with mock.patch("time.time", return_value=later):
        browser = subject.browser(address="192.0.2.90")
        browser.send("/login", right)
        if browser.open("/account").status_code != 200:
            yield "After the wait, the right password does not work."
        if _form_guess(subject, email, "192.0.2.91") is not None:
            yield "The right password does not end the waits."


def _reset_ends_it(subject: Subject) -> Iterator[str]:
    """Keep an account waiting, and reset its password by mail."""
    email, password = subject.new_account()
    with _stopped_clock():
        for number in range(4):
            _form_guess(subject, email, f"192.0.2.{140 + number}")
        subject.reset_password(email, f"new {password}")
        owner = subject.browser(address="192.0.2.149")
        owner.send("/login", {"email": email, "password": f"new {password}"})
        if owner.open("/account").status_code != 200:
            yield "An attacker who keeps an account waiting locks its owner out, even after a reset by mail."


def _networks_of_one_customer(subject: Subject) -> Iterator[str]:
    """Guess from many /64 networks of one /56, and of one /48, each time at another account."""
    for prefix, step, most in ((56, 1, 24), (48, 256, 96)):
        with _stopped_clock():
            waits = [
                _call_guess(subject, f"many-{prefix}-{number}@audit.example", f"2001:db8:{prefix}:{number * step:x}::1")
                for number in range(most + 2)
            ]
            beside = _call_guess(subject, "beside@audit.example", f"2001:db8:{prefix + 1}::1")
        at_once = waits.count(None)
        if at_once > most:
            yield f"From the networks of one IPv6 /{prefix}, {at_once} guesses are accepted at once."
        if at_once < 4 or beside:
            yield f"In an IPv6 /{prefix}, one network's guesses hold up its neighbours."


def _spellings_and_storage(subject: Subject) -> Iterator[str]:
    """Guess at one account with several spellings, and check the keys in the storage."""
    for number, spelling in enumerate(("Spelt@audit.example", "spelt@AUDIT.example ", "\uff33pelt@audit.example")):
        _call_guess(subject, spelling, f"198.51.100.{number}")
    if not _call_guess(subject, "spelt@audit.example", "198.51.100.9"):
        yield "Another spelling of an e-mail address counts as another account, with more guesses."
    keys = storage.guesses.keys() if isinstance(storage := limiter.storage, GuardedStorage) else set()
    if any("@audit.example" in str(key).lower() for key in keys):
        yield "The storage of the counters contains e-mail addresses."


def _owners_and_strangers(subject: Subject) -> Iterator[str]:
    """Guess at an account with a known owner from other addresses, and spray other accounts."""
    owner, stranger, home = "owner@audit.example", "203.0.113.60", "203.0.113.61"
    _call_success(subject, owner, home)
    for number in range(8):
        _call_guess(subject, owner, f"203.0.113.{70 + number}")
    if _call_guess(subject, owner, home):
        yield "An attacker who keeps an account waiting locks its owner out."
    waits = [_call_guess(subject, owner, home) for _ in range(5)]
    if not waits[-1]:
        yield "From its owner's address, guesses at an account do not wait."
    for number in range(6):
        _call_guess(subject, f"sprayed-{number}@audit.example", stranger)
    _call_success(subject, "own@audit.example", stranger)
    if not _call_guess(subject, "sprayed-9@audit.example", stranger):
        yield "A sign-in to the attacker's own account resets the count of guesses at others."


def _at_the_same_time(subject: Subject) -> Iterator[str]:
    """Guess in parallel at the moment when one guess is possible."""
    interval, through = sys.getswitchinterval(), 0
    sys.setswitchinterval(1e-5)  # seconds; frequent thread switches make a race condition likely
    try:
        for turn in range(3):
            account = f"parallel-{turn}@audit.example"
            addresses = [f"198.18.{200 + turn}.{number}" for number in range(20)]
            for number in range(4):
                _call_guess(subject, account, addresses[number])
            later = time.time() + 30
            with mock.patch("time.time", return_value=later), ThreadPoolExecutor(16) as threads:
                answers = list(threads.map(partial(_call_guess, subject, account), addresses[4:]))
            through = max(through, answers.count(None))
    finally:
        sys.setswitchinterval(interval)
    if through > 1:
        yield f"{through} guesses at the same moment are accepted, instead of one."


def _borrowed_browser(subject: Subject) -> Iterator[str]:
    """Guess the password in a signed-in browser, and compare the work of guesses at known and unknown accounts."""
    if (member := subject.new_member()) is None:
        return
    form = {"password": WRONG, "new_password": f"{WRONG} {WRONG}", "new_password_confirm": f"{WRONG} {WRONG}"}
    with _stopped_clock():
        answers = [member.send("/account/password", form).status_code for _ in range(5)]
        right = member.send("/account/password", form | {"password": PASSWORD}).status_code
    if answers[-1] != 429 or right != 429:
        yield "In a borrowed browser, password guesses are not limited."
    email, _password = subject.new_account()
    work = {account: _hashes(subject, account) for account in (email, "nobody-at-all@audit.example")}
    if len(set(work.values())) > 1:
        yield "A guess at an unknown account takes less work: the response time reveals which accounts exist."


def _known_and_unknown(subject: Subject) -> Iterator[str]:
    """Send each form an address with an account and one without, and compare the responses."""
    email, password = subject.new_account()
    new = {"password": password, "password_confirm": password}
    for path, form in {"/login": {"password": WRONG}, "/register": new, "/reset": {}}.items():
        seen = set()
        for account in (email, f"{path[1:]}-{email}"):
            browser = subject.browser()
            answer = browser.send(path, {"email": account, **form})
            text = (answer.text + browser.open("/login").text).replace(account, "")  # which shows the flashed messages
            tokens = r"[\w.-]{30,}|nonce=\S+"
            seen.add((answer.status_code, answer.headers.get("Location"), re.sub(tokens, "", text)))
        if len(seen) > 1:
            yield f"{path} reveals which addresses have an account."


def _guessable_passwords(subject: Subject) -> Iterator[str]:
    """Register with passwords that attackers guess first. That a good one is accepted, the other probes show."""
    for number, password in enumerate(GUESSABLE):
        form = {"email": f"guessable-{number}@audit.example", "password": password, "password_confirm": password}
        if subject.browser().send("/register", form).status_code == 303:
            yield f"A new account may have the password {password}, one of the first that attackers guess."


def _hashes(subject: Subject, account: str) -> int:
    """Return how many password hashes a guess computes."""
    context = subject.app.extensions["security"].pwd_context
    counted = (
        mock.patch.object(context, "hash", wraps=context.hash),
        mock.patch.object(context, "verify", wraps=context.verify),
    )
    with counted[0] as hashed, counted[1] as verified:
        _form_guess(subject, account, f"203.0.113.{150 + len(account)}")
    return int(hashed.call_count + verified.call_count)


def _call_success(subject: Subject, account: str, address: str) -> None:
    """Report a correct password, as the team's own sign-in would."""
    with _request_from(subject, address):
        attempt_succeeded(account)
