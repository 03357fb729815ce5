"""The settings of accounts: the database and the mails. They are part of ``app.settings.Settings``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from app import paths


class AccountSettings(BaseSettings):
    """The settings that accounts need, under their environment names."""

    DATABASE_URL: str = Field(
        default=f"sqlite:///{paths.INSTANCE / 'app.db'}",
        repr=False,
        description="The database of accounts and sessions.",
        examples=["postgresql://user:password@host/name"],
    )
    DATABASE_POOL_SIZE: int = Field(
        default=12,
        ge=1,
        le=1000,
        description="PostgreSQL: connections that a process keeps open, and threads that may wait for an answer.",
        examples=["12"],
    )
    DATABASE_TIMEOUT: int = Field(
        default=5,
        ge=2,
        le=86400,
        description="PostgreSQL: seconds that a connection, or an answer, may take.",
        examples=["5"],
    )
    MAIL_SERVER: str = Field(
        default="",
        description="The SMTP host. In debug none is needed: mails are printed to the terminal.",
        examples=["smtp.example.com"],
    )
    MAIL_PORT: int = Field(default=587, ge=1, le=65535, description="The SMTP port.", examples=["587"])
    MAIL_USE_TLS: bool = Field(default=True, description="Use STARTTLS.", examples=["1"])
    MAIL_USE_SSL: bool = Field(
        default=False, description="Use TLS from the start, without STARTTLS: with MAIL_PORT=465.", examples=["1"]
    )
    MAIL_USERNAME: str = Field(default="", description="The SMTP user.", examples=["app"])
    MAIL_PASSWORD: str = Field(
        default="", repr=False, description="The SMTP password.", examples=["(from your mail provider)"]
    )
    MAIL_DEFAULT_SENDER: str = Field(
        default="",
        pattern=r"^([^\r\n]*@[^\r\n]+)?$",
        description="The From address of the app's mails.",
        examples=["noreply@example.com"],
    )
