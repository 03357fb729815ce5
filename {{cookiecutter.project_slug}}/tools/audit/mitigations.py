"""The ten mitigations of this template and their 53 steps, with the requirements of ASVS 5.0 that each step checks.

A probe in ``tools/audit/probes/`` looks at each step. The table stands apart from the probes, so that a mitigation
whose code was removed still has its row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step: its id, what is done, and what to do when it is not."""

    id: str
    title: str
    fix: str
    asvs: tuple[str, ...] = ()

    @property
    def finding_id(self) -> str:
        """The id of the findings of this step: ``CF05`` for ``2.S5``."""
        number, _, position = self.id.partition(".S")
        return f"{MITIGATIONS[int(number)].letters}{int(position):02}"


@dataclass(frozen=True)
class Mitigation:
    """One mitigation. ``letters`` begin the ids of its findings, ``probes`` names the modules that look at it."""

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
            Step("1.S1", "The key is random, 256 bits or more", "Make one with: python -m app.security.secret_key new"),
            Step(
                "1.S2",
                "The key lives in .env alone, for its owner's eyes",
                "Run: chmod 600 .env; list it in .gitignore and .dockerignore",
            ),
            Step(
                "1.S3",
                "The environment wins over .env, whatever starts the app",
                "Read SECRET_KEY in app/settings.py as it was",
            ),
            Step("1.S4", "A guessable key stops the start", "Check the key at start, as app/settings.py did"),
            Step(
                "1.S5",
                "The key can be rotated, signing nobody out",
                "Use SECRET_KEY_FALLBACKS, and flask secret-key rotate",
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
                "Pin flask-wtf and all beside it in requirements.txt, with hashes",
                ("V15.2.4",),
            ),
            Step(
                "2.S2",
                "Tokens are signed with the key of mitigation 1",
                "Leave WTF_CSRF_SECRET_KEY to app/security/csrf.py",
                ("V3.5.1",),
            ),
            Step("2.S3", "Every form is a FlaskForm", "Let the form extend FlaskForm"),
            Step("2.S4", "Every form renders its token", "Add {{ form.hidden_tag() }} to the form", ("V3.5.1",)),
            Step(
                "2.S5",
                "Every state-changing route asks for the token",
                "Remove the exemption, or give its reason to csrf.exempt",
                (
                    "V3.5.1",
                    "V3.5.3",
                ),
            ),
            Step(
                "2.S6",
                "AJAX sends the token to its own origin; the origin of each request is checked",
                "Keep urls and headers as in app/security/csrf.py",
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
                "Pin flask-talisman and all beside it in requirements.txt, with hashes",
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
                "Nothing inline, nothing from elsewhere, scripts by nonce",
                "Keep POLICY in app/security/csp.py strict; loosen one view with relax_csp, which asks for a reason",
                (
                    "V3.4.3",
                    "V3.4.6",
                ),
            ),
            Step(
                "3.S4",
                "One policy for all; a view is loosened in one place, for a reason",
                "Keep POLICY in app/security/csp.py strict; loosen one view with relax_csp, which asks for a reason",
                (
                    "V3.4.3",
                    "V3.6.1",
                ),
            ),
            Step(
                "3.S5",
                "Violations are reported, cleaned, bounded and summed up",
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
                "Secure: never over http",
                "Leave the session's settings to app/security/cookies.py",
                (
                    "V3.3.1",
                    "V13.4.2",
                ),
            ),
            Step(
                "4.S2",
                "HttpOnly: out of reach for scripts",
                "Leave the session's settings to app/security/cookies.py",
                ("V3.3.4",),
            ),
            Step(
                "4.S3",
                "SameSite: not sent with other sites' forms",
                "Leave the session's settings to app/security/cookies.py",
                ("V3.3.2",),
            ),
            Step(
                "4.S4",
                "A session ends when idle, after its longest life, and with the sign-out",
                "Leave the settings of the session to app/security/cookies.py, and its end to app/accounts/identity.py",
                (
                    "V7.2.4",
                    "V7.3.1",
                    "V7.3.2",
                    "V7.4.1",
                    "V7.4.3",
                    "V8.2.2",
                ),
            ),
            Step(
                "4.S5",
                "A __Host- name, path / and no domain",
                "Leave the session's settings to app/security/cookies.py",
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
                "A page of its own for every status, a problem (RFC 9457) for scripts",
                "Leave every failure to app/security/errors.py",
                ("V16.5.1",),
            ),
            Step(
                "5.S2",
                "No answer tells how the app is built",
                "Leave every failure to app/security/errors.py",
                (
                    "V16.5.1",
                    "V13.4.2",
                ),
            ),
            Step(
                "5.S3",
                "The log has it all, with the id that the page shows, one line each, without secrets",
                "Leave every failure to app/security/errors.py",
                (
                    "V16.2.5",
                    "V16.4.1",
                    "V16.3.4",
                ),
            ),
            Step(
                "5.S4",
                "One handler for everything, which can't fail itself",
                "Leave every failure to app/security/errors.py and app/accounts/database.py",
                (
                    "V16.5.2",
                    "V16.5.3",
                    "V16.5.4",
                ),
            ),
            Step(
                "5.S5",
                "The right status every time, Allow and Retry-After included",
                "Leave every failure to app/security/errors.py",
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
                "Pin flask-talisman and all beside it in requirements.txt, with hashes",
                ("V15.2.4",),
            ),
            Step(
                "6.S2",
                "On every response: pages, files, redirects, errors, unknown hosts",
                "Leave the headers to app/security/headers.py; a view may set a stricter value itself",
                (
                    "V3.4.1",
                    "V3.4.4",
                ),
            ),
            Step(
                "6.S3",
                "https by a 308 to the canonical host, HSTS, no framing, no guessing of types",
                "Leave the headers to app/security/headers.py; a view may set a stricter value itself",
                (
                    "V3.4.1",
                    "V3.4.4",
                    "V4.1.3",
                ),
            ),
            Step(
                "6.S4",
                "Referrer, permissions, isolation; nothing personal in a cache",
                "Leave the headers to app/security/headers.py; a view may set a stricter value itself",
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
                "Every template escapes, whatever its name, and a misspelt name is an error",
                "Set autoescape and StrictUndefined, as app/security/templating.py did",
                ("V1.2.1",),
            ),
            Step(
                "7.S2",
                "Nothing prints into code, raw blocks or bare attributes",
                "Quote the attribute; carry data to scripts by tojson in a data attribute",
                (
                    "V1.2.1",
                    "V1.2.2",
                    "V1.2.3",
                ),
            ),
            Step(
                "7.S3",
                "|safe and Markup only where the list of exceptions says why",
                "Print the value with {{ }} alone, or say in templating.ALLOWED why not",
                ("V1.2.1",),
            ),
            Step(
                "7.S4",
                "No template is made from data",
                "Use a template file, or templating.fill_placeholders",
                ("V1.3.7",),
            ),
            Step("7.S5", "Escaping is proved at run time", "Set autoescape to True", ("V1.2.1",)),
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
                "Flask-Limiter is pinned, and counts",
                "Pin flask-limiter and all beside it in requirements.txt, with hashes; call rate_limits.init_app",
                (
                    "V2.4.1",
                    "V15.2.4",
                ),
            ),
            Step(
                "8.S2",
                "Who counts is the user or the address, IPv6 by /64; a proxy's word only if it is ours",
                "Leave counting to app/security/rate_limits.py; name stricter limits with @limited",
                (
                    "V2.4.1",
                    "V4.1.3",
                ),
            ),
            Step(
                "8.S3",
                "A limit for every route, stricter ones where guessing or flooding pays",
                "Leave counting to app/security/, and slow clients to deploy/nginx.conf",
                (
                    "V2.4.1",
                    "V16.5.2",
                ),
            ),
            Step(
                "8.S4",
                "Guesses at a password wait, 1, 2, 4 … seconds up to 15 minutes, and never for good",
                "Call claim_attempt before a password is verified, attempt_succeeded after the right one",
                (
                    "V6.3.1",
                    "V6.3.8",
                ),
            ),
            Step(
                "8.S5",
                "A 429 says for how long, to people and to scripts; a form says how many tries are left",
                "Leave counting to app/security/rate_limits.py; name stricter limits with @limited",
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
                "Extension, signature and declared type agree; images are made anew",
                "Take files through uploads.save_all, and give them back through uploads.send",
                (
                    "V1.3.4",
                    "V5.2.2",
                    "V5.2.6",
                ),
            ),
            Step(
                "9.S2",
                "The client's file name is for people only",
                "Take files through uploads.save_all, and give them back through uploads.send",
                (
                    "V5.3.2",
                    "V5.4.2",
                ),
            ),
            Step(
                "9.S3",
                "Stored outside the app, for the app's own eyes, not executable",
                "Set UPLOAD_DIR outside the app; chmod 700 it",
                ("V5.3.1",),
            ),
            Step(
                "9.S4",
                "Stored under a random name of 128 bits",
                "Take files through uploads.save_all, and give them back through uploads.send",
                ("V5.3.2",),
            ),
            Step(
                "9.S5",
                "Bounds on size, number, parts, quota and free disk",
                "Set MAX_CONTENT_LENGTH and the quotas; leave the bounds of uploads.py and deploy/nginx.conf",
                (
                    "V5.2.1",
                    "V5.2.4",
                ),
            ),
            Step(
                "9.S6",
                "Can be scanned for malware; no verdict, no upload",
                "Leave the scan to app/security/uploads.py; set CLAMD_URL",
                (
                    "V16.5.2",
                    "V16.5.3",
                ),
            ),
            Step(
                "9.S7",
                "Given back to the owner alone, as data",
                "Take files through uploads.save_all, and give them back through uploads.send",
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
                "Parameters are typed, bounded and single",
                "Give the route a converter with a bound; leave app/security/urls.py in front",
                ("V15.3.7",),
            ),
            Step(
                "10.S2",
                "Redirects stay on the host, or lead through a page that says where to",
                "Redirect with url_for, or with urls.redirect_to for what a request asks for",
                (
                    "V3.7.2",
                    "V3.7.3",
                ),
            ),
            Step(
                "10.S3", "Every link within the app is made by url_for", "Write {{ url_for(…) }} instead of the address"
            ),
            Step(
                "10.S4",
                "One function decides; a redirect of other code is checked on its way out",
                "Redirect with url_for, or with urls.redirect_to for what a request asks for",
                ("V3.7.2",),
            ),
            Step(
                "10.S5",
                "The host comes from the settings, and a guard stands before what the app fetches",
                "Set TRUSTED_HOSTS and SERVER_NAME; fetch through check_outgoing_url",
                (
                    "V4.1.3",
                    "V1.3.6",
                ),
            ),
        ),
    ),
}
