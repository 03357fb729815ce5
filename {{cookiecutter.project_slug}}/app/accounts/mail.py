"""Mails are sent in the background, so that the response time does not reveal whether the address has an account.

Flask-Security renders them from ``templates/security/email/`` and passes them to ``BackgroundMail``.
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
MAX_WAITING = 100  # mails; more are dropped while the mail server does not answer

PAUSE = (0.3, 0.8)  # seconds

# Mails of each kind to one address, which anyone can request: too few to flood a mailbox.
LIMIT = RateLimitItemPerHour(5)

logger = logging.getLogger(__name__)

_sender = ThreadPoolExecutor(max_workers=16, thread_name_prefix="mail")  # most of them are in their pause
_room = BoundedSemaphore(MAX_WAITING)


def may_be_sent_to(address: str, kind: str) -> bool:
    """Count a mail that anyone who knows the address can request, and return whether it may be sent.

    Each kind counts separately: registrations with a victim's address must not use up the mails that reset a password.
    """
    return limiter.limiter.hit(LIMIT, "mail", kind, digest(address))


class BackgroundMail(MailUtil):
    """Sends Flask-Security's mails. A mail without a recipient (``""``) takes the same path, and is then dropped."""

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
        """Queue a mail. Failures to deliver it are only logged."""
        config = current_app.config
        host = (config["SERVER_NAME"] or "localhost").partition(":")[0]
        message = EmailMessage()
        message["Subject"], message["To"] = subject, recipient
        message["From"] = config["MAIL_DEFAULT_SENDER"] or f"noreply@{host}"
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=host)
        message.set_content(body or "", cte="8bit")  # the default encoding would break links into several lines
        if _room.acquire(blocking=False):
            _sender.submit(_send, current_app._get_current_object(), message)  # type: ignore[attr-defined]
        else:
            logger.error("%s mails are waiting for MAIL_SERVER: one more was dropped", MAX_WAITING)


def _send(app: Flask, message: EmailMessage) -> None:
    # Sending slows down this process's other responses, which would reveal an account after all: wait a random time.
    time.sleep(random.uniform(*PAUSE))  # noqa: S311 # nosec B311 - no secret
    try:
        if message["To"]:
            _deliver(app, message)
    except Exception as error:
        logger.error("A mail was not sent (check the MAIL_… settings): %s: %s", type(error).__name__, error)
    finally:
        _room.release()


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
        raise ValueError("MAIL_SERVER is not set")
    with smtplib.SMTP(config["MAIL_SERVER"], config["MAIL_PORT"], timeout=TIMEOUT) as server:
        if config["MAIL_USE_TLS"]:
            server.starttls(context=_tls())  # without a context, smtplib accepts any certificate
        if config["MAIL_USERNAME"]:
            server.login(config["MAIL_USERNAME"], config["MAIL_PASSWORD"])
        server.send_message(message)
