"""Which passwords an account may have: long ones that are hard to guess (ASVS 5.0, V6.2)."""

from __future__ import annotations

import re
import sqlite3

import pytest
from flask import Flask
from flask.testing import FlaskClient
from zxcvbn import matching

from app import create_app
from app.accounts import credentials, identity
from app.accounts.credentials import fault
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, can_sign_in, register, sign_in
from tests.conftest import browser_like, post

ALICE = "alice@example.com"
ARGON2 = identity.ARGON2  # the other tests hash at less cost
MANAGED = "x7Kp2mQz9LtR"  # as a password manager makes them

GUESSABLE = """
    passwordpassword Password123! qwertyuiopas letmein12345 P@ssw0rd1234 abcdefghijkl trustno1trustno1 Summer2026!!
    iloveyou123456 Password123456! Winter2025!! Welcome12345 Welcome2026!! Qwerty123456! qwerty123456789 1q2w3e4r5t6y
    zaq12wsxcde3 asdfghjkl123 asdfghjklzxc zxcvbnm12345 aaaaaaaaaaaa ababababababab 123456789012 121212121212
    passwort1234 motdepasse12 PASSWORD2026! Passw0rd!Passw0rd! letmeinletmein adminadmin12 administrator1
    dragon123456 football2026! iloveyouiloveyou batman123456! jennifer1990 January2026! Monday123456 helloworld123
    changeme1234 starwars1234 !QAZ2wsx#EDC drowssapdrowssap p4$$w0rd2026 a1b2c3d4e5f6 abcd1234abcd 19900101abcd
    zyxwvutsrqpo ABCDEFGHIJKLMNOP 0987654321qwe Herbst2026!! Sommer2026!! Password!@#$ Bayern2026!!! Fr@nkfurt2026
    hallohallo12 ichliebedich1 azertyuiopqs 1qayxsw23edc Dragon2024!! Admin123!@#$ Ch@ngeMe1234 michael1987!
    01/02/1990!! 19.12.1985aa aaabbbcccddd asdf1234asdf lovelovelove Summer2026!!Summer2026!! facebook1234
    password1234 PASSWORD1234 google123google 12345678901234567890123456789012345678901234567890
    secureflaskapp12 theauthor123456 alice@example.com alicealice12 al1ceal1ce99 Alice.Example exampleexample
    tdutybqjytuby letmein1234567890letmein
    """.split()  # noqa: SIM905 - one per line would bury the rest

GOOD = [
    PASSWORD,
    MANAGED,
    "u8#Kd02!mZqa",
    "gT4-vR9-kL2x",
    "kqzvxwjpfbnm",
    "5f2b9c1e7a40d3",
    "9027451836602",
    "4@8({[<369!1|0$57+%2",
    "purple monkey dishwasher",
    "abacus tundra velvet orbit",
    "hUnter-valley-bridge-92",
    "nur kleine buchstaben",
    "Mein Fahrrad ist blau",
    "der hund schläft im garten",
    "J'aime les croissants chauds",
    "chien bateau lampe verte",
    "kedi bahçede uyuyor bugün",
    "iyi geceler güzel dünya",
    "пароль из нескольких слов",
    "我今天早上喝了两杯咖啡然后去上班",
    "今日は天気がいいから散歩しましょう",
    "오늘은 날씨가 좋아서 산책합니다",
    "شمس القمر النجوم البحر",
    "🔑🗝️🔐🔒🔓🚪🏠🪟🧱🛡️",
    # What comes first is guessed early, what follows is not.
    "1234567890 my dog eats purple staplers",
    "0123456789 correct horse battery staple zebra",
    "password1234567890 giraffe umbrella cobalt thunder",
    # V6.2.9: 64 characters and more, and what only seems to be a line.
    "mit dem alten Rad um den See fahren und danach ein Eis am Steg essen",
    "a phrase about nothing much, but long enough to end at the limit " * 2,
    "correct horse\n19/1/1990\nbattery",
]


@pytest.mark.parametrize("password", GUESSABLE)
def test_a_guessable_password_is_refused(app: Flask, password: str) -> None:
    with app.app_context():
        assert fault(password, ALICE)


@pytest.mark.parametrize("password", [text[: credentials.MAX_LENGTH] for text in GOOD])
def test_a_password_that_is_hard_to_guess_is_accepted(app: Flask, password: str) -> None:
    with app.app_context():
        assert fault(password, ALICE) is None


@pytest.mark.parametrize(
    ("password", "taken"),
    [
        ("elevenchars", False),
        (MANAGED, True),
        ((MANAGED * 11)[:128], True),
        ("Summer2026!!" * 10, False),
        ("nur kleine buchstaben", True),
        (GOOD[-2][:128], True),
        (GOOD[-2][:128] + "i", False),
        (GOOD[-2] * 1000, False),
        ("Summer2026!!", False),
        ("alicealice12", False),
        ("Secure Flask App", False),
        ("пароль из нескольких слов", True),
        ("🔑🗝️🔐🔒🔓🚪🏠🪟🧱🛡️", True),
    ],
)
def test_a_password_is_long_and_hard_to_guess(client: FlaskClient, password: str, taken: bool) -> None:
    assert (register(client, password=password).status_code == 303) is taken
    assert can_sign_in(client.application, password) is taken


@pytest.mark.parametrize("place", ["/account/password", "/reset", "flask users create"])
def test_every_way_to_set_a_password_refuses_a_guessable_one(member: FlaskClient, mailbox: Mailbox, place: str) -> None:
    bad = "Summer2026!!"
    if place == "/account/password":
        form = {"password": PASSWORD, "new_password": bad, "new_password_confirm": bad}
        answer = post(member, place, form).text
    elif place == "/reset":
        post(member, place, {"email": ALICE})
        link = mailbox.link().removeprefix("https://localhost")
        answer = post(browser_like(member.application), link, {"password": bad, "password_confirm": bad}).text
    else:
        run = member.application.test_cli_runner()
        answer = run.invoke(args=["users", "create", "bob@example.com"], input=f"{bad}\n").output
    assert "Attackers guess this password early" in answer
    assert not can_sign_in(member.application, bad)


def test_V6_2_4_the_list_has_more_than_the_top_3000_that_are_long_enough(app: Flask) -> None:
    lines = credentials.COMMON.read_text(encoding="utf-8").splitlines()
    common = [line for line in lines if not line.startswith("# ")]
    assert len(set(common)) == len(common) >= 3000
    assert all(len(line) >= credentials.MIN_LENGTH and line == line.casefold() for line in common)
    with app.app_context():
        for password in (*common[::250], *(line.upper() for line in common[100::500])):
            assert "attackers try it first" in str(fault(password, ALICE))


def test_8_T4_what_is_judged_of_a_password_is_bounded(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """zxcvbn takes seconds of the processor for some of these, and fails on those of more than 72 characters.

    Its work: for each way to read the signs as letters, it looks at every part of the password.
    """
    work: list[int] = []

    def measure(password: str, words: list[str]) -> dict[str, int]:
        ways = matching.enumerate_l33t_subs(matching.relevant_l33t_subtable(password, matching.L33T_TABLE))
        work.append(len(ways) * len(password) ** 2)
        return {"guesses": 0}

    monkeypatch.setattr("zxcvbn.zxcvbn", measure)
    signs = "4@8({[<369!1|0$57+%2"
    with app.app_context():
        for password in (signs, signs * 3, (signs * 7)[:128], "4@({[<1!|7$5+69l" * 2, "1!|7+l" * 20, "a" * 128):
            fault(password, ALICE)
    assert len(work) == 6
    assert max(work) < 200_000  # the second one would be 2 million


def test_who_has_a_guessable_password_still_signs_in(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr("app.accounts.credentials.MIN_GUESSES", 0)
        register(client, password="Summer2026!!")
    assert sign_in(client, password="Summer2026!!").status_code == 303


def test_the_refusal_says_what_to_do(client: FlaskClient) -> None:
    page = register(client, password="Summer2026!!")
    assert page.status_code == 400
    assert re.search(r"Please add a few words", page.text)


def test_a_stolen_database_holds_only_slow_hashes(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argon2id with 19 MiB and two passes, as the OWASP Password Storage Cheat Sheet asks (ASVS 5.0, V11.4.2)."""
    monkeypatch.setattr(identity, "ARGON2", ARGON2)
    app = create_app(app_config)
    register(browser_like(app))
    with sqlite3.connect(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")) as database:
        stored = [hashed for (hashed,) in database.execute("SELECT password FROM users")]
    database.close()
    costs = [re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=1\$", hashed) for hashed in stored]
    assert [int(cost[1]) >= 19 * 1024 and int(cost[2]) >= 2 for cost in costs if cost] == [True]
