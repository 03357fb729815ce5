"""The names of the security events, their levels and meanings. ``logs.security_event`` writes them.

The names and levels are those of the OWASP Logging Vocabulary Cheat Sheet, so that a monitoring system knows them. An
event of your own needs a line here and in README.md.
Source: OWASP Logging Vocabulary Cheat Sheet; ASVS 5.0 V16.3.1-V16.3.3.
"""

from __future__ import annotations

from logging import CRITICAL, INFO, WARNING

# Name → level and meaning.
EVENTS: dict[str, tuple[int, str]] = {
    "authn_login_success": (INFO, "Somebody signed in."),
    "authn_login_fail": (WARNING, "A wrong password, at the sign-in or where the app asks for the password again."),
    "authn_password_change": (INFO, "A password was changed, or reset with a link from a mail."),
    "session_use_after_expire": (WARNING, "A request with the cookie of a session that was ended: perhaps a stolen copy."),
    "user_created": (WARNING, "An account was created."),
    "user_deleted": (WARNING, "An account was deleted."),
    "authn_login_lock": (WARNING, "A guess at a password has to wait, after several wrong ones."),
    "authz_fail": (WARNING, "A request for what the visitor may not use: a 403, or a file that is not (or no longer) theirs."),
    "excess_rate_limit_exceeded": (WARNING, "A client reached a limit. The rest of that time is not logged."),
    "input_validation_fail": (WARNING, "A request that no page of this site sends."),
    "malicious_cors": (CRITICAL, "A state-changing request from another site."),
    "session_expired": (INFO, "A session ended: by a sign-out, from another browser, or by its lifetime."),
    "upload_stored": (INFO, "An uploaded file passed all checks and was stored."),
    "upload_validation": (CRITICAL, "An uploaded file contains malware."),
    "upload_delete": (INFO, "A file was deleted by its owner."),
}
