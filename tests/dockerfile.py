"""Builds an image from a Dockerfile without a container runtime: each stage is a root file system for ``chroot``.

The base image is replaced by this machine's Debian or Ubuntu, with the Python that runs this, whose patch level may
differ. Above it, each stage has an overlayfs layer for what its instructions write. This needs root, and a mount
namespace that ends with this process (``unshare --mount``).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import pip

# Each stage sees these folders of this machine, with the changes of its layers.
SYSTEM = ("usr", "etc", "var")
# The variables that pip needs to reach a package index: a proxy, a mirror, a certificate.
INDEX = {name: value for name, value in os.environ.items() if re.match(r"(?i:PIP_|SSL_CERT_|\w+_proxy$)", name)}
# To compile each module of the packages would take longer than the rest of the build.
INDEX |= {"PIP_NO_COMPILE": "1", "DEBIAN_FRONTEND": "noninteractive"}


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield each instruction with its arguments. Comments may stand between its lines."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line:
            instruction, _, rest = line.partition(" ")
            yield instruction, rest


def context(folder: Path) -> set[str]:
    """Return the files that a build in the folder sees. For each, the last matching line of .dockerignore decides."""
    lines = [line for line in (folder / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    rules = [(line[0] != "!", line.lstrip("!")) for line in lines]

    def fits(pattern: str, path: Path) -> bool:
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        return any(re.fullmatch(expression, each.as_posix()) for each in (path, *path.parents))

    def is_seen(path: Path) -> bool:
        return not [ignored for ignored, pattern in [(False, "**"), *rules] if fits(pattern, path)][-1]

    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if is_seen(path)}


class Stage:
    """A stage of a Dockerfile: ``root`` is what its processes see, ``layers`` is what its instructions have written.

    ``copied`` names all files from the project's folder. They stay in the layers, even if they are deleted later.
    """

    def __init__(self, place: Path, below: Stage | None) -> None:
        self.root, self.layers = place / "root", [place / "layer", *(below.layers if below else [])]
        self.environment = dict(below.environment) if below else {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin"}
        self.copied = set(below.copied) if below else set()
        self.folder, self.user, self.volumes = "/", "root", list[str]()
        self.command, self.check, self.confinement = list[str](), list[str](), list[str]()
        base = place.parent / "base"
        for name in ("", *SYSTEM):
            lower = [layer / name / "files" for layer in self.layers[1:]] + [base / name]
            lower += [Path("/", name)] if name else []
            for path in (self.root / name, self.layers[0] / name / "files", self.layers[0] / name / "work"):
                path.mkdir(parents=True, exist_ok=True)
            above = self.layers[0] / name
            options = f"lowerdir={':'.join(map(str, lower))},upperdir={above}/files,workdir={above}/work"
            mount("-t", "overlay", "overlay", "-o", options, self.root / name)
        mount("--bind", "-o", "ro", sys.base_prefix, self.root / sys.base_prefix.lstrip("/"))
        mount("-t", "proc", "proc", self.root / "proc")
        for device in ("null", "zero", "random", "urandom"):
            mount("--bind", f"/dev/{device}", self.root / "dev" / device)

    def start(self, command: Iterable[str], user: str = "", folder: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start a program as ``user`` in ``folder``; by default, those of the image."""
        environment = options.pop("env", {}) | self.environment
        first = ["env", "-i", "-C", folder or self.folder, *(f"{name}={value}" for name, value in environment.items())]
        users = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        uid, gid = next((fields[2], fields[3]) for fields in users if (user or self.user) in (fields[0], fields[2]))
        rights = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *self.confinement]
        return subprocess.Popen(["chroot", self.root, *first, *rights, *command], encoding="utf-8", **options)

    def run(self, *command: str, **options: Any) -> str:
        """Run a program and return its output. Raises AssertionError if it fails."""
        process = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told[-20_000:]
        return told

    def written(self) -> dict[str, Path]:
        """Return all files and folders of the layers, by their path in the root."""
        found = {}
        for layer in self.layers:
            for name in ("", *SYSTEM):
                files = layer / name / "files"
                found |= {f"/{Path(name, path.relative_to(files))}": path for path in files.rglob("*")}
        return found

    def show(self, folder: Path, place: str) -> None:
        """Mount a folder of this machine at ``place``, read-only."""
        (self.root / place.lstrip("/")).mkdir()
        mount("--bind", "-o", "ro", folder, self.root / place.lstrip("/"))

    def confine(self, places: dict[str, str]) -> None:
        """From now on, allow no privileges, and writes only to ``places``: a tmpfs each, with its mount options."""
        self.confinement = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        for place, options in places.items():
            there = (self.root / place.lstrip("/")).stat()
            own = f"mode={there.st_mode & 0o7777:o},uid={there.st_uid},gid={there.st_gid}"
            mount("-t", "tmpfs", "-o", ",".join(filter(None, [own, options])), "tmpfs", self.root / place.lstrip("/"))
        for name in ("", *SYSTEM):
            mount("-o", "remount,bind,ro", self.root / name)


def build(folder: Path, place: Path) -> Stage:
    """Run all instructions of deploy/Dockerfile in ``folder``; return the last stage. ``place`` is an empty folder."""
    base = place / "base"
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            base.mkdir(exist_ok=True)
            (base / name).symlink_to(os.readlink(f"/{name}"))
    for name in (*SYSTEM, "dev/shm", "proc", "run", sys.base_prefix.lstrip("/"), "usr/local/bin"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for name in ("null", "zero", "random", "urandom"):
        (base / "dev" / name).touch()
    (base / "tmp").mkdir()
    for name in ("tmp", "dev/shm"):
        (base / name).chmod(0o1777)
    # The base image has its Python and its pip under these names.
    shutil.copytree(Path(pip.__file__).parent, base / "usr/local/lib/of-pip/pip")
    for name, rest in {"python": "", "pip": "-m pip "}.items():
        path = "PYTHONPATH=/usr/local/lib/of-pip " if rest else ""
        (base / "usr/local/bin" / name).write_text(f'#!/bin/sh\n{path}exec {sys._base_executable} {rest}"$@"\n')
        (base / "usr/local/bin" / name).chmod(0o755)
    (base / "etc").mkdir(exist_ok=True)
    shutil.copy(os.path.realpath("/etc/resolv.conf"), base / "etc/resolv.conf")

    seen, stages = context(folder), dict[str, Stage]()
    for instruction, rest in instructions(folder / "deploy/Dockerfile"):
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = Stage(place / f"stage{len(stages)}", stages.get(image))
            stages[name or "the last"] = stage
            arguments = dict[str, str]()
        elif instruction == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif instruction == "RUN":
            stage.run("sh", "-c", rest, env=INDEX | arguments)
        elif instruction == "COPY":
            copy(rest.split(), stage, folder, seen, stages)
        elif instruction == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environment[name] = Template(value).substitute(stage.environment)
        elif instruction == "WORKDIR":
            stage.folder = rest
            stage.run("install", "--directory", rest, folder="/")
        elif instruction == "USER":
            stage.user = rest
        elif instruction == "VOLUME":
            stage.volumes.append(rest)
        elif instruction == "HEALTHCHECK":
            stage.check = json.loads(rest.removeprefix("CMD "))
        elif instruction == "CMD":
            stage.command = json.loads(rest)
        else:
            assert instruction == "EXPOSE", f"deploy/Dockerfile: {instruction} is not known here"
    return stage


def copy(names: list[str], stage: Stage, folder: Path, seen: set[str], stages: dict[str, Stage]) -> None:
    """Copy files into a stage, as root: from another stage, or from the project's folder."""
    *sources, target = [name for name in names if not name.startswith("--")]
    place = stage.root / os.path.join(stage.folder, target).lstrip("/")
    if names[0].startswith("--from="):
        (source,) = sources
        origin = stages[names[0].removeprefix("--from=")].root / source.lstrip("/")
        subprocess.run(["cp", "--archive", "--no-target-directory", origin, place], check=True)
        return
    for source in sources:
        copied = [name for name in seen if source in (name, ".") or name.startswith(f"{source}/")]
        assert copied, f"deploy/Dockerfile: the build sees no {source}"
        for name in copied:
            # A folder's content goes below the target, as does a file whose target is a folder.
            below = name if source in (".", name) and place.is_dir() else name.removeprefix(source).lstrip("/")
            (place / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, place / below)
            stage.copied.add(name)
