"""Attacks on mitigation 8, rate limits. Most guess through a view of their own, which costs no password hash."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import time_machine
from flask import Blueprint, Flask, before_render_template, request
from flask.testing import FlaskClient
from flask.views import MethodView
from limits import parse_many
from redis import Redis as RedisClient
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import create_app
from app.security import counters, rate_limits, refusals, shared_counters
from app.security.backoff import DAY, attempt_succeeded, claim_attempt, remaining_tries
from app.security.csrf import exempt
from app.security.declarations import declared_by
from app.security.errors import refuse
from app.security.headers import HEADERS
from app.security.rate_limits import KIND, LIMITS, limited, limiter
from app.security.rate_limits import (
    unlimited as without_limit,
)
from app.visitors import digest, public
from tests.conftest import HAS_ACCOUNTS, KEY, ORIGIN, Server, address_of, browser_like, free_port, new_member
from tests.programs import PROGRAMS

UNLIMITED = "1000000 per minute"
VICTIM = "victim@example.com"
RIGHT, WRONG = "right", "wrong"
BACK_WITHIN = f"within {counters.REDIS_RETRY} seconds of its return"
HOME, ELSEWHERE = "198.51.100.7", "203.0.113.9"  # RFC 5737

# After guess 3 the waits double from 1 s to 900 s: guess 13 comes at 1 + 2 + … + 512 = 1023 s, then one every 900 s:
# (86400 - 1023) / 900 = 94.9, so 94 more before the first day is over.
GUESSES_A_DAY = 13 + 94


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel(time.time(), tick=False) as traveller:
        yield traveller


@pytest.fixture
def unlimited(app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Let as many requests through as come, so that only the backoff is in the way."""
    monkeypatch.setitem(LIMITS, "sign_in", UNLIMITED)
    monkeypatch.setitem(LIMITS, "register", UNLIMITED)
    return app_config | {"RATELIMIT_DEFAULT": UNLIMITED}


@pytest.fixture
def door(unlimited: dict[str, object]) -> Flask:
    return with_door(create_app(unlimited))


def with_door(app: Flask) -> Flask:
    """Add a sign-in that knows one password, as cheap as they come."""

    @app.post("/tested-door")
    @public
    @exempt("The tests of the limits need no token.")
    def door() -> tuple[str, int]:
        account = request.form["account"]
        claim_attempt(account)
        if request.form["password"] != RIGHT:
            return str(remaining_tries(account)), 401
        attempt_succeeded(account)
        return "in", 200

    return app


def guess(app: Flask, account: str = VICTIM, address: str = ELSEWHERE, password: str = WRONG) -> tuple[int, int]:
    """Try a password; give the status (200 right, 401 wrong, 429 refused) and the seconds to wait."""
    client = browser_like(app)
    client.environ_base["REMOTE_ADDR"] = address
    answer = client.post(
        "/tested-door", data={"account": account, "password": password}, headers={"Accept": "application/json"}
    )
    return answer.status_code, int(answer.headers.get("Retry-After", 0))


def addresses() -> Iterator[str]:
    return (f"10.0.{high}.{low}" for high in range(256) for low in range(256))


# 8.T1 Brute force


@pytest.mark.parametrize("spread", [False, True], ids=["one address", "many addresses"])
def test_8_T1_a_day_of_guesses_at_one_account(door: Flask, clock: time_machine.Coordinates, spread: bool) -> None:
    begin, source, passed = time.time(), addresses(), []
    while time.time() < begin + DAY:
        status, wait = guess(door, address=next(source) if spread else ELSEWHERE)
        if status == 401:
            passed.append(round(time.time() - begin))
        else:
            assert status == 429
            clock.shift(wait)
    assert passed[:8] == [0, 0, 0, 1, 3, 7, 15, 31]
    assert len(passed) == GUESSES_A_DAY


@pytest.mark.parametrize("spread", [False, True], ids=["one address", "many addresses"])
def test_8_T1_a_thousand_parallel_guesses_at_one_account(
    door: Flask, clock: time_machine.Coordinates, racing: None, spread: bool
) -> None:
    sources = [next(source) for source in [addresses()] * 1000] if spread else [ELSEWHERE] * 1000
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda address: guess(door, address=address)[0], sources))
    assert answers.count(401) == 3
    assert answers.count(429) == 997


@pytest.fixture
def racing() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def wall(app: Flask, clock: time_machine.Coordinates, account: str = VICTIM, address: str = ELSEWHERE) -> int:
    """Guess until the wait is a long one, and give its seconds."""
    wait = 0
    while wait < 60:
        clock.shift(wait)
        _, wait = guess(app, account, address)
    return wait


def test_8_S4_the_right_password_works_after_the_wait_and_ends_it(door: Flask, clock: time_machine.Coordinates) -> None:
    wait = wall(door, clock)
    for _ in range(50):
        assert guess(door, password=RIGHT) == (429, wait)  # refused guesses lengthen nothing
    clock.shift(wait - 1)
    assert guess(door, password=RIGHT) == (429, 1)
    clock.shift(1)
    assert guess(door, password=RIGHT)[0] == 200
    assert [guess(door)[0] for _ in range(4)] == [401, 401, 401, 429]


def test_8_S4_a_success_ends_the_wait_of_the_account_everywhere(door: Flask, clock: time_machine.Coordinates) -> None:
    clock.shift(wall(door, clock))
    assert guess(door, address="192.0.2.1")[0] == 401
    assert guess(door, address="192.0.2.2")[0] == 429
    clock.shift(900)
    assert guess(door, password=RIGHT)[0] == 200
    assert guess(door, address="192.0.2.2")[0] == 401


def test_8_S4_strangers_do_not_hold_up_an_owner_where_they_have_been_before(
    door: Flask, clock: time_machine.Coordinates
) -> None:
    assert guess(door, address=HOME, password=RIGHT)[0] == 200
    wall(door, clock)
    assert guess(door, address="192.0.2.1", password=RIGHT)[0] == 429
    assert guess(door, address=HOME, password=RIGHT)[0] == 200
    clock.shift(29 * DAY)
    assert guess(door, address=HOME, password=RIGHT)[0] == 200
    clock.shift(29 * DAY)
    wall(door, clock)
    assert guess(door, address=HOME, password=RIGHT)[0] == 200
    clock.shift(31 * DAY)
    wall(door, clock)
    assert guess(door, address=HOME, password=RIGHT)[0] == 429


def test_8_T1_an_address_of_the_owner_is_no_open_door(door: Flask, clock: time_machine.Coordinates) -> None:
    assert guess(door, address=HOME, password=RIGHT)[0] == 200
    assert [guess(door, address=HOME)[0] for _ in range(4)] == [401, 401, 401, 429]


def test_8_T1_an_own_account_gives_back_no_guesses_at_others(door: Flask, clock: time_machine.Coordinates) -> None:
    """While the address is known there, guesses at it are not counted for the address: none of them is given back."""
    own = "own@example.com"
    assert guess(door, own, HOME, RIGHT)[0] == 200
    clock.shift(30 * DAY - 60)
    assert [guess(door, own, HOME)[0] for _ in range(3)] == [401] * 3
    clock.shift(61)
    assert [guess(door, VICTIM, HOME)[0] for _ in range(4)] == [401] * 3 + [429]
    clock.shift(1)
    assert guess(door, own, HOME, RIGHT)[0] == 200
    assert guess(door, "third@example.com", HOME)[0] == 429


# How a person may write one account: NFKC, blanks, case. The wall must be the same for all.
@pytest.mark.parametrize(
    "spelling", ["VICTIM@example.com", " victim@example.com\t", "\uff56ictim@example.com", "victim@EXAMPLE.com"]
)
def test_8_T1_another_spelling_is_the_same_account(door: Flask, clock: time_machine.Coordinates, spelling: str) -> None:
    source = addresses()
    assert [guess(door, VICTIM, next(source))[0] for _ in range(3)] == [401] * 3
    assert guess(door, spelling, next(source))[0] == 429


def test_8_T4_a_name_of_many_accents_is_cut_before_it_is_normalized(door: Flask, normalized: list[int]) -> None:
    assert guess(door, "a" + "\u0301" * 5000 + "\u0316" * 5000)[0] == 401
    assert 0 < max(normalized) <= 1000


def test_8_S4_the_storage_holds_no_account_name(door: Flask) -> None:
    guess(door)
    keys = storage().pages.keys() | storage().guesses.keys()
    assert len(keys) > 3
    assert not [key for key in keys if "victim" in key]


def storage() -> counters.GuardedStorage:
    found = limiter.storage
    assert isinstance(found, counters.GuardedStorage)
    return found


def test_8_S4_the_remaining_tries_are_told(door: Flask) -> None:
    client = browser_like(door)
    tries = [client.post("/tested-door", data={"account": VICTIM, "password": "x"}).text for _ in range(3)]
    assert tries == ["2", "1", "0"]


# The networks of IPv6: a /64 in each line, from one network that a customer may have.
NETWORKS = {
    56: [f"2001:db8:0:{number:x}::1" for number in range(256)],
    48: [f"2001:db8:0:{number << 8:x}::1" for number in range(256)],  # each in another /56
}

# A /56 has 4 times the 3 free guesses, and a 4th of the longest wait, 225 s. Guess 20 comes at 1 + 2 + … + 128 = 255 s,
# then one every 225 s: in two hours (7200 - 255) / 225 = 30.9, in a day 382.9. A /48 has 16 times 3, and waits 56 s:
# guess 54 comes at 63 s, and (7200 - 63) / 56 = 127.4, in a day 1541.7.
GUESSES_OF_A_NETWORK = {56: (12, 20 + 30), 48: (48, 54 + 127)}


@pytest.mark.parametrize("prefix", NETWORKS)
def test_8_T1_the_networks_of_one_customer_have_a_bounded_number_of_guesses(
    door: Flask, clock: time_machine.Coordinates, prefix: int
) -> None:
    at_once, in_two_hours = GUESSES_OF_A_NETWORK[prefix]
    accounts = (f"user{number}@example.com" for number in range(1_000_000))
    source = cycle(NETWORKS[prefix])
    begin = time.time()
    assert [guess(door, next(accounts), next(source))[0] for _ in range(192)].count(401) == at_once
    passed = at_once
    while time.time() < begin + 7200:
        status, wait = guess(door, next(accounts), next(source))
        passed += status == 401
        clock.shift(wait)
    assert passed == in_two_hours
    assert guess(door, "someone@example.com", "2001:db8:1::1")[0] == 401  # another network


@pytest.mark.parametrize("kind", LIMITS)
def test_8_S3_a_view_without_a_name_is_counted(app: Flask, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A partial; and its endpoint has the name of a kind of limit."""
    monkeypatch.setitem(LIMITS, kind, "1 per minute")
    view = exempt("The tests of the limits need no token.")(partial(str))
    app.add_url_rule("/tested-door", kind, public(limited(kind)(view)), methods=["POST"])
    client = browser_like(app)
    assert [client.post("/tested-door").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("kind", ["sign_in", "register", "reset"])
@pytest.mark.parametrize("prefix", NETWORKS)
def test_8_T1_the_networks_of_one_customer_share_the_limit_of_a_form(
    app: Flask, clock: time_machine.Coordinates, monkeypatch: pytest.MonkeyPatch, kind: str, prefix: int
) -> None:
    monkeypatch.setitem(LIMITS, kind, "2 per minute; 10 per hour")
    app.add_url_rule(
        "/tested-door", "door", public(exempt("The tests of the limits need no token.")(Door.as_view("door")))
    )
    limited(kind)(app.view_functions["door"])
    minute, hour = (limit.amount for limit in parse_many(LIMITS[kind]))
    times = {56: 4, 48: 16}[prefix]
    source = cycle(NETWORKS[prefix])
    for amount in (minute * times, minute * times, (hour - 2 * minute) * times):  # an hour's are those of 5 minutes
        for most in [minute * times] * (amount // (minute * times)):
            answers = [at(app, next(source)).post("/tested-door").status_code for _ in range(most)]
            assert answers == [200] * most
            refused = at(app, next(source)).post("/tested-door", headers={"Accept": "application/json"})
            assert refused.status_code == 429
            assert "network" in refused.get_json()["detail"]
            assert at(app, "2001:db8:1::1").get("/").status_code == 200
            clock.shift(61)
    assert at(app, next(source)).post("/tested-door").headers["RateLimit-Limit"] == str(hour * times)
    assert at(app, "2001:db8:1::1").post("/tested-door").status_code == 200
    assert at(app, HOME).post("/tested-door").status_code == 200


def test_a_test_of_a_team_can_turn_the_limits_off(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    view = public(exempt("The tests of the limits need no token.")(Door.as_view("door")))
    app.add_url_rule("/tested-door", "door", limited("register")(view))
    monkeypatch.setattr(limiter, "enabled", False)
    client = at(app, NETWORKS[56][0])
    assert {client.post("/tested-door").status_code for _ in range(30)} == {200}  # a /56 may register 20 times a minute


def test_8_T1_a_success_gives_a_network_back_its_own_failures_alone(
    door: Flask, clock: time_machine.Coordinates
) -> None:
    source = cycle(NETWORKS[56])
    for number in range(40):  # people who mistype once
        name, address = f"user{number}@example.com", next(source)
        assert [guess(door, name, address)[0], guess(door, name, address, RIGHT)[0]] == [401, 200]
    passed = sum(guess(door, f"victim{number}@example.com", next(source))[0] == 401 for number in range(30))
    assert passed == 12


# 8.T3 Credential stuffing


def test_8_T3_a_thousand_accounts_with_one_guess_each(door: Flask, clock: time_machine.Coordinates) -> None:
    answers = [guess(door, f"user{number}@example.com")[0] for number in range(1000)]
    assert (answers[:3], set(answers[3:])) == ([401] * 3, {429})


def test_8_T3_an_account_of_ones_own_washes_nothing_clean(door: Flask, clock: time_machine.Coordinates) -> None:
    passed = 0
    for number in range(100):
        passed += guess(door, f"user{number}@example.com")[0] == 401
        guess(door, f"own{number % 5}@example.com", password=RIGHT)
    assert passed == 3


def test_8_T3_a_slip_of_ones_own_is_forgiven(door: Flask, clock: time_machine.Coordinates) -> None:
    for person in range(10):  # behind one address
        name = f"user{person}@example.com"
        assert [guess(door, name)[0], guess(door, name)[0], guess(door, name, password=RIGHT)[0]] == [401, 401, 200]


# 8.T4 Every request counts, whatever refuses it. The first is answered with the status, the second is over the limit.


def refused_by_a_preprocessor(endpoint: str | None, values: object) -> None:
    if "refused" in request.args:
        refuse(403, "A team's own code refuses this.")


AT_THE_DOOR: dict[str, tuple[int, dict[str, Any]]] = {
    "a foreign host": (400, {"headers": {"Host": "evil.example"}}),
    "no host": (400, {"headers": {"Host": ""}}),
    "a garbled host": (400, {"headers": {"Host": "a b/@"}}),
    "a port that is none": (400, {"headers": {"Host": "localhost:99999999"}}),
    "an address that is too long": (414, {"query_string": "a" * 5000}),
    "a path that is too long": (414, {"path": "/" + "a" * 5000}),
    "http": (308, {"base_url": "http://localhost"}),
    "http to a foreign host": (400, {"base_url": "http://evil.example"}),
    "an argument twice": (400, {"path": "/redirect", "query_string": "next=/&next=/a"}),
    "a null byte in the address": (400, {"path": "/%00"}),
    "a null byte in an argument": (400, {"query_string": "a=%00"}),
    "bad percent-encoding": (404, {"path": "/x", "environ_overrides": {"PATH_INFO": "/%zz\xff\xfe"}}),
    "no such page": (404, {"path": "/no/such/page"}),
    "no such method": (405, {"method": "BREW"}),
    "OPTIONS": (200, {"method": "OPTIONS"}),
    "HEAD": (200, {"method": "HEAD"}),
    "a method that the view doesn't take": (400, {"method": "DELETE"}),
    "a slash too much": (404, {"path": "/uploads/"}),
    "a static file": (200, {"path": "/static/app.css"}),
    "no such static file": (404, {"path": "/static/none.css"}),
    "a body that is too large": (400, {"method": "POST", "environ_overrides": {"CONTENT_LENGTH": "99999999999"}}),
    "a body of no type": (400, {"method": "POST", "data": b"x", "content_type": "text/x-what"}),
    "no CSRF token": (400, {"method": "POST", "path": "/uploads"}),
    "cookies that make no sense": (200, {"headers": {"Cookie": "\x00;;=;; __Host-session=a.b.c; a"}}),
    "a WebSocket from elsewhere": (400, {"headers": {"Upgrade": "websocket", "Origin": "https://evil.example"}}),
    "a url_value_preprocessor": (403, {"query_string": "refused"}),
}


@pytest.mark.parametrize("what", AT_THE_DOOR)
def test_8_T4_what_is_refused_at_the_door_counts_too(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(rate_limits, "STATIC_LIMIT", "1 per minute")
    monkeypatch.setitem(LIMITS, "upload", "1 per minute")
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})
    app.url_value_preprocessor(refused_by_a_preprocessor)
    status, how = AT_THE_DOOR[what]
    sent = {"path": "/", "base_url": ORIGIN, **how}
    answers = [app.test_client().open(**sent, buffered=True) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [status, 429, 429, 429]
    # What Flask-Limiter counted before the refusal says so. Flask runs preprocessors before all hooks.
    assert ("RateLimit-Limit" in answers[0].headers) is (what != "a url_value_preprocessor")


# 8.T2 Denial of service, and the limits of every route


@dataclass
class Costs:
    """What requests have cost: counted, not timed."""

    storage: int = 0
    sessions: int = 0
    pages: int = 0
    lines: int = 0


@contextmanager
def costs_of(app: Flask, caplog: pytest.LogCaptureFixture) -> Iterator[Costs]:
    """Count what the requests within the block cost."""
    costs, before = Costs(), len(caplog.records)

    def spy(owner: object, method: str) -> mock.Mock:
        return stack.enter_context(mock.patch.object(owner, method, side_effect=getattr(owner, method)))

    with ExitStack() as stack:
        asked = [spy(storage(), method) for method in ("incr", "get", "get_own", "get_expiry")]
        opened = [spy(app.session_interface, method) for method in ("open_session", "save_session")]
        rendered = mock.Mock()
        stack.enter_context(before_render_template.connected_to(rendered, app))
        yield costs
        costs.storage, costs.sessions = (sum(each.call_count for each in spies) for spies in (asked, opened))
    costs.pages, costs.lines = rendered.call_count, len(caplog.records) - before


def test_8_T2_a_client_over_its_limit_costs_next_to_nothing(
    app_config: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "5 per minute"})
    client = at(app, HOME)
    assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    with costs_of(app, caplog) as first:
        assert client.get("/").status_code == 429
    assert (first.pages, first.lines) == (1, 1)
    with costs_of(app, caplog) as costs:
        client = at(app, HOME)
        answers = [client.get("/").status_code for _ in range(20)]
    assert answers == [429] * 20
    assert costs == Costs()
    with costs_of(app, caplog) as costs:  # cookies of no session at all, a new one each time
        for number in range(20):
            forged = at(app, HOME)
            forged.set_cookie("__Host-session", f"a.b.{number}", domain="localhost", secure=True)
            assert forged.get("/").status_code == 429
    assert costs == Costs(sessions=20)


def test_8_T2_the_short_refusal_is_as_clear_as_the_first(
    app_config: dict[str, object], clock: time_machine.Coordinates
) -> None:
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})
    client = at(app, HOME)
    client.get("/")
    first, page = (client.get("/", headers={"Accept": "text/html"}) for _ in range(2))
    clock.shift(20)
    later = client.get("/", headers={"Accept": "text/html"})
    problem = client.get("/", headers={"Accept": "application/json"})
    head = client.head("/")
    for answer in (first, page, later, problem, head):
        assert answer.status_code == 429
        seconds = "60" if answer in (first, page) else "40"
        assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"] == seconds
        assert answer.headers["RateLimit-Remaining"] == "0"
        assert {**HEADERS, **answer.headers} == dict(answer.headers)
        assert len(answer.headers["X-Request-ID"]) == 32
    assert "Wait 40 seconds" in later.text
    assert later.headers["X-Request-ID"] in later.text
    assert problem.content_type == "application/problem+json"
    assert problem.get_json()["status"] == 429
    assert problem.get_json()["request_id"] == problem.headers["X-Request-ID"]
    assert head.data == b""
    assert client.get("/no/such/page").status_code == 404  # which has a limit of its own
    assert at(app, ELSEWHERE).get("/").status_code == 200
    clock.shift(40)
    assert client.get("/").status_code == 200


def test_8_T2_refusals_are_kept_in_bounded_memory(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 10)
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})
    for _, address in zip(range(40), addresses(), strict=False):
        assert [at(app, address).get("/").status_code for _ in range(3)] == [200, 429, 429]
    assert len(app.extensions["refusals"]) <= 10


def at(app: Flask, address: str) -> FlaskClient:
    client = browser_like(app)
    client.environ_base["REMOTE_ADDR"] = address
    return client


def routes(app: Flask) -> dict[str, tuple[str, str]]:
    """A path and a method for each endpoint, that of no endpoint included."""
    found = {rule.endpoint: (address_of(app, rule), rule.methods or {"GET"}) for rule in app.url_map.iter_rules()}
    return {"no route": ("/no/such/page", "GET")} | {
        endpoint: (path, "GET" if "GET" in methods else min(methods - {"OPTIONS"}))
        for endpoint, (path, methods) in found.items()
    }


def test_8_S3_every_route_has_a_limit_but_the_documented_exemptions(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "STATIC_LIMIT", "1 per minute")
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})
    unlimited = set()
    for number, (endpoint, (path, method)) in enumerate(routes(app).items()):
        client, declared = at(app, f"192.0.2.{number}"), declared_by(app, endpoint, method, KIND)
        if declared in LIMITS:  # a kind does not count GET
            declared = None if method == "GET" else LIMITS[declared]
        amount = parse_many(declared)[0].amount if declared else 1
        for expected in [False] * amount + [True]:
            with client.open(path, method=method) as answer:
                if (answer.status_code == 429) is not expected:
                    unlimited.add(endpoint)
    reasons = {endpoint: declared_by(app, endpoint, "GET", rate_limits.UNLIMITED) for endpoint in app.view_functions}
    assert unlimited == {endpoint for endpoint, reason in reasons.items() if reason}
    assert "health.healthz" in unlimited


def test_8_S3_forms_have_stricter_limits_and_count_without_a_token_too(app: Flask) -> None:
    default = parse_many(app.config["RATELIMIT_DEFAULT"])[0].amount
    kinds = {endpoint: declared_by(app, endpoint, "POST", KIND) for endpoint in app.view_functions}
    assert {"upload", "csp_report"} <= set(kinds.values())
    for number, (endpoint, kind) in enumerate(kinds.items()):
        if kind in LIMITS:
            amount = parse_many(LIMITS[kind])[0].amount
            assert amount < default, kind
            client, path = at(app, f"192.0.2.{number}"), routes(app)[endpoint][0]
            answers = [client.post(path).status_code for _ in range(amount + 1)]
            assert 429 not in answers[:-1], path
            assert answers[-1] == 429, path
            assert client.get(path).status_code != 429  # the page with the form still shows


class Door(MethodView):
    """A view of a class."""

    def post(self) -> str:
        return "in"


class LimitedDoor(Door):
    """The whole class is limited."""


class Handler:
    """A view that is an object, all of whose kind are limited."""

    def __call__(self) -> str:
        return "in"


limited("sign_in")(LimitedDoor)
limited("sign_in")(Handler)


class LimitedMethod(Door):
    @limited("sign_in")
    def post(self) -> str:
        return "in"


class Child(LimitedDoor):
    """Restrictions are inherited, unlike exemptions."""


class Overriding(LimitedMethod):
    def post(self) -> str:
        return super().post()


@pytest.mark.parametrize(
    "view",
    [
        limited("sign_in")(lambda: "in"),
        limited("sign_in")(partial(lambda: "in")),
        Handler(),
        *(each.as_view("door") for each in (LimitedDoor, LimitedMethod, Child, Overriding)),
    ],
    ids=["function", "partial", "object", "class", "method", "subclass", "overridden method"],
)
def test_8_S3_a_stricter_limit_holds_whatever_the_view_is(app: Flask, view: Any) -> None:
    app.add_url_rule("/tested-door", "door", public(view), methods=["POST"])
    answer = at(app, HOME).post("/tested-door")
    assert answer.headers["RateLimit-Limit"] == str(parse_many(LIMITS["sign_in"])[0].amount)


@pytest.mark.parametrize("limit", ["sign-in", "", "10", "ten per minute", "10 per year of the dog", "0 per minute"])
def test_8_S3_a_misspelt_limit_is_an_error(limit: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        limited(limit)
    with pytest.raises(ValueError, match="reason"):
        without_limit(" ")


class Search(MethodView):
    """A view whose methods have limits of their own."""

    @limited("2 per minute; 3 per hour")
    def get(self) -> str:
        return "found"

    @limited("1 per minute")
    def post(self) -> str:
        return "found"


def test_8_S3_a_limit_written_on_a_view_counts_every_request_of_it(app: Flask, clock: time_machine.Coordinates) -> None:
    search = public(limited("2 per minute; 3 per hour")(partial(lambda: "found")))
    app.add_url_rule("/tested-search", "search", search, methods=["GET", "POST"])
    app.add_url_rule("/tested-lookup", "lookup", search)
    app.add_url_rule("/tested-find", "find", public(Search.as_view("find")))
    client = at(app, HOME)
    answers = [client.get("/tested-search"), client.post("/tested-search"), client.get("/tested-search")]
    assert [answer.status_code for answer in answers] == [200, 400, 429]  # a POST without a token counts too
    told = [(answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) for answer in answers]
    assert told == [("2", "1"), ("2", "0"), ("2", "0")]
    assert [client.get("/tested-lookup").status_code for _ in range(3)] == [200, 200, 429]  # a view of its own
    assert client.get("/").status_code == 200
    assert at(app, ELSEWHERE).get("/tested-search").status_code == 200
    clock.shift(61)
    # The third and the fourth of this hour.
    assert [client.get("/tested-search").status_code for _ in range(2)] == [200, 429]
    assert [client.get("/tested-find").status_code for _ in range(3)] == [200, 200, 429]
    assert client.post("/tested-find").headers["RateLimit-Limit"] == "1"


def test_8_S3_a_view_that_is_named_static_has_the_limit_of_a_view(app: Flask) -> None:
    app.config["RATELIMIT_DEFAULT"] = "2 per minute"
    tested = Blueprint("tested", __name__)
    tested.add_url_rule("/tested-statistics", "static", public(partial(lambda: "shown")))
    app.register_blueprint(tested)
    client = at(app, HOME)
    assert [client.get("/tested-statistics").status_code for _ in range(3)] == [200, 200, 429]


def test_8_S3_a_limit_written_on_a_blueprint_holds_for_each_of_its_views(app: Flask) -> None:
    tested = limited("2 per minute")(Blueprint("tested", __name__))
    for name in ("cart", "order"):
        tested.add_url_rule(f"/tested-{name}", name, public(partial(lambda: "shown")))
    app.register_blueprint(tested)
    client = at(app, HOME)
    for path in ("/tested-cart", "/tested-order"):
        assert [client.get(path).status_code for _ in range(3)] == [200, 200, 429]


def test_8_S2_a_limit_written_on_a_view_counts_by_account(app: Flask) -> None:
    app.add_url_rule("/tested-search", "search", public(limited("1 per minute")(partial(lambda: "found"))))
    one, other = new_member(app, "one@example.com"), new_member(app, "other@example.com")
    answers = [visitor.get("/tested-search").status_code for visitor in (one, other, one, other)]
    assert answers == ([200, 200, 429, 429] if HAS_ACCOUNTS else [200, 429, 429, 429])


def test_8_S3_the_default_stops_a_flood(app: Flask) -> None:
    client = browser_like(app)
    answers = [client.get("/.well-known/security.txt").status_code for _ in range(125)]
    assert answers == [200] * 120 + [429] * 5


def ask(server: Server, path: str, source: str) -> int:
    """Send one request from an address of this machine."""
    connection = http.client.HTTPSConnection(
        "localhost", server.port, context=server.tls, timeout=10, source_address=(source, 0)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_8_T2_a_flood_from_one_client_leaves_another_served(serve: Callable[..., Server]) -> None:
    server = serve()
    with ThreadPoolExecutor(4) as pool:
        flood = pool.map(lambda _: ask(server, "/", "127.0.0.2"), range(240))
        others = [ask(server, "/", "127.0.0.3") for _ in range(20)]
        answers = list(flood)
    assert others == [200] * 20
    assert answers.count(200) == 120
    assert answers.count(429) == 120


# 8.S2 Whose request it is. RFC 5737 and 3849 addresses; the mapped one is RFC 4291, 2.5.5.2.
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:203.0.113.1", "203.0.113.1", True),
        ("::ffff:203.0.113.1", "::ffff:203.0.113.2", False),
        ("203.0.113.1:4711", "203.0.113.1", True),
        ("[2001:db8::1]:443", "2001:db8::2", True),
        ("203.0.113.1:4711", "203.0.113.2:4711", False),
        # NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo (RFC 4380, which inverts the bits) hold 203.0.113.1 or .2.
        ("64:ff9b::203.0.113.1", "203.0.113.1", True),
        ("64:ff9b::203.0.113.1", "64:ff9b::203.0.113.2", False),
        ("2002:cb00:7101:1::1", "2002:cb00:7101:2::1", True),
        ("2002:cb00:7101::1", "203.0.113.1", True),
        ("2002:cb00:7101::1", "2002:cb00:7102::1", False),
        ("2001:0:c633:6401:0:1:34ff:8efe", "203.0.113.1", True),
        ("2001:0:c633:6401:0:1:34ff:8efe", "2001:0:c633:6401:0:2:34ff:8efd", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "nonsense", True),
    ],
)
def test_8_S2_an_address_has_one_budget(app_config: dict[str, object], first: str, second: str, same: bool) -> None:
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})
    assert at(app, first).get("/").status_code == 200
    assert (at(app, second).get("/").status_code == 429) is same


@pytest.mark.parametrize(("hops", "believed"), [(0, False), (1, True)])
def test_8_S2_a_forwarded_address_counts_behind_a_trusted_proxy_only(
    app_config: dict[str, object], hops: int, believed: bool
) -> None:
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute", "TRUSTED_PROXY_HOPS": hops})
    answers = []
    for address in (HOME, ELSEWHERE):
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
        answers.append(browser_like(app).get("/", headers=headers).status_code)
    assert answers == [200, 200 if believed else 429]


@pytest.mark.parametrize(
    ("method", "addresses", "users", "same"),
    [
        ("GET", (HOME, ELSEWHERE), ("1", "1"), True),
        ("GET", (HOME, HOME), ("1", "2"), False),
        ("GET", (HOME, HOME), (None, "1"), False),
        # Signing in as somebody must not give new guesses at others.
        ("POST", (HOME, HOME), ("1", "2"), True),
    ],
)
def test_8_S2_a_signed_in_user_has_one_budget(
    app_config: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    addresses: tuple[str, str],
    users: tuple[str | None, str | None],
    same: bool,
) -> None:
    monkeypatch.setitem(LIMITS, "sign_in", "1 per minute")
    app = create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"})

    @app.route("/tested-view", methods=["GET", "POST"])
    @public
    @exempt("The tests of the limits need no token.")
    @limited("sign_in")
    def view() -> str:
        return "here"

    answers = []
    for address, user in zip(addresses, users, strict=True):
        monkeypatch.setattr(app.extensions["visitors"], "account_id", lambda user=user: user)
        answers.append(at(app, address).open("/tested-view", method=method).status_code)
    assert answers == [200, 429 if same else 200]


# 8.S5 What the client is told


def test_8_S5_headers_count_down(app_config: dict[str, object], clock: time_machine.Coordinates) -> None:
    client = browser_like(create_app(app_config | {"RATELIMIT_DEFAULT": "2 per minute"}))
    told = []
    for _ in range(3):
        answer = client.get("/")
        names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
        told.append((answer.status_code, *(answer.headers.get(name) for name in names)))
        clock.shift(10)
    assert told == [(200, "2", "1", "60", None), (200, "2", "0", "50", None), (429, "2", "0", "40", "40")]
    assert client.get("/no/such/page").headers.get("Retry-After") is None
    clock.shift(30)
    assert client.get("/").status_code == 200


def test_8_S5_a_client_over_its_limit_gets_its_answer_while_it_sends(serve: Callable[..., Server]) -> None:
    """A connection that is closed with a body in it is reset, and the client does not see why."""
    server = serve(RATELIMIT_DEFAULT="2 per minute")
    seen = []
    for _ in range(6):
        connection = http.client.HTTPSConnection("localhost", server.port, context=server.tls, timeout=PATIENCE)
        connection.request("POST", "/", body=b"a" * 10_000_000, headers={"Origin": ORIGIN})
        seen.append(connection.getresponse().status)
        connection.close()
    assert seen == [seen[0]] * 2 + [429] * 4


def test_8_S5_a_429_is_a_page_or_a_problem(app_config: dict[str, object], clock: time_machine.Coordinates) -> None:
    client = browser_like(create_app(app_config | {"RATELIMIT_DEFAULT": "1 per minute"}))
    client.get("/")
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 429
    assert 'data-retry-after="60"' in page.text
    problem = client.get("/", headers={"Accept": "application/json"})
    assert problem.content_type == "application/problem+json"
    assert problem.json is not None
    assert problem.json["status"] == 429


# 8.T4 Resource exhaustion


def test_8_T4_a_million_keys_in_bounded_memory() -> None:
    kept = counters.BoundedCounters(counters.MAX_KEYS)
    for number in range(1_000_000):
        kept.incr(f"LIMITER/2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64/pages.home/120/1/minute", 60)
    size = sys.getsizeof(kept._counters)
    for key, counter in kept._counters.items():
        size += sum(sys.getsizeof(part) for part in (key, counter, *counter))
    assert size < 64 * 2**20


def test_8_T4_a_flood_of_keys_washes_no_failures_away(
    unlimited: dict[str, object], monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    monkeypatch.setattr(counters, "MAX_KEYS", 50)
    monkeypatch.setattr(counters, "OVERFLOW_SLOTS", 1)  # all that finds no room shares one counter
    app = with_door(create_app(unlimited))
    wait = wall(app, clock)
    for number, address in zip(range(300), addresses(), strict=False):
        assert guess(app, f"user{number}@example.com", address)[0] in (401, 429)
    assert guess(app, password=RIGHT) == (429, wait)
    clock.shift(wait)
    assert guess(app, password=RIGHT)[0] == 200


def test_8_T4_a_flood_of_pages_leaves_room_for_sign_ins(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, clock: time_machine.Coordinates
) -> None:
    """A network with a /48 can make a key with each page and each /64 of it, which lives for an hour."""
    monkeypatch.setattr(counters, "MAX_KEYS", 50)
    monkeypatch.setattr(counters, "OVERFLOW_SLOTS", 1)
    app = with_door(create_app(app_config))
    flood = browser_like(app)
    for number in range(50):
        flood.environ_base["REMOTE_ADDR"] = f"2001:db8:1:{number:x}::1"
        flood.get("/robots.txt")
    assert len(storage().pages.keys()) == 51
    assert guess(app, password=RIGHT)[0] == 200


def test_8_T4_what_shares_its_place_in_a_full_memory_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "OVERFLOW_SLOTS", 1)
    kept = counters.BoundedCounters(max_keys=0)
    kept.incr("one", 60)
    kept.incr("another in the same place", 10**6, renew=True)
    assert kept.get_expiry("one") - time.time() <= 60


def test_8_T4_a_full_memory_keeps_the_gate_shut(clock: time_machine.Coordinates) -> None:
    kept = counters.BoundedCounters(max_keys=100)
    for _ in range(5):
        kept.incr("victim", 60)
    for number in range(100_000):
        kept.incr(f"flood {number}", 3600)
    assert kept.incr("victim", 60) == 6
    # A new key counts as well, together with others, and is let in again when there is room.
    assert kept.incr("late", 60) < kept.incr("late", 60) < kept.incr("late", 60)
    clock.shift(3601)
    assert kept.incr("late", 60) == 1


# What a form may not be: bytes, and parts of a multipart body (Flask's MAX_FORM_PARTS, 1000).
@pytest.mark.parametrize("body", ["large", "many parts"])
def test_8_T4_a_body_that_is_too_much_is_cut(member: FlaskClient, body: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    data = part * 10_000 + b"--b--\r\n" if body == "many parts" else b"x" * (10 * 2**20 + 1)
    answer = member.post("/uploads", data=data, content_type="multipart/form-data; boundary=b")
    assert answer.status_code == 413


# What a slow client sends first. The body is asked for (100) as soon as the head has been taken in.
SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
SLOW_BODY = (
    b"POST /csp-reports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/csp-report\r\n"
    b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
)
PATIENCE = 30  # seconds of a read; nginx would wait for 60 unless told otherwise


@pytest.mark.parametrize("part", [SLOW_HEAD, SLOW_BODY], ids=["head", "body"])
def test_8_T4_slow_requests_are_cut_and_leave_others_served(serve_proxied: Callable[..., Server], part: bytes) -> None:
    """One byte at a time, from twenty addresses, while gunicorn has two threads: none of them is held."""
    server = serve_proxied(THREADS=2, RATELIMIT_DEFAULT=UNLIMITED)
    slow: list[ssl.SSLSocket] = []
    with ExitStack() as stack:
        for number in (32, 200):
            while len(slow) < number:
                slow.append(stack.enter_context(server.raw(f"127.0.0.{10 + len(slow) % 20}")))
                slow[-1].sendall(part)
                if part == SLOW_BODY:
                    assert slow[-1].recv(4096).startswith(b"HTTP/1.1 100 ")
            for _ in range(3):
                for connection in slow:
                    with suppress(OSError):  # it is cut already
                        connection.sendall(b"a")
                assert ask(server, "/", "127.0.0.3") == 200
        for connection in slow:
            connection.settimeout(PATIENCE)
            with suppress(ssl.SSLError, ConnectionError):  # but no TimeoutError
                while connection.recv(4096):
                    pass


def test_8_T4_half_a_handshake_is_cut_and_leaves_others_served(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied(THREADS=2, RATELIMIT_DEFAULT=UNLIMITED)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(200)]
        for connection in slow:
            connection.sendall(b"\x16")  # the first byte of a TLS handshake
        assert ask(server, "/", "127.0.0.3") == 200
        for connection in slow:
            with suppress(ConnectionError):  # but no TimeoutError
                assert connection.recv(4096) == b""


def test_8_T4_one_client_has_a_bounded_number_of_requests_under_way(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied()
    answer = b""
    with ExitStack() as stack:
        for _ in range(500):
            connection = stack.enter_context(server.raw("127.0.0.2"))
            connection.sendall(SLOW_BODY)
            answer = connection.recv(4096)
            if not answer.startswith(b"HTTP/1.1 100 "):
                break
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert ask(server, "/", "127.0.0.3") == 200


def test_8_T2_connections_that_nobody_hangs_up_leave_others_served(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied(THREADS=2, RATELIMIT_DEFAULT=UNLIMITED)
    with ExitStack() as stack:
        for _ in range(32):
            connection = stack.enter_context(server.raw())
            connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert [ask(server, "/", "127.0.0.3") for _ in range(5)] == [200] * 5


def test_8_T2_clients_that_read_nothing_leave_others_served(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied("tests.streams:app", THREADS=2, RATELIMIT_DEFAULT=UNLIMITED)
    with ExitStack() as stack:
        for number in range(4):
            connection = stack.enter_context(server.raw(f"127.0.0.{10 + number}"))
            connection.sendall(b"GET /tested-large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert [ask(server, "/", "127.0.0.3") for _ in range(5)] == [200] * 5


def test_8_T2_an_open_stream_leaves_others_served(serve_proxied: Callable[..., Server], tmp_path: Path) -> None:
    """Each event comes when it is sent."""
    go_on = tmp_path / "go-on"
    server = serve_proxied("tests.streams:app", STREAM=go_on)
    stream = http.client.HTTPSConnection("localhost", server.port, context=server.tls, timeout=PATIENCE)
    try:
        stream.request("GET", "/tested-events")
        answer = stream.getresponse()
        assert answer.readline() == b"data: first\n"
        assert ask(server, "/", "127.0.0.3") == 200
        go_on.touch()
        assert answer.read() == b"\ndata: last\n\n"
    finally:
        go_on.touch()
        stream.close()


def test_no_other_protocol_than_a_websocket_gets_through_the_proxy(serve_proxied: Callable[..., Server]) -> None:
    """Through an "Upgrade: h2c" that gunicorn took, requests would come past all that the proxy does."""
    server = serve_proxied("tests.streams:app")
    _, _, told = server.request("/tested-upgrade", headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"})
    assert json.loads(told)["Upgrade"] is None


def test_8_S2_the_proxy_overwrites_what_a_client_says_of_itself(serve_proxied: Callable[..., Server]) -> None:
    server = serve_proxied(RATELIMIT_DEFAULT="3 per minute")
    forged = [server.request("/", headers={"X-Forwarded-For": f"203.0.113.{number}"})[0] for number in range(4)]
    assert forged == [200, 200, 200, 429]
    assert ask(server, "/", "127.0.0.3") == 200


# The storage


class Redis:
    """A Redis of our own on loopback; nothing of its data is kept on disk. ``options`` are more of its settings."""

    def __init__(self, directory: Path, *options: str) -> None:
        binary = PROGRAMS["redis"].path()
        assert binary is not None
        self.port = next(port for port in iter(free_port, None) if port < 55_536)  # a cluster also needs port + 10,000
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory))
        self.command = [binary, *options, *own]
        self.address = f"127.0.0.1:{self.port}"
        self.uri = f"redis://{self.address}/0"
        self.client = RedisClient(port=self.port, retry=Retry(NoBackoff(), 0))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until(self.client.ping)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def until(ask: Callable[[], object]) -> None:
    """Wait until a Redis says yes."""
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        with suppress(RedisError):
            if ask():
                return
        time.sleep(0.02)
    raise AssertionError("Redis never said yes.")


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path, *getattr(request, "param", ()))
    yield server
    server.kill()


def test_8_T1_parallel_guesses_are_counted_in_redis_too(unlimited: dict[str, object], redis: Redis) -> None:
    app = with_door(create_app(unlimited | {"RATELIMIT_STORAGE_URI": redis.uri}))
    source = addresses()
    with app.app_context():
        # The first wait takes 64 seconds: Redis has its own clock, and a busy machine may need seconds for the guesses.
        limiter.storage.incr(f"account/{digest(VICTIM)}/step", DAY, 6)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda address: guess(app, address=address)[0], [next(source) for _ in range(48)]))
    assert answers.count(401) == 3


def test_8_S4_waits_end_on_time_in_redis(unlimited: dict[str, object], redis: Redis) -> None:
    app = with_door(create_app(unlimited | {"RATELIMIT_STORAGE_URI": redis.uri}))
    for _ in range(3):
        guess(app)
    for wait in (1, 2):
        status, told = guess(app)
        assert (status, told) == (429, wait)
        time.sleep(told)
        assert guess(app)[0] == 401
    assert guess(app, password=RIGHT)[0] == 429


# What a rotation does to the keys, step by step, and a second one before the first key is pruned.
SECOND, THIRD = "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R", "Zx3vQ8LmPk2TyRb7WnJd5GhCs9FaKe4U"
ROTATION = [
    {"SECRET_KEY_NEXT": SECOND},
    {"SECRET_KEY": SECOND, "SECRET_KEY_FALLBACKS": KEY},
    {"SECRET_KEY": SECOND, "SECRET_KEY_FALLBACKS": KEY, "SECRET_KEY_NEXT": THIRD},
    {"SECRET_KEY": THIRD, "SECRET_KEY_FALLBACKS": f"{SECOND},{KEY}"},
]


@pytest.mark.parametrize("keys", ROTATION)
def test_8_T1_a_rotation_of_the_key_gives_no_new_guesses(
    unlimited: dict[str, object], redis: Redis, keys: dict[str, object]
) -> None:
    """Each machine has its own state of the rotation, and all share the counters."""
    left, source = [], addresses()
    for changed in ({}, {}, keys):
        client = browser_like(with_door(create_app(unlimited | {"RATELIMIT_STORAGE_URI": redis.uri} | changed)))
        client.environ_base["REMOTE_ADDR"] = next(source)
        left.append(client.post("/tested-door", data={"account": VICTIM, "password": WRONG}).text)
    assert left == ["2", "1", "0"]


def test_two_workers_share_their_counters(app_config: dict[str, object], redis: Redis) -> None:
    one, two = (counters.GuardedStorage(counters_uri=redis.uri) for _ in range(2))
    assert [one.incr("key", 60), two.incr("key", 60), one.incr("key", 60)] == [1, 2, 3]
    two.clear("key")
    assert one.get("key") == 0


def test_8_T1_guesses_that_are_given_back_twice_are_not_free_ones(redis: Redis) -> None:
    """Several requests with the right password may give the same guesses back at the same time."""
    for storage in (counters.GuardedStorage(counters_uri=redis.uri), counters.GuardedStorage(counters_uri="memory://")):
        assert [storage.incr("key", 60, amount) for amount in (2, -2, -2, 1)] == [2, 0, 0, 1]


def test_a_counter_is_renewed_only_if_it_is_to_be(redis: Redis) -> None:
    """It keeps its value meanwhile: an address that knew an old password must not be known for a moment."""
    for storage in (counters.GuardedStorage(counters_uri=redis.uri), counters.GuardedStorage(counters_uri="memory://")):
        assert [storage.incr("key", seconds, 1) for seconds in (100, 1000)] == [1, 2]
        assert storage.get_expiry("key") - time.time() <= 100
        assert storage.incr("key", 1000, 0, renew=True) == 2
        assert storage.get_expiry("key") - time.time() > 900


@pytest.mark.fault(
    "Redis",
    "is down, with several workers",
    sees="each worker has its own limits and guesses, less what it has already counted",
    ends=BACK_WITHIN,
)
def test_8_T1_without_redis_each_worker_goes_on_from_what_it_has_seen(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    one, two = (counters.GuardedStorage(counters_uri=redis.uri) for _ in range(2))
    assert [one.incr("key", 60), two.incr("key", 60), one.incr("key", 60)] == [1, 2, 3]
    redis.kill()
    assert [worker.incr("key", 60) for worker in (one, two)] == [4, 3]
    assert [worker.incr("new", 60) for worker in (one, two)] == [1, 1]
    redis.start()
    assert [worker.incr("new", 60) for worker in (one, two)] == [2, 3]


@pytest.mark.fault(
    "Redis", "is down", sees="nothing: each worker counts for itself, from the last counts on", ends=BACK_WITHIN
)
def test_8_T1_the_loss_of_redis_neither_fails_nor_opens_the_gate(
    app_config: dict[str, object], redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    app = with_door(create_app(app_config | {"RATELIMIT_DEFAULT": "4 per minute", "RATELIMIT_STORAGE_URI": redis.uri}))
    client = browser_like(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    assert [guess(app)[0] for _ in range(2)] == [401, 401]
    redis.kill()
    assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    assert [guess(app)[0] for _ in range(2)] == [401, 429]
    redis.start()  # it has forgotten everything
    assert client.get("/").status_code == 429
    assert guess(app, password=RIGHT)[0] == 429
    assert storage().shared.get("LIMITER/127.0.0.1/pages.home default/4/1/minute") > 4  # type: ignore[union-attr]
    messages = [record.message for record in caplog.records if record.name == "app.security.counters"]
    assert ["lost" in message for message in messages] == [True, False]


@pytest.mark.fault("Redis", "refuses to count", sees="nothing, as if it were down", ends=BACK_WITHIN)
@pytest.mark.parametrize(
    ("broken", "mended"),
    [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")],
)
def test_8_T1_a_redis_that_refuses_to_count_is_as_good_as_lost(
    app_config: dict[str, object],
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
    mended: str,
) -> None:
    """Full, or a replica since the last failover: it still answers a PING."""
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)  # each request tries whether it is back
    token = "7f3a9c51e0b84d26a1c97e35f60d8b42"
    settings = {"RATELIMIT_DEFAULT": "6 per minute", "RATELIMIT_STORAGE_URI": redis.uri, "READYZ_TOKEN": token}
    app = with_door(create_app(app_config | settings))
    client = browser_like(app)

    def readyz() -> tuple[int, str]:
        answer = client.get("/readyz", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json["parts"]["rate_limits"]

    assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    assert [guess(app)[0] for _ in range(2)] == [401, 401]
    assert readyz() == (200, "ok")
    redis.client.execute_command(*broken.split())
    assert [readyz() for _ in range(3)] == [(200, "degraded")] * 3
    assert [client.get("/").status_code for _ in range(5)] == [200] * 4 + [429]
    assert [guess(app)[0] for _ in range(2)] == [401, 429]
    redis.client.execute_command(*mended.split())
    assert readyz() == (200, "ok")
    assert guess(app, password=RIGHT)[0] == 429
    told = [record.message for record in caplog.records if re.search("Redis|rate_limits", record.message)]
    assert ["lost" in message for message in told] == [True, False], told


def test_8_T1_counting_goes_on_where_sentinel_finds_the_new_master(
    app_config: dict[str, object], redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"sentinel monitor counts 127.0.0.1 {redis.port} 1\nsentinel down-after-milliseconds counts 300\n")
    redis.client.config_set("repl-diskless-sync-delay", 0)
    with ExitStack() as stack:
        replica = Redis(tmp_path, "--replicaof", "127.0.0.1", str(redis.port))
        stack.callback(replica.kill)
        until(lambda: replica.client.info()["master_link_status"] == "up")
        sentinel = Redis(tmp_path, str(conf), "--sentinel")
        stack.callback(sentinel.kill)
        until(lambda: sentinel.client.sentinel_slaves("counts"))
        uri = f"redis+sentinel://127.0.0.1:1,{sentinel.address}/counts"
        limits = {"RATELIMIT_DEFAULT": "4 per minute", "RATELIMIT_STORAGE_URI": uri}
        client = browser_like(create_app(app_config | limits))
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]
        assert storage().check()
        redis.kill()
        assert client.get("/").status_code == 200
        assert not storage().check()
        until(lambda: sentinel.client.sentinel_masters()["counts"]["port"] == replica.port)
        assert [client.get("/").status_code for _ in range(2)] == [200, 429]
        assert storage().check()
        assert browser_like(create_app(app_config | limits)).get("/").status_code == 429  # another worker


@pytest.mark.parametrize("redis", [("--cluster-enabled", "yes")], indirect=True)
def test_8_T1_a_cluster_counts(app_config: dict[str, object], redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "REDIS_RETRY", 0)
    redis.client.config_set("requirepass", "p@ss")
    uri = f"redis+cluster://:p%40ss@127.0.0.1:1,{redis.address}"
    limits = {"RATELIMIT_DEFAULT": "4 per minute", "RATELIMIT_STORAGE_URI": uri}
    client = browser_like(create_app(app_config | limits))
    assert client.get("/").status_code == 200
    assert not storage().check()  # the cluster still has no slots
    redis.client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
    until(lambda: redis.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    assert [client.get("/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert storage().check()
    other = browser_like(create_app(app_config | limits))  # another worker
    assert other.get("/").status_code == 429
    assert storage().check()
    redis.kill()
    assert other.get("/readyz").status_code == 200
    assert not storage().check()


def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions to Redis from now on."""
    shared, asked = storage().shared, []
    assert shared
    for method in ("count", "get", "get_expiry"):
        ask = getattr(shared, method)
        monkeypatch.setattr(shared, method, lambda *args, ask=ask, method=method: asked.append(method) or ask(*args))
    return asked


def test_a_request_asks_redis_once_for_each_window(
    app_config: dict[str, object], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"RATELIMIT_STORAGE_URI": redis.uri, "RATELIMIT_DEFAULT": "5 per minute; 50 per hour; 500 per day"}
    client = browser_like(create_app(app_config | limits))
    asked = questions(monkeypatch)
    assert client.get("/").headers["RateLimit-Remaining"] == "4"
    assert asked == ["count"] * 3


def test_a_new_worker_knows_when_a_window_ends_that_another_has_begun(
    app_config: dict[str, object], redis: Redis
) -> None:
    limits = {"RATELIMIT_STORAGE_URI": redis.uri, "RATELIMIT_DEFAULT": "5 per minute"}
    assert browser_like(create_app(app_config | limits)).get("/").headers["RateLimit-Remaining"] == "4"
    for key in redis.client.scan_iter():
        redis.client.expire(key, 20)  # as if 40 seconds had passed
    answer = browser_like(create_app(app_config | limits)).get("/")
    assert answer.headers["RateLimit-Remaining"] == "3"
    assert 1 <= int(answer.headers["RateLimit-Reset"]) <= 20


@pytest.mark.fault(
    "Redis", "hangs", sees=f"one response is late by {shared_counters.TIMEOUT} seconds, then nothing", ends=BACK_WITHIN
)
def test_a_hung_redis_is_asked_once(
    app_config: dict[str, object], redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request that asked it would wait for its timeout."""
    client = browser_like(create_app(app_config | {"RATELIMIT_STORAGE_URI": redis.uri}))
    assert client.get("/").status_code == 200
    asked = questions(monkeypatch)
    redis.process.send_signal(signal.SIGSTOP)
    assert [client.get("/").status_code for _ in range(5)] == [200] * 5
    assert len(asked) == 1
    redis.process.send_signal(signal.SIGCONT)
    later = time.monotonic() + counters.REDIS_RETRY
    monkeypatch.setattr(counters.time, "monotonic", lambda: later)
    assert client.get("/").status_code == 200
    assert "Redis is back" in caplog.text


@pytest.mark.parametrize("uri", ["redis://{}/0", "redis+sentinel://{}/counts", "redis+cluster://{}"])
def test_the_app_starts_without_its_redis(app_config: dict[str, object], uri: str) -> None:
    app = create_app(app_config | {"RATELIMIT_STORAGE_URI": uri.format(f"127.0.0.1:{free_port()}")})
    assert browser_like(app).get("/").status_code == 200


# Facts of the deployment


@pytest.mark.parametrize(
    ("workers", "storage", "found"),
    [("1", "memory://", []), ("4", "memory://", [("RL02", "missing")]), ("4", "redis://127.0.0.1:1/0", [])],
)
def test_workers_that_count_alone_are_a_finding(
    app_config: dict[str, object], monkeypatch: pytest.MonkeyPatch, workers: str, storage: str, found: list[object]
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    app = create_app(app_config | {"RATELIMIT_STORAGE_URI": storage})
    assert [(fact.id, fact.severity) for fact in rate_limits.check(app)] == found
