"""A real S3 server on loopback: OpenStack Swift with its S3 API, in one process.

It checks signatures, and answers a write only after the data is on the disk.
``python -m tests.s3_server FOLDER PORT`` starts it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.servers import free_port, launch, stop, wait_for

KEY_ID, SECRET = "test:app", "S3-secret-of-the-tests-wB4nT9"
CONF = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
log_level = ERROR
[pipeline:main]
pipeline = {pipeline}
[app:account]
use = egg:swift#account
[app:container]
use = egg:swift#container
[app:object]
use = egg:swift#object
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
max_bucket_listing = 5
[filter:tempauth]
use = egg:swift#tempauth
user_test_app = {secret} .admin
user_test_stranger = {secret}
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""


class S3:
    """The server. Its bucket is ``uploads``."""

    def __init__(self, folder: Path) -> None:
        self.port, self.log = free_port(), folder / "log"
        self.command = [sys.executable, "-W", "ignore", "-m", "tests.s3_server", str(folder), str(self.port)]
        self.start()
        client_of(self.settings()).create_bucket(Bucket="uploads")

    def start(self) -> None:
        self.process = launch(self.command, self.log)
        wait_for(self.port, self.process, self.log)

    def kill(self) -> None:
        stop([self.process])

    def hang(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def settings(self, port: int = 0) -> dict[str, object]:
        """The settings of an app, with a new prefix. ``port`` may be that of a relay to the server."""
        return {
            "UPLOAD_STORAGE": f"s3://uploads/{uuid4().hex}",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port or self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }


def client_of(config: Mapping[str, Any]) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=config["AWS_ENDPOINT_URL_S3"],
        region_name=config["AWS_DEFAULT_REGION"],
        aws_access_key_id=config["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=config["AWS_SECRET_ACCESS_KEY"],
    )


def objects(config: Mapping[str, Any]) -> list[str]:
    """The names of all objects of an app, without its prefix."""
    prefix = config["UPLOAD_STORAGE"].removeprefix("s3://uploads/") + "/"
    client = client_of(config)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="uploads", Prefix=prefix)
    found = [each["Key"].removeprefix(prefix) for page in pages for each in page.get("Contents", ())]
    client.close()
    return found


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    if sys.platform != "linux" and not importlib.util.find_spec("swift"):
        pytest.skip("OpenStack Swift runs on Linux only")
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3]:
    """A server that a test may stop."""
    (tmp_path / "s3").mkdir()
    server = S3(tmp_path / "s3")
    yield server
    server.kill()


def serve(folder: Path, port: int) -> None:
    import eventlet

    eventlet.monkey_patch()
    from eventlet import wsgi
    from swift.common import utils
    from swift.common.ring import RingBuilder
    from swift.common.wsgi import loadapp

    def load(pipeline: str) -> Any:
        conf = folder / f"{pipeline.split()[-1]}.conf"
        conf.write_text(CONF.format(folder=folder, pipeline=pipeline, secret=SECRET))
        return loadapp(str(conf))

    utils.HASH_PATH_SUFFIX = b"tests"  # else it must be in /etc/swift
    (folder / "devices/one").mkdir(parents=True, exist_ok=True)
    places = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in ("account", "container", "object")}
    for kind, place in places.items():
        ring = RingBuilder(1, 1, 1)
        device = {"region": 1, "zone": 1, "weight": 1, "device": "one", "ip": "127.0.0.1"}
        ring.add_dev(device | {"port": place.getsockname()[1]})
        ring.rebalance()
        ring.get_ring().save(str(folder / f"{kind}.ring.gz"))
    for kind, place in places.items():
        eventlet.spawn(wsgi.server, place, load(kind), log_output=False)
    proxy = load("cache s3api tempauth bulk slo proxy-server")
    wsgi.server(eventlet.listen(("127.0.0.1", port)), proxy, log_output=False)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
