"""Mails wait in the database until the mail server has taken them, so that none is lost by a restart or an outage.

A request writes the mail in its own transaction: if that fails, the page promises nothing. A thread of the server then
sends what waits: links for a new password first, then by age. A delivery that fails is tried again after 30 seconds, 1,
2, 4 … minutes, at most an hour, and is given up after a day; each failure is an error in the log. The thread ends when
no mail waits. A mail in the table starts it, and so does a request at most once a minute: after a restart, or for mails
that another process wrote. Workers claim a mail before they send it, so it is sent once; only a process that is killed
while it sends, or that needs longer than ``CLAIM``, leaves a mail that is sent again, with the same Message-ID.

A log line about a mail has the id of the request that asked for it, and its kind: the name of its template.

A failed delivery uses up none of the mails that ``LIMIT`` allows. The mail is tried again, even after a permanent
refusal (5xx), and when it is given up, the hour of the limit is long over. Without a MAIL_SERVER, a mail is given up at
once, but so would be another one. The limit counts requests, not deliveries: a mail to nobody never fails, so a sixth
link for an address would reveal that it has an account.

Response times must not reveal whether an address has an account. A mail to nobody is written and deleted in the same
transaction, which takes as long, and never waits with the others.
"""

from __future__ import annotations

import logging
import random
import re
import smtplib
import ssl
import time
from contextlib import closing, suppress
from datetime import timedelta
from email.message import EmailMessage
from email.utils import formatdate
from functools import cache, partial
from threading import Event, Lock, Thread
from typing import Any, cast

import click
import sqlalchemy as sa
from flask import Flask, Response, after_this_request, current_app, has_request_context
from flask_security import MailUtil
from flask_security.recoverable import generate_reset_password_token
from limits import RateLimitItemPerHour

from app.accounts.models import Mail, User, db, utcnow
from app.logs import request_id
from app.security.errors import refuse
from app.security.rate_limits import limiter
from app.security.refusals import seconds_until
from app.visitors import digest

TIMEOUT = 10  # seconds that the mail server may take for each line of its about nine answers
# Longer than a delivery takes, unless each answer is many slow lines: then the process that claimed the mail has died.
CLAIM = timedelta(minutes=2)

FIRST_RETRY = timedelta(seconds=30)  # doubled with each try
LAST_RETRY = timedelta(hours=1)
GIVEN_UP = timedelta(days=1)

LOOK_EVERY = 60  # seconds
# Sending slows down this process's other responses, which would reveal an account after all: wait a random time.
PAUSE = (0.3, 0.8)  # seconds

# Mails of each kind to one address, which anyone can request: too few to flood a mailbox.
LIMIT = RateLimitItemPerHour(5, namespace="MAIL")

# In the table instead of the token: who reads the database must not be able to set a password.
TOKEN = "the-token-is-made-when-this-is-sent"  # noqa: S105 # nosec B105

logger = logging.getLogger(__name__)


class NoServerError(Exception):
    """There is no MAIL_SERVER, so another try would fail too."""


def init_app(app: Flask) -> None:
    """Send what waits in the table, from the first request on. Nothing is read or sent before."""
    app.extensions["postman"] = postman = Postman(app)
    app.before_request(postman.look)


def may_be_sent_to(address: str, kind: str) -> bool:
    """Count a mail that anyone who knows the address can request, and return whether it may be sent.

    Each kind counts separately: registrations with a victim's address must not use up the mails that reset a password.
    """
    return limiter.limiter.hit(LIMIT, "mail", kind, digest(address))


def claim_new_password(address: str, kind: str) -> None:
    """Count a password that is about to be set, with its mail to the owner. Raises Refusal (429) after too many.

    A registration or a change ends the links that the owner of the address has requested for a reset. Without a limit,
    somebody else could end all of them.
    """
    if not may_be_sent_to(address, kind):
        text = f"This address had {LIMIT.amount} registrations or new passwords, the maximum for one hour."
        end = limiter.limiter.get_window_stats(LIMIT, "mail", kind, digest(address)).reset_time
        refuse(429, text, retry_after=seconds_until(end))


class WaitingMail(MailUtil):
    """Takes Flask-Security's mails, which it renders from ``templates/security/email/``."""

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],
        body: str | None,
        html: str | None,
        **context: object,
    ) -> None:
        """Write a mail into the table, without commit. It waits for nobody if ``recipient`` is ``""``."""
        text, token = body or "", str(context.get("reset_token", ""))
        mail = Mail(recipient=str(recipient), subject=str(subject), needs_token=bool(token), due_at=utcnow())
        mail.body = text.replace(token, TOKEN) if token else text
        mail.kind, mail.request_id = template.rpartition("/")[2][:40], request_id.get()
        db.session.add(mail)
        db.session.flush()
        if mail.recipient:  # either way, one statement more
            mail.due_at += timedelta(seconds=random.uniform(*PAUSE))  # noqa: S311 # nosec B311 - no secret
        else:
            db.session.delete(mail)
        db.session.flush()
        if has_request_context():
            after_this_request(current_app.extensions["postman"].wake)


class Postman:
    """The thread of this process that sends the waiting mails of ``app``."""

    def __init__(self, app: Flask) -> None:
        self.app, self._lock, self._called = app, Lock(), Event()
        self._thread: Thread | None = None
        self._next_look = 0.0

    def look(self) -> None:
        """Wake the thread if this was not done for a minute."""
        if time.monotonic() >= self._next_look:
            self.wake()

    def wake(self, response: Response | None = None) -> Response | None:
        """Let the thread look at the table. Returns ``response``."""
        self._next_look = time.monotonic() + LOOK_EVERY
        with self._lock:
            self._called.set()
            if self._thread is None or not self._thread.is_alive():  # in a forked process it is not
                self._thread = Thread(target=self._work, name="mail", daemon=True)
                self._thread.start()
        return response

    def _work(self) -> None:
        pause: float | None
        while True:
            self._called.clear()
            try:
                pause = send_next(self.app)
            except Exception as error:  # the mails still wait, and a later request wakes the thread again
                pause = None
                logger.error("Waiting mails could not be read: %s", type(error).__name__)
            with self._lock:
                if pause is None and not self._called.is_set():
                    self._thread = None
                    return
            self._called.wait(min(pause or 0, LOOK_EVERY))


def send_next(app: Flask) -> float | None:
    """Send one mail that is due. Returns the seconds until the next one is, or None if no mail waits.

    Raises SQLAlchemy's errors if the database fails. A mail that can't be sent is only logged.
    """
    with app.app_context():
        now = utcnow()
        due = sa.select(Mail).where(Mail.due_at <= now).order_by(Mail.needs_token.desc(), Mail.due_at).limit(1)
        if mail := db.session.scalar(due):
            if _claimed(mail):
                own = request_id.set(mail.request_id)
                try:
                    _send(app, mail)
                finally:
                    request_id.reset(own)
            return 0.0
        next_due = db.session.scalar(sa.select(sa.func.min(Mail.due_at)))
        return None if next_due is None else (next_due - now).total_seconds()


def _claimed(mail: Mail) -> bool:
    """Keep other processes from a mail for a while. Returns False if one of them was faster."""
    still_due = sa.and_(Mail.id == mail.id, Mail.due_at == mail.due_at)
    claim = sa.update(Mail).where(still_due).values(due_at=utcnow() + CLAIM, tries=Mail.tries + 1)
    claimed = cast("sa.CursorResult[Any]", db.session.execute(claim)).rowcount
    db.session.commit()
    return claimed == 1


def _send(app: Flask, mail: Mail) -> None:
    """Send a claimed mail; afterwards its row is deleted, or due again."""
    user = db.session.scalar(sa.select(User).where(User.email == mail.recipient))
    db.session.commit()  # releases the connection: the mail server may take its time
    age = utcnow() - mail.created_at
    pause = min(FIRST_RETRY * 2 ** min(mail.tries - 1, 16), LAST_RETRY)
    try:
        if age >= GIVEN_UP:  # the app was down, or this is from a restored backup: it may have been sent long ago
            raise TimeoutError("it is too old")
        if user or not mail.needs_token:  # an account that was deleted meanwhile has no password to reset
            _deliver(app, _message(app, mail, user))
    except Exception as error:
        again = age + pause < GIVEN_UP and not isinstance(error, NoServerError)
        line = "Mail %s (%s) was not sent (try %s, %s): %s: %s"
        what = f"the next one is in {pause}" if again else "it is given up and deleted"
        logger.error(line, mail.id, mail.kind, mail.tries, what, type(error).__name__, _said(error, mail))
        if again:
            mail.due_at = utcnow() + pause
            db.session.commit()
            return
    db.session.delete(mail)
    db.session.commit()


def _said(error: Exception, mail: Mail) -> str:
    """Return the text of ``error`` without links, addresses and the recipient, however the mail server spells them."""
    name = re.escape(mail.recipient.rpartition("@")[0])
    return re.sub(rf"(?i)https?://\S*|[^\s<>'\"]{{1,256}}@[\w.-]+|(?<!\w){name}(?!\w)", "[…]", str(error))


def _message(app: Flask, mail: Mail, user: User | None) -> EmailMessage:
    host = (app.config["SERVER_NAME"] or "localhost").partition(":")[0]
    message = EmailMessage()
    message["Subject"], message["To"] = mail.subject, mail.recipient
    message["From"] = app.config["MAIL_DEFAULT_SENDER"] or f"noreply@{host}"
    message["Date"], message["Message-ID"] = formatdate(), f"<{mail.id}.{mail.created_at.timestamp():.6f}@{host}>"
    token = generate_reset_password_token(user) if mail.needs_token else TOKEN  # type: ignore[no-untyped-call]
    message.set_content(mail.body.replace(TOKEN, token), cte="8bit")  # the default encoding would break links
    return message


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _deliver(app: Flask, message: EmailMessage) -> None:
    config = app.config
    if app.debug and not config["MAIL_SERVER"]:
        # Not through the log, which redacts links with a token.
        headers = f"To: {message['To']}\nSubject: {message['Subject']}"
        click.echo(f"\nA mail, shown here without a MAIL_SERVER:\n{headers}\n\n{message.get_content()}", err=True)
        return
    if not config["MAIL_SERVER"]:
        raise NoServerError("MAIL_SERVER is not set")
    # Without a context, smtplib accepts any certificate.
    connect = partial(smtplib.SMTP_SSL, context=_tls()) if config["MAIL_USE_SSL"] else smtplib.SMTP
    with closing(connect(config["MAIL_SERVER"], config["MAIL_PORT"], timeout=TIMEOUT)) as server:
        if config["MAIL_USE_TLS"] and not config["MAIL_USE_SSL"]:
            server.starttls(context=_tls())
        if config["MAIL_USERNAME"]:
            server.login(config["MAIL_USERNAME"], config["MAIL_PASSWORD"])
        server.send_message(message)
        with suppress(OSError):  # the server has taken the mail: a failure now must not send it again
            server.quit()
