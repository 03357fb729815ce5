"""Mails: what the page promises arrives, whatever others request, and whatever fails meanwhile."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import smtplib
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
import trustme
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.accounts import identity, mail
from app.accounts.models import Mail, db
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, register, registered, sign_in
from tests.accounts.smtp import MailServer
from tests.conftest import TOKEN, Server, browser_like, post
from tests.test_05_errors import capture_log
from tests.test_kills import KILLS, kill

ALICE = "alice@example.com"
NOBODY = "nobody@example.com"
PEOPLE = [f"person{number}@example.com" for number in range(40)]
ON_ITS_WAY = "a link is on its way"


def file_of(app_config: dict[str, object]) -> str:
    return str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")


def waiting(app: Flask) -> list[Mail]:
    with app.app_context():
        return list(db.session.scalars(sa.select(Mail).order_by(Mail.id)))


def ask(app: Flask, email: str, source: str = "127.0.0.1") -> str:
    """Request a link for a new password; give what the page says then."""
    visitor = browser_like(app)
    visitor.environ_base["REMOTE_ADDR"] = source
    assert post(visitor, "/reset", {"email": email}).status_code == 303
    return visitor.get("/login").text


@pytest.fixture
def smtp() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread sends mails: the test does it."""
    monkeypatch.setattr(mail.Postman, "wake", lambda _, response=None: response)


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch, still: None) -> list[str]:
    """A mail server that refuses everything; the list grows with each try."""
    tries: list[str] = []

    def refuse(app: Flask, message: Any) -> None:
        tries.append(message["To"])
        raise smtplib.SMTPServerDisconnected

    monkeypatch.setattr(mail, "_deliver", refuse)
    return tries


def test_mails_to_nobody_take_no_room(app: Flask, mailbox: Mailbox, still: None) -> None:
    """100 requests for addresses without an account, within the limits, then one for Alice."""
    register(browser_like(app))
    for number in range(100):
        ask(app, f"nobody{number}@example.com", f"198.51.100.{number // 5}")
    assert ON_ITS_WAY in ask(app, ALICE)
    assert [entry.recipient for entry in waiting(app)] == [ALICE, ALICE]
    mail.send_next(app)
    assert "/reset/" in mailbox.next(ALICE)


def test_a_mail_that_is_written_while_the_thread_ends_is_sent(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread finds no mail. Before it has ended, a request writes one."""
    postman, looks = app.extensions["postman"], []

    def find_nothing(_: Flask) -> None:
        looks.append(time.monotonic())
        if len(looks) == 1:
            postman.wake()

    monkeypatch.setattr(mail, "send_next", find_nothing)
    postman.wake()
    patience = time.monotonic() + 5
    while len(looks) < 2 and time.monotonic() < patience:
        time.sleep(0.01)
    assert len(looks) == 2


def test_a_link_for_a_new_password_overtakes_other_mails(app: Flask, down: list[str]) -> None:
    for email in (ALICE, *PEOPLE[:4]):
        register(browser_like(app), email)
    with app.app_context():
        db.session.execute(sa.update(Mail).values(due_at=mail.utcnow() - timedelta(minutes=1)))
        db.session.commit()
    ask(app, ALICE)
    mail.send_next(app)
    with app.app_context():
        assert [entry.needs_token for entry in waiting(app) if entry.tries] == [True]


def test_5_T2_a_request_writes_as_much_for_nobody(app: Flask, still: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of it is the mail server's work, which the thread does later for who exists."""
    monkeypatch.setattr(mail, "PAUSE", (1, 1))
    register(browser_like(app))
    written: list[str] = []
    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", lambda *call: written.append(call[2].split()[0]))
        sa.event.listen(db.engine, "commit", lambda _: written.append("COMMIT"))
    seen = []
    for email in (ALICE, NOBODY):
        written.clear()
        ask(app, email)
        seen.append([{"UPDATE": "DELETE"}.get(verb, verb) for verb in written])  # both change one row
    assert seen[0] == seen[1]
    assert seen[0].count("INSERT") == seen[0].count("DELETE") == 1
    assert [entry.recipient for entry in waiting(app) if entry.needs_token] == [ALICE]


@pytest.mark.fault(
    "Mail server",
    "is down",
    sees="nothing: mails wait in the database",
    ends="deliveries are tried again for a day",
)
def test_a_failed_delivery_is_tried_again_later_and_later_for_a_day(
    app: Flask, down: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with time_machine.travel(time.time(), tick=False) as clock:
        register(browser_like(app))
        times, start = [], time.time()
        while (pause := mail.send_next(app)) is not None:
            times += [time.time() - start] if len(down) > len(times) else []
            clock.shift(pause)
    # Worked out by hand: after 0, 30, 30 + 60, 30 + 60 + 120 … seconds, then each hour.
    assert [round(seconds) for seconds in times[:10]] == [0, 30, 90, 210, 450, 930, 1890, 3810, 7410, 11010]
    assert all(round(later - sooner) == 3600 for sooner, later in pairwise(times[7:]))
    assert 82_800 <= times[-1] < 86_400
    assert waiting(app) == []
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == len(times)
    assert "given up" in errors[-1]
    assert not any("given up" in error for error in errors[:-1])


@pytest.mark.parametrize("said", ["421 too busy", "554 no", "no answer of SMTP", ""])
def test_what_the_server_has_taken_is_not_sent_again(
    app_config: dict[str, object], still: None, smtp: MailServer, said: str
) -> None:
    """Whatever it says to the QUIT after it."""
    smtp.says["QUIT"] = said
    app = create_app(app_config | smtp.settings)
    register(browser_like(app))
    assert mail.send_next(app) == 0
    assert smtp.recipients == [ALICE]
    assert waiting(app) == []


@pytest.mark.parametrize(
    "said",
    [
        {"RCPT": "550 5.1.1 <{recipient}>: user {recipient} is unknown"},
        {"RCPT": "550 5.1.1 no mailbox for ALICE here"},
        {".": "554 5.7.1 the mail to {recipient} has the link {link}"},
        {"RCPT": "550 5.1.1 <b\xfc.alice@example.com> is what alice@example.com leads to"},
    ],
)
def test_a_line_about_a_mail_has_its_kind_and_its_request_and_nothing_of_the_mail(
    app_config: dict[str, object], still: None, smtp: MailServer, said: dict[str, str]
) -> None:
    """The server repeats parts of the mail in its own spelling."""
    smtp.says = said
    app = create_app(app_config | smtp.settings | {"LOG_FORMAT": "json"})
    member = browser_like(app)
    asked = {"welcome": register(member)}
    sign_in(member)
    asked["reset_instructions"] = post(browser_like(app), "/reset", {"email": ALICE})
    asked["confirmation_instructions"] = post(member, "/account/confirm")
    log = capture_log()
    for _ in asked:
        mail.send_next(app)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    kinds = {re.findall(r"^Mail \d+ \((\w+)\) was not sent", line["message"])[0]: line["request_id"] for line in lines}
    assert kinds == {kind: answer.headers["X-Request-ID"] for kind, answer in asked.items()}
    for line in lines:
        assert re.search(r"5\.\d\.1", line["message"])
        assert [part for part in ("alice", "https:", "/reset/") if part in line["message"].lower()] == []


@pytest.mark.parametrize("said", [{}, {"RCPT": "550 no such user"}, {".": "451 later"}])
def test_5_T2_mails_that_fail_do_not_tell_who_has_an_account(
    app_config: dict[str, object], still: None, smtp: MailServer, said: dict[str, str]
) -> None:
    """Mails to nobody never fail. So no failure gives an address another link."""
    smtp.says = said
    app = create_app(app_config | smtp.settings)
    register(browser_like(app))
    mail.send_next(app)
    seen = []
    for email in (ALICE, NOBODY):
        seen.append([])
        for number in range(6):
            seen[-1].append(ON_ITS_WAY in ask(app, email, f"198.51.100.{number}"))
            mail.send_next(app)
    assert seen == [[True] * 5 + [False]] * 2


@pytest.mark.fault(
    "Mail server",
    "refuses mails, for now (4xx) or for good (5xx)",
    sees="nothing: mails wait, and the 5 links of each hour are as many as ever",
    ends="all that was promised arrives, at most an hour after its return, within a day",
)
@pytest.mark.parametrize("said", [{"EHLO": ""}, {"RCPT": "451 4.7.1 later"}, {"RCPT": "550 5.1.1 no such user"}])
def test_each_link_that_a_page_has_promised_arrives_after_an_outage(
    app_config: dict[str, object], still: None, smtp: MailServer, said: dict[str, str]
) -> None:
    """A failed delivery uses up none of the five: each arrives later, and an hour later there are five more."""
    app, hours = create_app(app_config | smtp.settings), 3
    register(browser_like(app))
    mail.send_next(app)
    smtp.says = said
    with time_machine.travel(time.time(), tick=False) as clock:
        until = time.time()
        for _ in range(hours):
            until += 61 * 60
            pages = [ask(app, ALICE, f"198.51.100.{number}") for number in range(6)]
            assert [ON_ITS_WAY in page for page in pages] == [True] * 5 + [False]
            assert "5 links were requested for this address, the maximum for one hour" in pages[-1]
            while time.time() < until:
                pause = mail.send_next(app)
                clock.shift(60 if pause is None else pause)
        assert smtp.recipients == [ALICE]  # of the registration
        smtp.says = {}
        back = time.time()
        while (pause := mail.send_next(app)) is not None:
            clock.shift(pause)
        assert smtp.recipients == [ALICE] * (1 + 5 * hours)
        assert time.time() - back <= 3600
        links = [re.findall(r"https://localhost(/reset/\S+)", text)[0] for text in smtp.texts[1:]]
        assert [browser_like(app).get(link).status_code for link in links] == [200] * 5 * hours


def test_what_waits_is_sent_after_a_restart_without_another_mail(
    app: Flask, app_config: dict[str, object], down: list[str], monkeypatch: pytest.MonkeyPatch, smtp: MailServer
) -> None:
    register(browser_like(app))
    mail.send_next(app)
    monkeypatch.undo()
    with time_machine.travel(time.time() + 60):
        again = create_app(app_config | smtp.settings)
        assert smtp.recipients == []
        again.test_client().get("/healthz", base_url="https://localhost")
        patience = time.monotonic() + 10
        while not smtp.recipients and time.monotonic() < patience:
            time.sleep(0.02)
    assert smtp.recipients == [ALICE]


@pytest.mark.parametrize(("is_trusted", "reached"), [(True, [ALICE]), (False, [])])
def test_over_tls_from_the_start_a_mail_reaches_only_the_server_that_was_named(
    app_config: dict[str, object],
    still: None,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_trusted: bool,
    reached: list[str],
) -> None:
    certificate, tls = authority.issue_cert("127.0.0.1"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    known = authority if is_trusted else trustme.CA()
    known.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    mail._tls.cache_clear()
    with MailServer(tls) as server:
        app = create_app(app_config | server.settings | {"MAIL_USE_SSL": True, "MAIL_USE_TLS": True})
        register(browser_like(app))
        mail.send_next(app)
    mail._tls.cache_clear()
    assert server.recipients == reached
    assert len(waiting(app)) == 1 - len(reached)


def links_for(server: Server, people: list[str]) -> list[int]:
    """Request a link for each, five from one address of loopback; give the statuses."""

    def one(number: int) -> int:
        with server.raw(f"127.0.1.{number // 5 + 1}") as line:
            page = answer(line, "GET /reset")
            token, cookie = TOKEN.search(page), re.search(r"(?i)set-cookie: ([^;]+)", page)
            assert token
            assert cookie
            form = f"csrf_token={token[1]}&email={people[number]}"
            headers = f"Cookie: {cookie[1]}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            headers += f"Origin: {server.url}\r\nContent-Length: {len(form)}\r\n"
            return int(answer(line, "POST /reset", headers, form).split()[1])

    def answer(line: Any, start: str, headers: str = "", body: str = "") -> str:
        line.sendall(f"{start} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{headers}\r\n{body}".encode())
        text = b""
        while b"\r\n\r\n" not in text:
            text += line.recv(65536)
        head, _, rest = text.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        while len(rest) < length:
            rest += line.recv(65536)
        return (head + b"\r\n\r\n" + rest).decode()

    with ThreadPoolExecutor(8) as together:
        return list(together.map(one, range(len(people))))


@pytest.mark.fault(
    "Mail server",
    "never answers, and the worker is killed",
    sees="nothing: no mail is lost",
    ends="at once; after 2 minutes for the mail that was under way",
)
def test_a_killed_worker_loses_no_mail(
    app: Flask, app_config: dict[str, object], serve: Callable[..., Server], smtp: MailServer, monkeypatch: Any
) -> None:
    """40 links wait for a mail server that does not answer. Then the worker is killed, and the server answers."""
    app.extensions["security"].pwd_context.update(argon2__memory_cost=8, argon2__time_cost=1)
    with app.app_context():
        for email in PEOPLE:
            identity.create_user(email, PASSWORD)
        db.session.commit()
    smtp.answers.clear()
    server = serve(**smtp.settings)
    assert set(links_for(server, PEOPLE)) == {303}
    assert len(waiting(app)) == 40
    time.sleep(1)  # the first one is under way now
    children = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True)
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
    smtp.answers.set()
    patience = time.monotonic() + 60
    while len(waiting(app)) > 1 and time.monotonic() < patience:  # a row is deleted after its mail has arrived
        server.request("/healthz")
        time.sleep(0.1)
    # The one that was under way is claimed for two minutes.
    (claimed,) = waiting(app)
    assert claimed.tries == 1
    monkeypatch.undo()
    with time_machine.travel(time.time() + 150):
        mail.send_next(create_app(app_config | smtp.settings))
    assert sorted(smtp.recipients) == sorted(PEOPLE)
    assert waiting(app) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills_at_random_moments_lose_no_mail(
    app: Flask, app_config: dict[str, object], still: None, smtp: MailServer
) -> None:
    sender = create_app(app_config | smtp.settings)
    for number in range(KILLS):
        with app.app_context():
            person = f"person{number}@example.com"
            db.session.add(Mail(recipient=person, subject="s", body="b", needs_token=False, due_at=mail.utcnow()))
            db.session.commit()
        kill(lambda: mail.send_next(sender), within=0.03)
    with time_machine.travel(time.time() + 150):  # after the claims of those that were killed
        while mail.send_next(sender) is not None:
            pass
    assert set(smtp.recipients) == {f"person{number}@example.com" for number in range(KILLS)}
    assert waiting(app) == []


def test_several_processes_send_each_mail_once(
    app: Flask, app_config: dict[str, object], still: None, smtp: MailServer
) -> None:
    with app.app_context():
        for email in PEOPLE:
            db.session.add(Mail(recipient=email, subject="s", body="b", needs_token=False, due_at=mail.utcnow()))
        db.session.commit()
    apps = [create_app(app_config | smtp.settings) for _ in range(4)]

    def work(app: Flask) -> None:
        while mail.send_next(app) is not None:
            pass

    with ThreadPoolExecutor(4) as together:
        list(together.map(work, apps))
    assert sorted(smtp.recipients) == sorted(PEOPLE)


def test_who_reads_the_table_can_set_no_password(app: Flask, app_config: dict[str, object], down: list[str]) -> None:
    register(browser_like(app))
    ask(app, ALICE)
    with sqlite3.connect(file_of(app_config)) as database:
        stored = "\n".join(database.iterdump())
    database.close()
    links = re.findall(r"https://localhost(/reset/\S+)", stored)
    assert links
    assert {browser_like(app).get(link).headers.get("Location") for link in links} == {"/reset"}


def test_a_mail_of_a_restored_backup_is_not_sent_again(
    app: Flask, mailbox: Mailbox, still: None, caplog: pytest.LogCaptureFixture
) -> None:
    """It waited when the backup was made. Its link would be a new one, which sets a password."""
    with time_machine.travel(time.time()) as clock:
        register(browser_like(app))
        ask(app, ALICE)
        clock.shift(86_400)
        while mail.send_next(app) is not None:
            pass
    assert mailbox.mails.empty()
    assert caplog.text.count("given up") == 2


def test_a_link_to_a_deleted_account_is_not_sent(app: Flask, mailbox: Mailbox, still: None) -> None:
    member = registered(app)
    ask(app, ALICE)
    post(member, "/account/delete", {"password": PASSWORD})
    while mail.send_next(app) is not None:
        pass
    texts = [str(mailbox.mails.get_nowait().get_content()) for _ in range(mailbox.mails.qsize())]
    assert not any("/reset/" in text for text in texts)
    assert "were deleted" in texts[-1]


def test_without_its_database_the_page_promises_nothing(
    app: Flask, app_config: dict[str, object], still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the database."""
    register(browser_like(app))
    monkeypatch.setattr("app.accounts.database.BUSY_TIMEOUT", 100)
    app = create_app(app_config)
    holder = sqlite3.connect(file_of(app_config))
    holder.execute("BEGIN IMMEDIATE")
    for email in (ALICE, NOBODY):
        visitor = browser_like(app)
        assert post(visitor, "/reset", {"email": email}).status_code == 503
        assert ON_ITS_WAY not in visitor.get("/login").text
    holder.rollback()
    holder.close()
    assert ON_ITS_WAY in ask(app, ALICE)


@pytest.mark.parametrize("email", [ALICE, NOBODY])
def test_the_page_says_when_no_more_links_are_sent(app: Flask, mailbox: Mailbox, email: str) -> None:
    register(browser_like(app))
    mailbox.next("Welcome")
    pages = [ask(app, email, f"198.51.100.{number}") for number in range(7)]
    assert [ON_ITS_WAY in page for page in pages] == [True] * 5 + [False] * 2
    assert "the maximum for one hour" in pages[-1]
    arrived = [mailbox.mails.get(timeout=5) for _ in range(5 if email == ALICE else 0)]
    assert {message["To"] for message in arrived} <= {ALICE}


def test_the_wait_after_too_many_registrations_is_that_of_the_hour(app: Flask, clock: time_machine.Coordinates) -> None:
    visitor = browser_like(app)
    for _ in range(5):
        register(visitor)
        clock.shift(600)
    answer = register(visitor)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "600")


def test_a_deleted_account_is_told_by_mail(member: FlaskClient, mailbox: Mailbox) -> None:
    post(member, "/account/delete", {"password": PASSWORD})
    text = mailbox.next("were deleted")
    assert "If it was not you" in text


def test_nobodys_mailbox_is_flooded_by_an_account_with_the_address(app: Flask, mailbox: Mailbox) -> None:
    """Mallory registers Alice's address, and does again and again what its owner is told by mail."""
    mallory, old, new = registered(app), PASSWORD, "another phrase of mine"
    for _ in range(8):
        post(mallory, "/account/password", {"password": old, "new_password": new, "new_password_confirm": new})
        post(mallory, "/account/confirm")
        old, new = new, old
    while waiting(app):
        time.sleep(0.02)
    subjects = [mailbox.mails.get_nowait()["Subject"] for _ in range(mailbox.mails.qsize())]
    assert {subject: min(subjects.count(subject), 6) for subject in subjects} == {
        "Your account": 1,
        "Your password has been changed": 5,
        "Please confirm your email": 5,
    }
