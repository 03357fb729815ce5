"""The ten mitigations of this template and their 53 steps, with the requirements of ASVS 5.0 that each step checks.

A probe in ``tools/audit/probes/`` examines each step. The table is separate from the probes, so that a mitigation
whose code was removed still has its row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step: its id, what it requires, and how to fix it."""

    id: str
    title: str
    fix: str
    asvs: tuple[str, ...] = ()

    @property
    def finding_id(self) -> str:
        """The id of this step's findings: ``CF05`` for ``2.S5``."""
        number, _, position = self.id.partition(".S")
        known = MITIGATIONS.get(int(number))
        return f"{known.letters if known else 'XX'}{int(position):02}"


@dataclass(frozen=True)
class Mitigation:
    """One mitigation. The ids of its findings begin with ``letters``; ``probes`` are the modules that examine it."""

    title: str
    letters: str
    probes: tuple[str, ...]
    steps: tuple[Step, ...]


MITIGATIONS = {
    1: Mitigation(
        "Secret key",
        "SK",
        ("secret_key",),
        (
            Step(
                "1.S1",
                "The key is random, 256 bits or more",
                "Make one with: python -m app.security.secret_key new",
                ("V11.5.1",),
            ),
            Step(
                "1.S2",
                "The key is only in .env, which only its owner can read",
                "Run: chmod 600 .env; list it in .gitignore and .dockerignore",
                ("V13.3.2",),
            ),
            Step(
                "1.S3",
                "The environment overrides .env, however the app is started",
                "Read SECRET_KEY as app/settings.py did",
            ),
            Step("1.S4", "A guessable key is refused at start", "Check the key at start, as app/settings.py did"),
            Step(
                "1.S5",
                "The key can be rotated without signing anyone out",
                "Use SECRET_KEY_FALLBACKS and python -m app.security.secret_key rotate",
                ("V13.3.4",),
            ),
        ),
    ),
    2: Mitigation(
        "CSRF protection",
        "CF",
        ("csrf",),
        (
            Step(
                "2.S1",
                "Flask-WTF is a pinned dependency",
                "Pin flask-wtf and all other packages in requirements.txt, with hashes",
                ("V15.2.4",),
            ),
            Step(
                "2.S2",
                "Tokens are signed with the key of mitigation 1",
                "Let only app/security/csrf.py set WTF_CSRF_SECRET_KEY",
                ("V3.5.1",),
            ),
            Step(
                "2.S3",
                "Every form is a FlaskForm",
                "Use a FlaskForm, a QueryForm for query arguments; @exempt(reason) a view that no cookie authenticates",
            ),
            Step("2.S4", "Every form renders its token", "Add {{ form.hidden_tag() }} to the form", ("V3.5.1",)),
            Step(
                "2.S5",
                "Every state-changing route requires the token",
                "Let app/security/csrf.py check the token; @exempt(reason) a view if no cookie authenticates it",
                (
                    "V3.5.1",
                    "V3.5.3",
                ),
            ),
            Step(
                "2.S6",
                "Scripts send the token only to their own origin; the origin of each request is checked",
                "Keep the checks of app/security/csrf.py; send csrfHeaders(url) of app/static/app.js with each fetch",
                ("V3.5.1",),
            ),
        ),
    ),
    3: Mitigation(
        "Content Security Policy",
        "CP",
        ("csp",),
        (
            Step(
                "3.S1",
                "Flask-Talisman is a pinned dependency",
                "Pin flask-talisman and all other packages in requirements.txt, with hashes",
                ("V15.2.4",),
            ),
            Step(
                "3.S2",
                "Every response carries a policy",
                "Call csp.init_app in create_app",
                (
                    "V3.4.3",
                    "V3.4.6",
                ),
            ),
            Step(
                "3.S3",
                "Nothing inline, nothing from other origins, scripts only with a nonce",
                "Keep POLICY in app/security/csp.py strict; loosen a view with @relax(reason, csp={…}) of headers.py",
                (
                    "V3.4.3",
                    "V3.4.6",
                ),
            ),
            Step(
                "3.S4",
                "One policy for all views; a view is relaxed only in one place, for a reason",
                "Keep POLICY in app/security/csp.py strict; loosen a view with @relax(reason, csp={…}) of headers.py",
                (
                    "V3.4.3",
                    "V3.6.1",
                ),
            ),
            Step(
                "3.S5",
                "Violations are reported, sanitized, limited and summarized",
                "Keep report-uri, report-to and app/views/csp_reports.py",
                ("V3.4.7",),
            ),
        ),
    ),
    4: Mitigation(
        "Session cookies",
        "CK",
        ("cookies",),
        (
            Step(
                "4.S1",
                "Secure: never sent over http",
                "Let only app/security/cookies.py configure the session cookie",
                (
                    "V3.3.1",
                    "V13.4.2",
                ),
            ),
            Step(
                "4.S2",
                "HttpOnly: not readable by scripts",
                "Let only app/security/cookies.py configure the session cookie",
                ("V3.3.4",),
            ),
            Step(
                "4.S3",
                "SameSite: not sent with other sites' forms",
                "Let only app/security/cookies.py configure the session cookie",
                ("V3.3.2",),
            ),
            Step(
                "4.S4",
                "A session ends when idle, after its absolute lifetime, and at the sign-out",
                "Let only app/security/cookies.py configure sessions, and only app/accounts/identity.py end them",
                (
                    "V7.2.4",
                    "V7.3.1",
                    "V7.3.2",
                    "V7.4.1",
                    "V7.4.3",
                    "V8.2.2",
                    "V14.3.1",
                ),
            ),
            Step(
                "4.S5",
                "__Host- prefix, path / and no domain",
                "Let only app/security/cookies.py configure the session cookie",
                ("V3.3.3",),
            ),
        ),
    ),
    5: Mitigation(
        "Error handling",
        "ER",
        ("errors",),
        (
            Step(
                "5.S1",
                "Every status has its own page, and for scripts a problem (RFC 9457)",
                "Let app/security/errors.py handle every failure",
                ("V16.5.1",),
            ),
            Step(
                "5.S2",
                "No response reveals how the app is built",
                "Let app/security/errors.py handle every failure",
                (
                    "V16.5.1",
                    "V13.4.2",
                ),
            ),
            Step(
                "5.S3",
                "The log has all details and security events, with the id that the page shows, without secrets",
                "Let app/security/errors.py handle every failure; call security_event of app/logs.py",
                (
                    "V16.2.5",
                    "V16.3.1",
                    "V16.3.2",
                    "V16.3.3",
                    "V16.3.4",
                    "V16.4.1",
                ),
            ),
            Step(
                "5.S4",
                "One handler for all failures, which can't fail itself",
                "Let app/security/errors.py and app/accounts/database.py handle every failure",
                (
                    "V16.5.2",
                    "V16.5.3",
                    "V16.5.4",
                ),
            ),
            Step(
                "5.S5",
                "Always the correct status, with Allow and Retry-After",
                "Let app/security/errors.py handle every failure",
                ("V13.4.4",),
            ),
        ),
    ),
    6: Mitigation(
        "Security headers",
        "HD",
        ("headers",),
        (
            Step(
                "6.S1",
                "Flask-Talisman is a pinned dependency",
                "Pin flask-talisman and all other packages in requirements.txt, with hashes",
                ("V15.2.4",),
            ),
            Step(
                "6.S2",
                "Every response has them: pages, files, redirects, errors, unknown hosts",
                "Let app/security/headers.py set the headers; loosen a view with its @relax(reason, headers={…})",
                (
                    "V3.4.1",
                    "V3.4.4",
                ),
            ),
            Step(
                "6.S3",
                "A 308 to https on the canonical host, HSTS, no framing, no MIME sniffing",
                "Let app/security/headers.py set the headers; loosen a view with its @relax(reason, headers={…})",
                (
                    "V3.4.1",
                    "V3.4.4",
                    "V4.1.3",
                ),
            ),
            Step(
                "6.S4",
                "Referrer, permissions and isolation policies; no personal data in caches",
                "Let app/security/headers.py set the headers; loosen a view with its @relax(reason, headers={…})",
                (
                    "V3.4.2",
                    "V3.4.5",
                    "V3.4.8",
                    "V3.5.8",
                    "V13.4.6",
                    "V14.3.2",
                ),
            ),
            Step("6.S5", "Scanners are part of the tests", "Keep tests/test_scanners.py"),
        ),
    ),
    7: Mitigation(
        "Safe template rendering",
        "TM",
        ("templating",),
        (
            Step(
                "7.S1",
                "Every template escapes, whatever its file name, and an undefined name is an error",
                "Set autoescape and StrictUndefined, as app/security/templating.py did",
                ("V1.2.1",),
            ),
            Step(
                "7.S2",
                "No output in scripts, raw blocks or unquoted attributes",
                "Quote the attribute; pass data to scripts with tojson in a data attribute",
                (
                    "V1.2.1",
                    "V1.2.2",
                    "V1.2.3",
                ),
            ),
            Step(
                "7.S3",
                "|safe and Markup only where the list of exceptions gives a reason",
                "Print the value with plain {{ }}, or give the reason in templating.ALLOWED",
                ("V1.2.1",),
            ),
            Step(
                "7.S4",
                "No template is built from data",
                "Use a template file, or templating.fill_placeholders",
                ("V1.3.7",),
            ),
            Step("7.S5", "Escaping is verified at run time", "Set autoescape to True", ("V1.2.1",)),
        ),
    ),
    8: Mitigation(
        "Rate limiting",
        "RL",
        (
            "rate_limits",
            "guessing",
        ),
        (
            Step(
                "8.S1",
                "Flask-Limiter is pinned and active",
                "Pin flask-limiter and all other packages in requirements.txt, with hashes; call rate_limits.init_app",
                (
                    "V2.4.1",
                    "V15.2.4",
                ),
            ),
            Step(
                "8.S2",
                "Requests count by user or address, IPv6 by network; only our own proxies are trusted",
                "Let app/security/rate_limits.py count; set stricter limits with @limited",
                (
                    "V2.4.1",
                    "V4.1.3",
                ),
            ),
            Step(
                "8.S3",
                "Every route has a limit, a stricter one where guessing or flooding pays off",
                "Let app/security/ count, and deploy/nginx.conf handle slow clients",
                (
                    "V2.4.1",
                    "V16.5.2",
                ),
            ),
            Step(
                "8.S4",
                "Password guesses wait 1, 2, 4 … seconds, up to 15 minutes; no account is locked",
                "Call backoff.claim_attempt before verifying a password, attempt_succeeded after a correct one",
                (
                    "V6.2.4",
                    "V6.3.1",
                    "V6.3.8",
                ),
            ),
            Step(
                "8.S5",
                "A 429 tells people and scripts how long to wait; the form shows the tries left",
                "Let app/security/rate_limits.py count; set stricter limits with @limited",
            ),
        ),
    ),
    9: Mitigation(
        "File uploads",
        "UP",
        ("uploads",),
        (
            Step(
                "9.S1",
                "Extension, signature and declared type agree; images are encoded again",
                "Accept files with uploads.save_all; another type is a row in app/storage/content.py, with its check",
                (
                    "V1.3.4",
                    "V5.2.2",
                    "V5.2.6",
                ),
            ),
            Step(
                "9.S2",
                "The client's file name is only for display",
                "Accept files with uploads.save_all, and send them with uploads.send",
                (
                    "V5.3.2",
                    "V5.4.2",
                ),
            ),
            Step(
                "9.S3",
                "Stored outside the app, readable only by the app, not executable",
                "Set UPLOAD_DIR to a folder outside the app, and chmod 700 it",
                ("V5.3.1",),
            ),
            Step(
                "9.S4",
                "Stored under a random name of 128 bits",
                "Accept files with uploads.save_all, and send them with uploads.send",
                ("V5.3.2",),
            ),
            Step(
                "9.S5",
                "Limits on size, number, parts, quota, disk usage and the work of images",
                "Set MAX_CONTENT_LENGTH and the quotas, or @accepts(max_bytes=…) on a view; keep the other limits",
                (
                    "V5.2.1",
                    "V5.2.4",
                ),
            ),
            Step(
                "9.S6",
                "Files can be scanned for malware; without a verdict, the upload is refused",
                "Let app/security/uploads.py scan; set CLAMD_URL",
                (
                    "V5.4.3",
                    "V16.5.2",
                    "V16.5.3",
                ),
            ),
            Step(
                "9.S7",
                "Sent only to the owner, as data; with accounts, a view is for members unless it says @public",
                "Accept files with uploads.save_all, and send them with uploads.send",
                (
                    "V3.2.1",
                    "V3.5.8",
                    "V5.4.1",
                    "V5.4.2",
                    "V8.2.2",
                ),
            ),
        ),
    ),
    10: Mitigation(
        "Redirects and URLs",
        "UR",
        ("urls",),
        (
            Step(
                "10.S1",
                "Parameters are typed and limited in length; a repeated one is no single value",
                "Write a converter with a limit, <string(maxlength=80):name>; read repeated arguments with getlist",
                ("V15.3.7",),
            ),
            Step(
                "10.S2",
                "Redirects stay on the host, or lead to declared hosts, or through a page that shows the target",
                "Use url_for, redirect_to for targets from a request, @may_redirect_to for hosts that code chooses",
                (
                    "V3.7.2",
                    "V3.7.3",
                ),
            ),
            Step("10.S3", "Every link within the app is built by url_for", "Write {{ url_for(…) }} instead of the URL"),
            Step(
                "10.S4",
                "One function decides; redirects by other code are checked before they are sent",
                "Use url_for, redirect_to for targets from a request, @may_redirect_to for hosts that code chooses",
                ("V3.7.2",),
            ),
            Step(
                "10.S5",
                "The host comes from the settings; a guard checks every URL that the app fetches",
                "Set TRUSTED_HOSTS and SERVER_NAME; fetch with outgoing.fetch_outgoing",
                (
                    "V4.1.3",
                    "V1.3.6",
                ),
            ),
        ),
    ),
}
