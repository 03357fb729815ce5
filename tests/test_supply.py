"""What others built, and what it may do: actions, images and packages are pinned, and each service has its bounds.

A renewal changes no line here: the tests say what a pin looks like, not what is pinned.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clean_copy import APP
from tests.conftest import Cookiecutter, outside

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = [path for place in (ROOT, ROOT / APP) for path in sorted(place.glob(".github/workflows/*.y*ml"))]
DEPLOY = ROOT / APP / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}

# A commit, and the release that it is, for the reader and for Dependabot.
ACTION = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# A whole version. A digest as well, where its publisher does not rebuild what is under the tag.
# PostgreSQL's versions have two numbers.
IMAGE = re.compile(r"(postgres:\d+\.\d+|[\w./-]+:v?\d+\.\d+\.\d+)[\w.-]*(@sha256:[0-9a-f]{64})?")


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        (f"actions/checkout@{'0a' * 20} # v7.0.1", True),
        (f"github/codeql-action/init@{'0a' * 20} # v4.1.0", True),
        ("actions/checkout@v7.0.1", False),
        ("actions/checkout@main", False),
        ("actions/checkout", False),
        ("actions/checkout@0a0a0a0 # v7.0.1", False),
        (f"actions/checkout@{'0a' * 20}", False),
        (f"actions/checkout@{'0a' * 20} # v7", False),
    ],
)
def test_the_judge_of_actions(reference: str, pinned: bool) -> None:
    assert bool(ACTION.fullmatch(reference)) is pinned


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        ("nginx:1.30.5-alpine3.24", True),
        (f"nginx:1.30.5@sha256:{'0a' * 32}", True),
        ("registry.example/team/app:1.2.3", True),
        ("axllent/mailpit:v1.31.2", True),
        ("postgres:17.11-alpine3.24", True),
        ("postgres:17-alpine3.24", False),
        ("nginx", False),
        ("nginx:latest", False),
        ("nginx:1.30-alpine", False),
        ("clamav/clamav:1.4", False),
        ("python:3.11-slim", False),
        (f"nginx@sha256:{'0a' * 32}", False),  # nobody could tell which version that is
        (f"nginx:1.30.5@sha256:{'0a' * 31}", False),
        ("python:${{ matrix.python }}-trixie", False),
    ],
)
def test_the_judge_of_images(reference: str, pinned: bool) -> None:
    assert bool(IMAGE.fullmatch(reference)) is pinned


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a YAML document, with the key that it is under."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from leaves(child, str(name))
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, key)
    elif isinstance(node, str):
        yield key, node


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.relative_to(ROOT).parts[0])
def test_a_workflow_uses_pinned_actions_and_images(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = list(leaves(yaml.safe_load(text)))
    used = [value for key, value in found if key == "uses"]
    lines = re.findall(r"(?m)^\s*(?:- )?uses: (.*)$", text)
    assert len(used) == len(lines) > 0
    assert [line for line in lines if not line.startswith("./") and not ACTION.fullmatch(line)] == []
    # What starts containers. A matrix gives the images that it stands for under the same key.
    images = [value for key, value in found if key in ("container", "image") and value != "${{ matrix.image }}"]
    assert [image for image in images if not IMAGE.fullmatch(image)] == []
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_both_workflows_are_judged() -> None:
    assert [path.relative_to(ROOT).parts[0] for path in WORKFLOWS] == [".github", APP]


def test_the_images_of_a_deployment_are_pinned() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    others = [service["image"] for service in SERVICES.values() if "build" not in service]
    # The stages of the Dockerfile come from each other, and one of them from outside.
    stages = {"base", "packages"}
    used = set(re.findall(r"(?m)^(?:FROM|COPY --from=) *(?:--\S+ +)*(\S+)", dockerfile)) - stages
    images = [*others, *used]
    assert len(used) == 1
    assert stages == set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", dockerfile))
    assert [image for image in images if not IMAGE.fullmatch(image)] == []


@pytest.mark.parametrize("folder", [ROOT, ROOT / APP], ids=["template", "app"])
def test_nothing_is_installed_without_its_hash(folder: Path) -> None:
    """The lock's own tool is a package like the others: it could write anything into the lock."""
    places = [folder / "Makefile", *folder.glob("deploy/Dockerfile"), *folder.glob(".github/workflows/*")]
    installs = re.findall(
        r"(?m)^.*\bpip (?:--\S+ \S+ )?install\b.*$", "\n".join(path.read_text(encoding="utf-8") for path in places)
    )
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []
    assert re.search(r"(?m)^uv==[\d.]+ \\\n    --hash=sha256:", (folder / "requirements-dev.txt").read_text())


@pytest.mark.parametrize(
    ("folder", "expected"),
    [(ROOT, {"pip", "github-actions"}), (ROOT / APP, {"pip", "github-actions", "docker", "docker-compose", "npm"})],
    ids=["template", "app"],
)
def test_dependabot_renews_each_kind_of_pin_each_week(folder: Path, expected: set[str]) -> None:
    lines = (folder / ".github/dependabot.yml").read_text(encoding="utf-8").splitlines()
    updates = yaml.safe_load("\n".join(line for line in lines if not line.startswith("# %")))["updates"]
    assert {update["package-ecosystem"] for update in updates} == expected
    assert {update["schedule"]["interval"] for update in updates} == {"weekly"}


def mebibytes(size: str) -> float:
    amount, unit = re.fullmatch(r"(\d+)([kmg])", size).groups()
    return int(amount) * UNITS[unit] / 2**20


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_each_bound(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert 0 < service["pids_limit"] <= 256
    assert service.get("networks") or service["network_mode"] == "none"
    # What is in memory counts against its limit, and none of it is without one.
    sizes = [re.search(r":size=(\d+[kmg])$", mount) for mount in service.get("tmpfs", [])]
    assert all(sizes)
    in_memory = sum(mebibytes(size[1]) for size in sizes) + mebibytes(service.get("shm_size", "64m"))
    assert 0 < in_memory < mebibytes(service["mem_limit"])
    # Neither a way out of the container, nor one in around the proxy.
    refused = {"privileged", "pid", "ipc", "userns_mode", "devices", "group_add"}
    assert not refused & service.keys()
    assert "docker.sock" not in json.dumps(service)
    ports = {"proxy": ["0.0.0.0:80:80", "0.0.0.0:443:443"], "mailpit": ["127.0.0.1:8025:8025"]}
    assert service.get("ports") == ports.get(name)
    assert service.get("profiles") == (["try"] if name == "mailpit" else None)


def test_only_the_proxy_starts_as_root_to_read_its_key() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    *_, user = re.findall(r"(?m)^USER (\S+)$", dockerfile)
    users = {name: user if "build" in service else service.get("user") for name, service in SERVICES.items()}
    assert [name for name, user in users.items() if user in (None, "root", "0")] == ["proxy"]
    added = {name: set(service["cap_add"]) for name, service in SERVICES.items() if "cap_add" in service}
    assert added == {"proxy": {"CHOWN", "DAC_OVERRIDE", "NET_BIND_SERVICE", "SETGID", "SETUID"}}


def test_each_service_says_whether_it_works() -> None:
    checks = [name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})]
    assert "\nHEALTHCHECK " in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert {*checks, "app", "migrate"} == SERVICES.keys()  # the last one ends


def test_a_service_reaches_only_what_it_needs() -> None:
    networks = {name: network or {} for name, network in COMPOSE["networks"].items()}
    open_ones = {name for name, network in networks.items() if not network.get("internal")}
    joined = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    peers = {name: {other for other in joined if other != name and joined[other] & joined[name]} for name in joined}
    assert peers == {
        "proxy": {"app"},
        "app": {"proxy", "valkey", "clamav", "db", "migrate", "mailpit"},
        "migrate": {"app", "db"},
        "sweep": set(),
        "valkey": {"app"},
        "db": {"app", "migrate"},
        "mailpit": {"app"},
        "clamav": {"app"},
    }
    assert not (joined["valkey"] | joined["db"] | joined["migrate"]) & open_ones  # Valkey asks for no password
    # ClamAV fetches its signatures by a network that it shares with nobody.
    for network in joined["clamav"] & open_ones:
        assert [name for name in joined if network in joined[name]] == ["clamav"]


def test_the_temporary_files_of_all_uploads_at_once_fit() -> None:
    """Werkzeug keeps the body of each request that is being read in memory or in /tmp."""
    settings = (ROOT / APP / "app/settings.py").read_text(encoding="utf-8")
    factor, exponent = re.search(r"MAX_CONTENT_LENGTH: int = Field\(\s+default=(\d+) \* 2\*\*(\d+)", settings).groups()
    body = int(factor) * 2 ** int(exponent) / 2**20
    app = SERVICES["app"]
    threads = int(app["environment"]["WEB_CONCURRENCY"]) * int(app["environment"]["THREADS"])
    (mount,) = app["tmpfs"]
    room = mebibytes(re.fullmatch(r"/tmp:size=(\w+)", mount)[1])  # noqa: S108 - in the container
    assert threads * body <= room
    assert mebibytes(app["mem_limit"]) >= room + 1024  # two workers, and the pictures that they decode
    assert app["pids_limit"] >= 2 * threads
    assert '"--worker-tmp-dir", "/dev/shm"' in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_valkey_is_full_before_its_container_is() -> None:
    command = SERVICES["valkey"]["command"]
    limit = command[command.index("--maxmemory") + 1].removesuffix("b")
    assert mebibytes(limit) + 64 <= mebibytes(SERVICES["valkey"]["mem_limit"])


def run(command: list[str], app: Path, tmp_path: Path) -> list[str]:
    """Run a command of an image with stubs in the place of its programs, and give how they were called."""
    for name in ("flask", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(command, cwd=app, env={"PATH": path}, check=True, capture_output=True, encoding="utf-8")
    return ended.stdout.splitlines()


@pytest.mark.parametrize("how", ["accounts=yes", "accounts=no", "switched off, and the folder left"])
def test_the_app_starts_after_what_it_needs(cookiecutter: Cookiecutter, tmp_path: Path, how: str) -> None:
    """Its tables too, which are there and up to date before it starts. Only a person can give the password of them."""
    if "left" in how:
        app = cookiecutter.app()
        assert cookiecutter.run("-f", "accounts=no").returncode == 0
        assert (app / "app/accounts").is_dir()
    else:
        app = cookiecutter.app(how)
    text = (app / "deploy/compose.yaml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    needs = {name: needed["condition"] for name, needed in services["app"]["depends_on"].items()}
    accounts = how == "accounts=yes"
    tables = {"db": "service_healthy", "migrate": "service_completed_successfully"} if accounts else {}
    assert needs == {"valkey": "service_healthy", "clamav": "service_started"} | tables
    assert {"db", "migrate", "mailpit"} & services.keys() == ({"db", "migrate", "mailpit"} if accounts else set())
    assert ("${POSTGRES_PASSWORD:?" in services["app"]["environment"].get("DATABASE_URL", "")) is accounts
    dockerfile = (app / "deploy/Dockerfile").read_text(encoding="utf-8")
    command = json.loads(re.search(r"(?m)^CMD (\[.*\])$", dockerfile)[1])
    assert run(command, app, tmp_path) == ["python gunicorn.conf.py --worker-tmp-dir /dev/shm wsgi:app"]
    if accounts:
        assert run(services["migrate"]["command"], app, tmp_path) == ["flask --app app db upgrade"]
        assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
        assert services["migrate"]["environment"]["DATABASE_URL"] == services["app"]["environment"]["DATABASE_URL"]
    # Whoever stops the app waits for its requests.
    patience = int(services["app"]["stop_grace_period"].removesuffix("s"))
    assert patience > int(re.search(r"(?m)^graceful_timeout = (\d+)$", (app / "gunicorn.conf.py").read_text())[1])
    (tmp_path / "sleep").symlink_to("/bin/false")
    shell, option, loop = services["sweep"]["command"]
    once = loop.replace("while :; do", "for day in 1 2; do").replace("/tmp/swept", str(tmp_path / "swept"))  # noqa: S108
    assert run([shell, option, f"{once}; true"], app, tmp_path) == ["flask --app app uploads sweep"] * 2
    assert (tmp_path / "swept").exists()


def test_make_alone_lists_each_target_and_changes_nothing(cookiecutter: Cookiecutter) -> None:
    app = cookiecutter.app()
    for folder in (ROOT, app):
        text = (folder / "Makefile").read_text(encoding="utf-8")
        targets = " ".join(re.findall(r"(?m)^\.PHONY: (.*)$", text)).split()
        assert re.search(r"(?m)^([a-z]+):", text)[1] == "help"
        make = [shutil.which("make") or "make"]
        ended = subprocess.run(make, cwd=folder, env=outside(), capture_output=True, encoding="utf-8")
        assert ended.returncode == 0, ended.stderr
        listed = sorted(line.split()[:2] for line in ended.stdout.splitlines())
        assert listed == [["make", target] for target in sorted(targets)]
    assert not (app / ".venv").exists()
