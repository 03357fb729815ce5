"""The policy as a browser reads it, for more than one kind of injected markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.lessons.lab import Lab
from tools.lessons.lesson_03.attack import PAGES

NONCE = re.compile(r"'nonce-([^']+)'")


def check(lab: Lab) -> Iterator[str]:
    """Yield what is still wrong with the fix."""
    with lab.serve(PAGES) as shop:
        visitor = shop.visitor()
        answers = [visitor.get(path) for path in ("/", "/", "/guestbook", "/there-is-no-such-page")]
    policies = [answer.policy for answer in answers]
    if not all(policies):
        yield "A page has no policy that blocks: a policy that only reports lets the attack through."
    nonces = []
    for policy in filter(None, policies):
        scripts = policy.get("script-src", policy.get("default-src", ""))
        nonces += (found := NONCE.findall(scripts))
        if "'unsafe-inline'" in scripts and not found and "'strict-dynamic'" not in scripts:
            yield "script-src has 'unsafe-inline' without a nonce: event handlers and scripts in the markup run."
        if hosts := [source for source in scripts.split() if source[0] != "'"]:
            yield f"script-src allows {hosts[0]}: <script src=…> in an entry runs what is there."
        if "'self'" in scripts and not found:
            yield "script-src 'self' has no nonce: markup may load every file of this site as a script."
        if not found and "'strict-dynamic'" in scripts:
            yield "script-src has 'strict-dynamic' and no nonce: no script of this app runs. See NONCE_IN."
        if policy.get("object-src", policy.get("default-src")) != "'none'" or policy.get("base-uri") != "'none'":
            yield "object-src and base-uri must be 'none', or markup gets around script-src."
    if len(set(nonces)) < len(nonces):
        yield "The nonce is the same in two responses: the thief writes it into his own <script nonce=…>."
    if nonces and nonces[0] not in answers[0].text:
        yield "The scripts of the home page do not have the nonce of the policy, so they don't run."
