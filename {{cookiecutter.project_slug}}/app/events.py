"""The names of the security events, their levels and meanings. ``logs.security_event`` writes them.

The names and levels are those of the OWASP Logging Vocabulary Cheat Sheet, so that a monitoring system knows them. An
event of your own needs a line here and in README.md.
Source: OWASP Logging Vocabulary Cheat Sheet; ASVS 5.0 V16.3.1-V16.3.3.
"""

from __future__ import annotations

from logging import CRITICAL, INFO, WARNING

# Name → level and meaning. OWASP has CRITICAL for authz_fail and session_use_after_expire. A page in a forgotten tab
# causes them too, and nobody reacts to an alarm that fires every day.
EVENTS: dict[str, tuple[int, str]] = {
    "authn_login_success": (INFO, "Somebody signed in."),
    "authn_login_fail": (WARNING, "A wrong password, at the sign-in or where the app asks for the password again."),
    "authn_login_lock": (WARNING, "A guess at a password has to wait, after several wrong ones."),
    "authn_password_change": (INFO, "A password was changed by its owner, or reset with a link from a mail."),
    "authz_fail": (WARNING, "A 403, nobody signed in, or a file or session of somebody else, or one that was deleted."),
    "excess_rate_limit_exceeded": (
        WARNING,
        "A client reached a limit. Its other requests in that time cause no further event.",
    ),
    "input_validation_fail": (WARNING, "A request was refused for its content; `reason` says why."),
    "malicious_cors": (CRITICAL, "A request of another site tried to change something."),
    "session_expired": (INFO, "A session ended; `reason` is `logout`, `revoked`, `idle` or `lifetime`."),
    "session_use_after_expire": (WARNING, "A request had the cookie of an ended session: perhaps a stolen copy."),
    "upload_stored": (INFO, "An uploaded file passed all checks and was stored."),
    "upload_validation": (CRITICAL, "An uploaded file contains malware."),
    "upload_delete": (INFO, "A file was deleted."),
    "user_created": (WARNING, "An account was created."),
    "user_deleted": (WARNING, "An account was deleted."),
}
