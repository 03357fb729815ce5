"""What requests cost as an app grows: ``python growing.py FOLDER ROUNDS``, in the environment of a generated app.

Prints, as JSON, CPU milliseconds by what grows and by its size, one value for each round. The sizes take turns.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from unittest import mock

import contender

REPEATED = 10
SIZES = (10, 1_000, 10_000, 100_000)

Call = Callable[[], object]


def clients(folder: Path, place: Path, size: int) -> dict[str, Call]:
    """Return a request to an app whose limits know ``size`` clients."""
    browser = contender.Browser(contender.whole(folder, "", place))
    from app.security import counters
    from app.security.rate_limits import limiter

    known = counters.BoundedCounters(counters.MAX_KEYS)
    for number in range(size):
        known.incr(f"LIMITER/client {number}", 3600)

    def call() -> None:
        with mock.patch.object(limiter.storage, "memory", known):  # all apps of this process share the limiter
            browser.get("json").close()

    return {"clients that the limits know": call}


def files(folder: Path, place: Path, size: int) -> dict[str, Call]:
    """Return the check of the quota and the list of an owner of ``size`` files."""
    app = contender.whole(folder, "", place)
    from app.storage import folder as uploads

    owner = f"session-{secrets.token_hex(16)}"
    with app.app_context():
        stored = uploads.store(BytesIO(b"Ten bytes."), "a.txt", "text/plain", owner, check_quota=lambda _: None)
    first = app.config["UPLOAD_DIR"] / owner / stored.id
    for _ in range(size - 1):
        copy = first.with_name(secrets.token_hex(16))
        shutil.copyfile(first, copy)
        shutil.copyfile(first.with_suffix(".json"), copy.with_suffix(".json"))

    def in_app(read: Callable[[str], object]) -> Call:
        def call() -> None:
            with app.app_context():
                read(owner)

        return call

    return {
        "files of an owner: the quota": in_app(uploads.sizes),
        "files of an owner: the list": in_app(uploads.listing),
    }


def accounts(folder: Path, place: Path, size: int) -> dict[str, Call]:
    """Return a signed-in request to an app with ``size`` accounts, each with a session."""
    app = contender.whole(folder, "", place)
    import sqlalchemy as sa
    from app.accounts.models import Session, User, db

    with app.app_context():
        ids, now = range(1, size), datetime.now(UTC).replace(tzinfo=None)
        keys = {number: secrets.token_hex(16) for number in ids}
        people = [{"id": n, "email": f"{n}@example.com", "password": "none", "fs_uniquifier": keys[n]} for n in ids]
        theirs = {"user_agent": "", "created_at": now, "last_seen_at": now}
        sessions = [{"id": keys[n], "user_id": n, "fs_uniquifier": keys[n], **theirs} for n in ids]
        for table, rows in ((User, people), (Session, sessions)):
            if rows:
                db.session.execute(sa.insert(table), rows)
        db.session.commit()
    browser = contender.Browser(app)
    browser.arrive("member")
    return {"accounts with a session": lambda: browser.get("member").close()}


def routes(folder: Path, place: Path, size: int) -> dict[str, Call]:
    """Return a request to an app with ``size`` more routes."""
    app = contender.whole(folder, "", place)
    for number in range(size):
        app.add_url_rule(f"/bench/{number}/<int:id>", f"bench_{number}", lambda id: "")
    browser = contender.Browser(app)
    return {"routes": lambda: browser.get("json").close()}


# What prepares the calls for a size → the sizes.
PREPARED = {clients: SIZES, accounts: SIZES, routes: SIZES[:2], files: SIZES[:3]}


def main(folder: Path, rounds: int) -> None:
    calls: dict[tuple[str, int], Call] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        for prepare, sizes in PREPARED.items():
            for size in sizes:
                (own := Path(place, f"{prepare.__name__}-{size}")).mkdir()
                calls |= {(name, size): call for name, call in prepare(folder, own, size).items()}
        logging.disable(logging.CRITICAL)
        for call in calls.values():
            call()  # the first one compiles and caches
        taken: dict[str, dict[int, list[float]]] = {name: {} for name, _ in calls}
        for _ in range(rounds):
            for (name, size), call in calls.items():
                start = time.process_time()
                for _ in range(REPEATED):
                    call()
                taken[name].setdefault(size, []).append((time.process_time() - start) * 1000 / REPEATED)
        print(json.dumps(taken))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
