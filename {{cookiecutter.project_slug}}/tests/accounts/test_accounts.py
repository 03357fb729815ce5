"""What people do with their accounts, and what others try with them."""

from __future__ import annotations

import io
import re
import socket
import sqlite3
import ssl
import threading
import time
from typing import Any

import pytest
import time_machine
import trustme
from flask import Flask
from flask.testing import FlaskClient

from app import create_app, settings
from app.accounts import mail
from app.security import uploads
from app.security.rate_limits import limiter
from app.storage import folder
from tests.accounts.mailbox import Mailbox
from tests.accounts.people import PASSWORD, can_sign_in, is_signed_in, register, sign_in
from tests.conftest import KEY, ROOT, browser_like, csrf_token, post
from tests.samples import stored

ALICE = "alice@example.com"
NEW = "an entirely different phrase"


def reset_path(client: FlaskClient, mailbox: Mailbox) -> str:
    post(client, "/reset", {"email": ALICE})
    return mailbox.link().removeprefix("https://localhost")


def set_password(client: FlaskClient, path: str, password: str = NEW) -> int:
    return post(client, path, {"password": password, "password_confirm": password}).status_code


def test_register_sign_in_and_out(client: FlaskClient) -> None:
    assert not is_signed_in(client)
    assert register(client).status_code == 303
    assert not is_signed_in(client)  # a session right after it would tell that the address was free
    assert sign_in(client).status_code == 303
    assert ALICE in client.get("/account").text
    assert post(client, "/logout").status_code == 303
    assert not is_signed_in(client)


@pytest.mark.parametrize("typed", ["Alice@Example.COM", " alice@example.com ", "ALICE@EXAMPLE.COM"])
def test_one_address_is_one_account(client: FlaskClient, typed: str) -> None:
    register(client, typed)
    assert can_sign_in(client.application, PASSWORD)
    register(browser_like(client.application), typed, NEW)
    assert not can_sign_in(client.application, NEW)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "alice",
        "alice@",
        "@example.com",
        "a b@example.com",
        "a@b@c.example",
        f"{'a' * 250}@example.com",
        "=?utf-8?q?=61lice?=@example.com",  # which a mail decodes, so Alice would get it
        "=?utf-8?b?YWxpY2U=?=@example.com",
        "\uff41lice@example.com",  # whose guesses would count as those at Alice's account
        "\u24d0lice@example.com",
        "ali\u1d9ce@example.com",
        "\ufb01nn@example.com",
    ],
)
def test_what_is_no_address_is_refused(client: FlaskClient, email: str) -> None:
    assert register(client, email).status_code == 400


def test_every_keyboard_types_the_same_password(client: FlaskClient) -> None:
    register(client, password="cafe\u0301 \u2460 et the\u0301 vert")
    assert can_sign_in(client.application, "caf\u00e9 1 et th\u00e9 vert")


def test_the_two_passwords_must_agree(client: FlaskClient) -> None:
    answer = post(client, "/register", {"email": ALICE, "password": PASSWORD, "password_confirm": NEW})
    assert answer.status_code == 400
    assert not can_sign_in(client.application, PASSWORD)


def test_a_second_registration_changes_nothing_but_tells_the_owner(client: FlaskClient, mailbox: Mailbox) -> None:
    register(client)
    assert mailbox.next("Your account is ready")
    register(browser_like(client.application), password=NEW)
    assert mailbox.next("You already have one")
    assert not can_sign_in(client.application, NEW)
    assert can_sign_in(client.application, PASSWORD)


def test_a_reset_link_sets_a_new_password_once(client: FlaskClient, mailbox: Mailbox) -> None:
    register(client)
    path = reset_path(client, mailbox)
    assert set_password(client, path, "short") == 400
    assert set_password(client, path) == 303
    assert mailbox.next("was reset")
    assert can_sign_in(client.application, NEW)
    assert not can_sign_in(client.application, PASSWORD)
    set_password(client, path, PASSWORD)
    assert not can_sign_in(client.application, PASSWORD)


# A negative number: it was made by a server whose clock is ahead.
@pytest.mark.parametrize(("seconds", "works"), [(3590, True), (3610, False), (-2, True), (-60, False)])
def test_a_reset_link_works_for_an_hour(client: FlaskClient, mailbox: Mailbox, seconds: int, works: bool) -> None:
    register(client)
    path = reset_path(client, mailbox)
    with time_machine.travel(time.time() + seconds):
        set_password(client, path)
        assert can_sign_in(client.application, NEW) is works


def test_a_reset_link_of_before_a_change_of_the_password_is_dead(member: FlaskClient, mailbox: Mailbox) -> None:
    path = reset_path(member, mailbox)
    post(member, "/account/password", {"password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW})
    set_password(member, path, "yet another long phrase")
    assert can_sign_in(member.application, NEW)


def test_a_forged_reset_link_is_refused(client: FlaskClient, mailbox: Mailbox) -> None:
    register(client)
    path = reset_path(client, mailbox)
    for forged in (path[:-1], path[:-1] + "~", "/reset/x", f"/reset/{'A' * 500}", path.replace("/reset/", "/reset/.")):
        assert client.get(forged).headers["Location"] == "/reset"
        set_password(client, forged)
    assert can_sign_in(client.application, PASSWORD)


def test_1_S5_a_reset_link_of_before_a_rotation_works(
    client: FlaskClient, mailbox: Mailbox, app_config: dict[str, object]
) -> None:
    register(client)
    path = reset_path(client, mailbox)
    rotated = {"SECRET_KEY": "q9WmZ3xLr7VtB5nKc2HsY8fJd4GpTa6R", "SECRET_KEY_FALLBACKS": KEY}
    client.application = create_app(app_config | rotated)
    set_password(client, path)
    assert can_sign_in(client.application, NEW)
    second = reset_path(client, mailbox)
    for keys in ({**rotated, "SECRET_KEY_FALLBACKS": ""}, {"SECRET_KEY_NEXT": rotated["SECRET_KEY"]}):
        client.application = create_app(app_config | keys)
        assert client.get(second).status_code == 200  # it is signed with the new key, which a server may have staged


def test_10_S5_links_in_mails_lead_to_the_canonical_host(app_config: dict[str, object], mailbox: Mailbox) -> None:
    app = create_app(app_config | {"TRUSTED_HOSTS": "www.example.com,other.example.com"})
    visitor, here = app.test_client(), {"base_url": "https://other.example.com"}
    identity = {"email": ALICE, "password": PASSWORD, "password_confirm": PASSWORD}
    for path in ("/register", "/reset"):
        found = re.search(r'name="csrf-token" content="([^"]+)"', visitor.get(path, **here).text)
        assert found
        headers = {"Origin": "https://other.example.com"}
        assert visitor.post(path, data=identity | {"csrf_token": found[1]}, headers=headers, **here).status_code == 303
    assert mailbox.link().startswith("https://www.example.com/reset/")


@pytest.mark.parametrize("path", ["/register", "/reset"])
def test_nobodys_mailbox_is_flooded(client: FlaskClient, mailbox: Mailbox, path: str) -> None:
    register(client)
    statuses = []
    for number in range(25):
        visitor = browser_like(client.application)
        visitor.environ_base["REMOTE_ADDR"] = f"198.51.100.{number}"
        identity = {"email": ALICE, "password": PASSWORD, "password_confirm": PASSWORD}
        statuses.append(post(visitor, path, identity).status_code)
    # Each new account would end the link for a password that the owner of the address has got.
    assert statuses == {"/register": [303] * 4 + [429] * 21, "/reset": [303] * 25}[path]
    time.sleep(0.2)
    assert mailbox.mails.qsize() <= 10
    # Who spends one kind of mail must not keep the owner from the other.
    other = {"/register": "/reset", "/reset": "/register"}[path]
    mailbox.mails.queue.clear()
    post(client, other, {"email": ALICE, "password": PASSWORD, "password_confirm": PASSWORD})
    assert mailbox.next(ALICE)


def test_who_knows_the_password_can_not_keep_the_owner_from_a_reset(member: FlaskClient, mailbox: Mailbox) -> None:
    """Each change of the password ends the links for a new one."""

    def change(number: int) -> int:
        new = {"new_password": f"{NEW} {number + 1}", "new_password_confirm": f"{NEW} {number + 1}"}
        return post(member, "/account/password", {"password": f"{NEW} {number}"} | new).status_code

    first = {"password": PASSWORD, "new_password": f"{NEW} 0", "new_password_confirm": f"{NEW} 0"}
    assert post(member, "/account/password", first).status_code == 303
    assert [change(number) for number in range(4)] == [303] * 4
    owner = browser_like(member.application)
    link = reset_path(owner, mailbox)
    assert change(4) == 429
    assert post(owner, link, {"password": NEW, "password_confirm": NEW}).headers["Location"] == "/login"
    assert can_sign_in(member.application, NEW)


def test_the_password_changes_for_who_knows_it(member: FlaskClient, mailbox: Mailbox) -> None:
    wrong = {"password": "not the password", "new_password": NEW, "new_password_confirm": NEW}
    assert post(member, "/account/password", wrong).status_code == 400
    assert post(member, "/account/password", wrong | {"password": PASSWORD}).status_code == 303
    assert "was changed" in mailbox.next("was changed")
    assert can_sign_in(member.application, NEW)
    assert not can_sign_in(member.application, PASSWORD)


@pytest.mark.parametrize("path", ["/account/password", "/account/delete"])
def test_8_T1_a_borrowed_browser_cannot_try_passwords(
    member: FlaskClient, clock: time_machine.Coordinates, path: str
) -> None:
    guess = {"new_password": NEW, "new_password_confirm": NEW}
    answers = [post(member, path, guess | {"password": f"guess number {n}"}).status_code for n in range(6)]
    assert answers == [400, 400, 400, 429, 429, 429]
    assert post(member, path, guess | {"password": PASSWORD}).status_code == 429


def test_the_form_tells_how_many_tries_are_left(client: FlaskClient) -> None:
    register(client)
    for email in (ALICE, "unknown@example.com"):
        limiter.storage.reset()
        pages = [sign_in(client, email, "not the password").text for _ in range(3)]
        assert [re.search(r"have to wait: (\d)", page)[1] for page in pages] == ["2", "1", "0"]  # type: ignore[index]
        assert sign_in(client, email, "not the password").headers["Retry-After"]


def test_delete_takes_the_files_and_the_account(member: FlaskClient, app_config: dict[str, object]) -> None:
    file = {"file": (ROOT / "wsgi.py").open("rb")}
    with file["file"] as opened:
        assert post(member, "/uploads", {"file": (opened, "notes.txt")}).status_code == 303
    with member.session_transaction() as content:
        owner = content["owner"]
    assert post(member, "/account/delete", {"password": "not the password"}).status_code == 400
    assert is_signed_in(member)
    assert post(member, "/account/delete", {"password": PASSWORD}).status_code == 303
    assert not is_signed_in(member)
    assert not can_sign_in(member.application, PASSWORD)
    with member.application.app_context():
        assert folder.listing(owner) == []
    register(member)
    sign_in(member)
    assert "notes.txt" not in member.get("/uploads").text


def test_nothing_is_kept_of_an_upload_into_a_deleted_account(
    member: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload takes a while; another window deletes the account meanwhile."""
    save_all, window = uploads.save_all, browser_like(member.application)
    sign_in(window)

    def slow(*args: Any) -> list[folder.StoredFile]:
        assert post(window, "/account/delete", {"password": PASSWORD}).status_code == 303
        return save_all(*args)

    monkeypatch.setattr(uploads, "save_all", slow)
    assert post(member, "/uploads", {"file": (io.BytesIO(b"mine"), "notes.txt")}).status_code == 401
    assert stored(member.application) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MAIL_DEFAULT_SENDER", "a@example.com\nBcc: b@example.com"),
        ("DATABASE_URL", "postgresql://host:port/name"),
        ("DATABASE_URL", f"sqlite:///{__file__}/app.db"),  # no folder
    ],
)
def test_wrong_settings_of_accounts_stop_the_start(app_config: dict[str, object], setting: str, value: str) -> None:
    with pytest.raises(settings.SettingsError, match=setting):
        create_app(app_config | {setting: value})


def test_a_stale_token_keeps_what_was_typed_where_a_sign_in_is_needed(member: FlaskClient) -> None:
    token = csrf_token(member)
    form = {"csrf_token": token, "password": PASSWORD, "new_password": NEW, "new_password_confirm": NEW}
    with time_machine.travel(time.time() + 3590):
        member.get("/account")  # the session lives on
    with time_machine.travel(time.time() + 3700):
        page = member.post("/account/password", data=form)
    assert page.status_code == 400
    assert "This page was open for too long" in page.text
    assert 'name="new_password"' in page.text


def test_files_belong_to_the_account_not_to_the_browser(member: FlaskClient) -> None:
    with (ROOT / "wsgi.py").open("rb") as opened:
        post(member, "/uploads", {"file": (opened, "notes.txt")})
    post(member, "/logout")
    register(member, "mallory@example.com")
    sign_in(member, "mallory@example.com")
    assert "notes.txt" not in member.get("/uploads").text
    elsewhere = browser_like(member.application)
    sign_in(elsewhere)
    assert "notes.txt" in elsewhere.get("/uploads").text


def test_the_sessions_are_listed_with_their_browsers(member: FlaskClient) -> None:
    other = browser_like(member.application)
    other.environ_base["HTTP_USER_AGENT"] = "Evil\u202e<b>Browser</b>/1.0 " + "x" * 500
    sign_in(other)
    page = member.get("/account").text
    assert "Evil&lt;b&gt;Browser&lt;/b&gt;/1.0 xxx" in page
    assert "<b>Browser" not in page
    assert "x" * 200 not in page
    assert page.count("This browser") == 1


# Headers as these browsers send them, and the names that people know the browsers by.
@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0", "Firefox on Windows"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            "Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 "
            "Safari/605.1.15",
            "Safari on macOS",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "CriOS/140.0.7339.101 Mobile/15E148 Safari/604.1",
            "Chrome on iPhone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 "
            "Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
        ("Mozilla/5.0 (Android 15; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0", "Firefox on Android"),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
            "Safari/537.36 OPR/124.0.0.0",
            "Opera on ChromeOS",
        ),
        ("Mozilla/5.0 Firefox/143.0", "Firefox"),
        ("curl/8.14.1", "curl/8.14.1"),
        ("", "Unknown browser"),
    ],
)
def test_a_session_has_the_name_of_its_browser(member: FlaskClient, user_agent: str, name: str) -> None:
    other = browser_like(member.application)
    other.environ_base["HTTP_USER_AGENT"] = user_agent
    sign_in(other)
    page = member.get("/account").text
    assert f"<bdi>{name}</bdi>" in page
    assert re.search(rf"End session<[^>]+> of {re.escape(name)}, signed in", page)


# 10.T1: where a sign-in leads. The whole collection of payloads is tried in test_10_urls.py.
@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/account", "/account"),
        ("/uploads?page=2", "/uploads?page=2"),
        ("https://localhost/account", "/account"),
        ("https://attacker.test/", "/"),
        ("//attacker.test", "/"),
        ("/\\attacker.test", "/"),
        ("\t//attacker.test", "/"),
        ("https:attacker.test", "/"),
        ("https://localhost@attacker.test", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_10_T1_a_sign_in_leads_nowhere_else(client: FlaskClient, target: str, location: str) -> None:
    register(client)
    form = client.get("/login", query_string={"next": target}).text
    (kept,) = re.findall(r'name="next"[^>]*value="([^"]*)"', form)
    data = {"email": ALICE, "password": PASSWORD, "next": target}
    assert post(client, "/login", data).headers["Location"] == location
    assert client.get("/login", query_string={"next": target}).headers["Location"] == location
    assert kept is not None


def test_what_needs_a_sign_in_asks_for_it_and_comes_back(client: FlaskClient) -> None:
    for path in ("/account", "/account/password", "/account/delete", "/uploads"):
        assert client.get(path).headers["Location"] == f"/login?next={path}"
    assert client.get("/uploads", headers={"Accept": "application/json"}).status_code == 401
    assert post(client, "/account/sessions/end").headers["Location"] == "/login"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic YWxpY2VAZXhhbXBsZS5jb206Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSA0Mg=="},
        {"Authentication-Token": "x"},
        {"Cookie": "remember_token=1|x"},
    ],
)
def test_there_is_no_other_way_in(client: FlaskClient, headers: dict[str, str]) -> None:
    register(client)
    assert client.get("/account?auth_token=x", headers=headers).status_code == 303


@pytest.mark.parametrize("path", ["/login", "/register", "/reset", "/account/password", "/account/delete"])
@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"email": {"a": 1}, "password": [1]}', b"null", b'"x"', b"\xff"])
def test_5_T3_forms_take_no_json(member: FlaskClient, path: str, body: bytes) -> None:
    token = csrf_token(member)
    if not path.startswith("/account"):
        post(member, "/logout")
        token = csrf_token(member)
    headers = {"X-CSRFToken": token, "Content-Type": "application/json"}
    assert member.post(path, data=body, headers=headers).status_code == 400


def test_5_T1_without_its_database_the_app_says_sorry(member: FlaskClient, app_config: dict[str, object]) -> None:
    with sqlite3.connect(str(app_config["DATABASE_URL"]).removeprefix("sqlite:///")) as database:
        database.execute("DROP TABLE sessions")
    database.close()
    for path in ("/account", "/", "/uploads"):
        answer = member.get(path)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "60"
        assert "not available at the moment" in answer.text
        assert "sqlite" not in answer.text.lower()
        assert "<h1>" in answer.text
    assert browser_like(member.application).get("/").status_code == 200


def test_the_migrations_make_what_the_models_say(app: Flask) -> None:
    run = app.test_cli_runner()
    with app.app_context():
        steps = (["check"], ["downgrade", "base"], ["check"], ["upgrade"], ["check"])
        codes = [run.invoke(args=["db", *step]).exit_code for step in steps]
    assert codes == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("email", "password", "fault"),
    [
        ("Bob@example.com", PASSWORD, None),
        ("alice@example.com", PASSWORD, "already has an account"),
        ("bob", PASSWORD, "not an e-mail address"),
        ("bob@example.com", "short", "at least 12 characters"),
    ],
)
def test_flask_users_create(client: FlaskClient, email: str, password: str, fault: str | None) -> None:
    register(client)
    result = client.application.test_cli_runner().invoke(
        args=["users", "create", email], input=f"{password}\n".encode(errors="surrogateescape")
    )
    assert result.exit_code == bool(fault)
    assert (fault or "was created") in result.output
    assert can_sign_in(client.application, password, email) is (fault is None or email == ALICE)


def test_flask_users_create_takes_no_garbled_input_for_a_crash(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["users", "create", "bob@example.com"], input=b"\xff\xfe\n")
    assert "at least 12 characters" in result.output


def test_mails_and_the_mail_password_go_to_the_right_server_only(
    app_config: dict[str, object], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in the middle, with a certificate of an authority that nobody knows."""
    monkeypatch.setattr(mail, "GIVEN_UP", mail.FIRST_RETRY)  # it is not tried again during other tests
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"220 mail\r\n")
            heard.append(connection.recv(1000))
            connection.sendall(b"250-mail\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
            heard.append(connection.recv(1000))
            connection.sendall(b"220 go\r\n")
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(tls)
            with pytest.raises(ssl.SSLError), tls.wrap_socket(connection, server_side=True) as secured:
                heard.append(secured.recv(1000))

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        settings = {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": listener.getsockname()[1]}
        app = create_app(app_config | settings | {"MAIL_USERNAME": "app", "MAIL_PASSWORD": "mail password"})
        register(browser_like(app))
        server.join(10)
    assert [line[:8] for line in heard] == [heard[0][:8], b"STARTTLS"]
