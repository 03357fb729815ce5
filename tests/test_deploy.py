"""The examples for systemd, Kubernetes and Docker: they are valid, they work, and they give the app few rights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import Cookiecutter, check_all_passed, outside
from tests.programs import ROOT
from tests.programs import app as of_app

ACCOUNTS = pytest.mark.parametrize("accounts", ["yes", "no"])
KUBERNETES = "1.37"
EXPOSURE = "20"  # of 100, in the words of systemd-analyze: less is better


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is part of Linux")
@ACCOUNTS
def test_systemd_takes_the_units_and_confines_the_app(
    cookiecutter: Cookiecutter, tmp_path: Path, accounts: str
) -> None:
    app = cookiecutter.app(f"accounts={accounts}")
    units = tmp_path / "units"
    shutil.copytree(app / "deploy/systemd", units)
    started = []
    for service in units.glob("*.service"):
        text = service.read_text(encoding="utf-8")
        started += re.findall(r"(?m)^Exec\w+=/srv/app/\.venv/bin/(.+)$", text)
        # verify looks whether the programs are there
        service.write_text(re.sub(r"(?m)^(Exec\w+=)/srv/app/\.venv/bin/\w+", r"\1/bin/true", text), encoding="utf-8")
    migrate = ["flask --app app db upgrade"] * (accounts == "yes")
    assert sorted(started) == sorted(
        [*migrate, "flask --app app uploads sweep", "python gunicorn.conf.py --worker-tmp-dir /dev/shm wsgi:app"]
    )

    def analyze(*arguments: str | Path) -> tuple[int, str]:
        # After the colon come the folders of the system.
        environment = outside() | {"SYSTEMD_UNIT_PATH": f"{units}:"}
        ended = subprocess.run(
            ["systemd-analyze", *arguments], env=environment, capture_output=True, encoding="utf-8", cwd=units
        )
        return ended.returncode, ended.stderr

    names = [path.name for path in units.iterdir() if path.is_file()]
    status, told = analyze("verify", "--man=no", *(units / name for name in names))
    assert (status, [line for line in told.splitlines() if "app-" in line]) == (0, [])
    judge = ("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager")
    for name in ("app-web.service", "app-sweep.service"):
        assert analyze(*judge, name)[0] == 0
    web = (units / "app-web.service").read_text(encoding="utf-8")
    patience = int(re.search(r"(?m)^TimeoutStopSec=(\d+)$", web)[1])
    assert patience > int(re.search(r"(?m)^graceful_timeout = (\d+)$", (app / "gunicorn.conf.py").read_text())[1])
    # What makes the difference is seen: without it, neither of them passes.
    shutil.rmtree(units / "app-.service.d")
    assert analyze(*judge, "app-web.service")[0] != 0
    (units / "app-web.service").write_text(web.replace("Type=notify", "Typ=notify"), encoding="utf-8")
    assert re.search("app-web.service:.*'Typ'", analyze("verify", "--man=no", units / "app-web.service")[1])


def validate(documents: Iterable[dict[str, Any]]) -> None:
    """Compare documents to the schemas of Kubernetes. A name that they do not know is refused too."""
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods that the documents start, by the part of the app that each runs."""
    found = {}
    for document in documents:
        template = document["spec"] if document["kind"] in ("Deployment", "Job", "CronJob") else {}
        for key in ("jobTemplate", "spec", "template"):
            template = template.get(key, template)
        if "containers" in template.get("spec", {}):
            found[template["metadata"]["labels"]["part"]] = template["spec"]
    return found


@ACCOUNTS
def test_kubernetes_takes_the_manifest_and_confines_the_app(cookiecutter: Cookiecutter, accounts: str) -> None:
    app = cookiecutter.app(f"accounts={accounts}")
    documents = list(yaml.safe_load_all((app / "deploy/kubernetes.yaml").read_text(encoding="utf-8")))
    validate(documents)
    assert "Secret" not in {document["kind"] for document in documents}
    assert pods(documents).keys() == {"web", "sweep", *["migrate"] * (accounts == "yes")}
    for pod in pods(documents).values():
        # What the Pod Security Standard "restricted" asks for, a read-only system and no token of the cluster.
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all({"persistentVolumeClaim", "emptyDir"} & volume.keys() for volume in pod.get("volumes", ()))
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert container["envFrom"] == [{"configMapRef": {"name": "app"}}, {"secretRef": {"name": "app"}}]
        assert "env" not in container
    settings = next(document["data"] for document in documents if document["kind"] == "ConfigMap")
    assert "REQUEST_ID_HEADER" not in settings  # ingress-nginx hands on that of the client
    pod = pods(documents)["web"]
    (container,) = pod["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert f"\nEXPOSE {container['ports'][0]['containerPort']}\n" in (app / "deploy/Dockerfile").read_text()
    graceful = int(re.search(r"(?m)^graceful_timeout = (\d+)$", (app / "gunicorn.conf.py").read_text())[1])
    paused = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > graceful + paused


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("replicas: 2", "replicas: two"),
        ("runAsNonRoot: true", "runAsNonroot: true"),
        ("path: /healthz, port: http", "path: /healthz"),
    ],
)
def test_the_judge_of_manifests(cookiecutter: Cookiecutter, before: str, after: str) -> None:
    text = (cookiecutter.app() / "deploy/kubernetes.yaml").read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(yaml.safe_load_all(text.replace(before, after)))


# Namespaces of their own, with a file system in memory: all mounts are gone when the last process there ends.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
IN_MEMORY = 'mount -t tmpfs tmpfs /mnt && exec "$@"'


def test_the_image_is_built_and_runs(record_property: pytest.RecordProperty) -> None:
    """Run tests/image.py. That needs no container runtime, but root on a Debian or Ubuntu that allows mounts."""
    prefix = of_app.root() if sys.platform == "linux" and of_app.manager() == "apt-get" else None
    apart = [*(prefix or ()), *APART, "sh", "-c", IN_MEMORY, "sh"]
    if prefix is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        reason = "the image can be built only as root on a Debian or Ubuntu that allows mounts (unshare --mount)"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    tests = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--basetemp=/mnt/tests", "tests/image.py"]
    ended = subprocess.run([*apart, *tests], cwd=ROOT, env=outside(), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    record_property("the tests of the image", check_all_passed(ended.stdout))
