"""Mails, sent in the background: how long a response takes must not tell whether there was somebody to write to.

Flask-Security writes them, out of ``templates/security/email/``, and hands them over to ``BackgroundMail``.
"""

from __future__ import annotations

import logging
import random
import smtplib
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import cache
from threading import BoundedSemaphore

import click
from flask import Flask, current_app
from flask_security import MailUtil
from limits import RateLimitItemPerHour

from app.security.rate_limits import digest, limiter

TIMEOUT = 10  # seconds
MAX_WAITING = 100  # mails; while the server does not answer, more are dropped

PAUSE = (0.3, 0.8)  # seconds

# What anybody can have sent to anybody, of each kind: not so many that it floods a mailbox.
LIMIT = RateLimitItemPerHour(5)

logger = logging.getLogger(__name__)

_sender = ThreadPoolExecutor(max_workers=16, thread_name_prefix="mail")  # most of them in their pause
_room = BoundedSemaphore(MAX_WAITING)


def may_be_sent_to(address: str, kind: str) -> bool:
    """Count a mail that whoever knows the address can ask for; tell whether it may be sent.

    Each kind counts on its own: who registers with somebody's address must not use up the mails that reset a password.
    """
    return limiter.limiter.hit(LIMIT, "mail", kind, digest(address))


class BackgroundMail(MailUtil):
    """Sends what Flask-Security has written. A mail to nobody (``""``) takes the same way and is dropped at its end."""

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: str | tuple[str, str],
        body: str | None,
        html: str | None,
        **kwargs: object,
    ) -> None:
        """Put a mail on its way; never raises for what happens to it there."""
        config = current_app.config
        host = (config["SERVER_NAME"] or "localhost").partition(":")[0]
        message = EmailMessage()
        message["Subject"], message["To"] = subject, recipient
        message["From"] = config["MAIL_DEFAULT_SENDER"] or f"noreply@{host}"
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=host)
        message.set_content(body or "", cte="8bit")  # the usual encoding would break links over several lines
        if _room.acquire(blocking=False):
            _sender.submit(_send, current_app._get_current_object(), message)  # type: ignore[attr-defined]
        else:
            logger.error("%s mails are waiting for MAIL_SERVER: one more was dropped", MAX_WAITING)


def _send(app: Flask, message: EmailMessage) -> None:
    # The work of sending slows down what this process answers meanwhile, which would tell of an account after all.
    time.sleep(random.uniform(*PAUSE))  # noqa: S311 # nosec B311 - no secret
    try:
        if message["To"]:
            _deliver(app, message)
    except Exception as error:
        logger.error("A mail was not sent (see the settings MAIL_…): %s: %s", type(error).__name__, error)
    finally:
        _room.release()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _deliver(app: Flask, message: EmailMessage) -> None:
    config = app.config
    if app.debug and not config["MAIL_SERVER"]:
        # Not through the log, which blanks out links with a token.
        headers = f"To: {message['To']}\nSubject: {message['Subject']}"
        click.echo(f"\nA mail, shown here for want of a MAIL_SERVER:\n{headers}\n\n{message.get_content()}", err=True)
        return
    if not config["MAIL_SERVER"]:
        raise ValueError("MAIL_SERVER is not set")
    with smtplib.SMTP(config["MAIL_SERVER"], config["MAIL_PORT"], timeout=TIMEOUT) as server:
        if config["MAIL_USE_TLS"]:
            server.starttls(context=_tls())  # without a context, any certificate would do
        if config["MAIL_USERNAME"]:
            server.login(config["MAIL_USERNAME"], config["MAIL_PASSWORD"])
        server.send_message(message)
