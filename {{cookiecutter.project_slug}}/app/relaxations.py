"""What the whole app relaxes, each with a reason. This file is yours: no update of the template changes it again.

Relax a single view where you can: ``@relax(…)`` takes the same and leaves all other pages strict. What is listed here
holds for every response, also for error pages, and the audit shows it. For example::

    RELAXATIONS: tuple[relax, ...] = (
        relax("the pictures of our products are on a CDN", csp={"img-src": "'self' https://cdn.example"}),
        relax("Bootstrap's style sheet has pictures in it", csp={"img-src": "'self' data:"}),
    )
"""

from __future__ import annotations

from app.security.headers import relax

RELAXATIONS: tuple[relax, ...] = ()
