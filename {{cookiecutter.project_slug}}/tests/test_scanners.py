"""What other people's scanners make of the app, as it answers under gunicorn over TLS (6.S5).

Those of npm are pinned in tests/scanners. Its "overrides" put a package that is there anyway in the place of the server
and the database of Observatory's own website: more than a hundred packages that its scan never loads.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from flask import Flask
from playwright._impl._driver import compute_driver_executable
from werkzeug.serving import make_server

from app import create_app
from app.security.headers import HEADERS
from tests.conftest import Server, browser_like, pages
from tests.policies import relaxed_at, with_relaxations

HERE = Path(__file__).parent / "scanners"
# Debian 12's npm can't read the overrides, and its Node can't run Observatory. Playwright has a Node of its own.
NPM = ("npm", "exec", "--yes", "--", "npm@10.9.9")
NODE = compute_driver_executable()[0]

# Fallbacks for browsers older than CSP 3, which would then run any inline script, or one from any host.
ACCEPTED = {("STRICT_CSP", "script-src")}


@pytest.fixture(scope="session")
def scanners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the installed scanners; the workers of pytest-xdist share it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    installed = shared / "scanners"
    with (shared / "scanners.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists():
            fresh = shared / "scanners.new"
            shutil.copytree(HERE, fresh, dirs_exist_ok=True)
            run(*NPM, "ci", cwd=fresh)
            # Its install script would fetch the list of hosts whose HSTS is preloaded; localhost is none of them.
            (fresh / "node_modules/@mdn/mdn-http-observatory/conf/hsts-preload.json").write_text("{}")
            fresh.rename(installed)
    return installed


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> str:
    """The file with the certificate that the scanners have to trust."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


@contextmanager
def plain_http(app: Flask) -> Iterator[int]:
    """Serve the app without TLS, and give the port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def observatory(
    serve: Callable[..., Server], scanners: Path, trust: str, app_config: dict[str, object]
) -> Callable[..., dict[str, Any]]:
    def scan(**config: object) -> dict[str, Any]:
        server = serve(**config)
        host = f"localhost:{server.port}"
        with plain_http(create_app(app_config | config | {"SERVER_NAME": host})) as http_port:
            command = [NODE, "observatory.mjs", host, str(http_port)]
            report: dict[str, Any] = json.loads(run(*command, cwd=scanners, NODE_EXTRA_CA_CERTS=trust))
        return report

    return scan


def test_6_S5_observatory_gives_its_best_grade(app: Flask, observatory: Callable[..., dict[str, Any]]) -> None:
    report = observatory()
    relaxed = relaxed_at(app, "/")  # Observatory looks at the home page alone
    declared = {name.lower() for each in relaxed for name in each.headers}
    declared |= {"content-security-policy", "x-frame-options"} if any(each.csp for each in relaxed) else set()
    assert {
        name: test["result"] for name, test in report["tests"].items() if not test["pass"] and name not in declared
    } == {}
    assert report["tests"]["redirection"]["result"] == "redirection-to-https"
    assert report["tests"]["strict-transport-security"]["maxAge"] == 63072000
    assert report["scan"]["grade"] == "A+" or declared


def test_6_S5_observatory_sees_a_policy_that_only_reports(observatory: Callable[..., dict[str, Any]]) -> None:
    report = observatory(CSP_REPORT_ONLY=True)
    assert not report["tests"]["content-security-policy"]["pass"]


def csp_findings(scanners: Path, policy: str) -> set[tuple[str, str]]:
    findings = json.loads(run(NODE, "csp.mjs", policy, cwd=scanners))
    return {(severity, directive) for severity, directive, _ in findings}


def test_6_S5_csp_evaluator_finds_nothing_in_the_policy_of_a_page(
    app: Flask, serve: Callable[..., Server], scanners: Path
) -> None:
    server = serve()
    for page in [*pages(browser_like(app)), "/nothing"]:
        _, received, _ = server.request(page, headers={"Accept": "text/html"})
        declared = {name for each in relaxed_at(app, page) for name in each.csp}
        found = csp_findings(scanners, received["Content-Security-Policy"]) - ACCEPTED
        assert (page, {finding for finding in found if finding[1] not in declared}) == (page, set())


@pytest.mark.parametrize(
    ("policy", "finding"),
    [
        ("script-src 'unsafe-inline'; object-src 'none'; base-uri 'none'", ("HIGH", "script-src")),
        ("script-src 'nonce-aaaaaaaaaaaaaaaaaaaaaa'; object-src 'none'", ("HIGH", "base-uri")),
        ("default-src 'none'; scrpt-src 'self'", ("SYNTAX", "scrpt-src")),
    ],
)
def test_6_S5_csp_evaluator_sees_a_weak_policy(scanners: Path, policy: str, finding: tuple[str, str]) -> None:
    assert finding in csp_findings(scanners, policy) - ACCEPTED


def test_6_S5_shcheck_misses_no_header(app: Flask, serve: Callable[..., Server], trust: str, tmp_path: Path) -> None:
    server = serve()
    addresses = [server.url + path for path in (*pages(browser_like(app)), "/nothing", "/static/app.css", "/healthz")]
    shcheck = [sys.executable, "-m", "shcheck.shcheck", "--json-output", "--use-get-method", "--information"]
    reports = json.loads(run(*shcheck, *addresses, cwd=tmp_path, SSL_CERT_FILE=trust))
    assert sorted(reports) == sorted(addresses)
    for address, report in reports.items():
        removed = HEADERS.keys() - with_relaxations(HEADERS, relaxed_at(app, address.removeprefix(server.url))).keys()
        assert (address, set(report["missing"]) - removed) == (address, set())
    told = [report["information_disclosure"] for report in reports.values()]
    assert told == [{"Server": "web"}] * len(addresses)  # no program, no version, and nothing of Flask
