"""The programs that the tests start and pip does not bring: ``python3 -m tests.programs`` installs what is missing.

It does so on Debian and Ubuntu, as root or where sudo asks for no password. Otherwise it says in one line what to
install, and exits. It runs before there is a virtual environment, so it imports nothing but Python's own library.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# How a person installs packages, by the program that does it, in the order of the packages below.
INSTALL = {"apt-get": "sudo apt-get install", "dnf": "sudo dnf install", "brew": "brew install"}
# The services that packages bring. They are left stopped.
SERVICES = {
    "nginx": ["nginx"],
    "postgresql": ["postgresql"],
    "redis-server": ["redis-server"],
    "clamav-daemon": ["clamav-daemon", "clamav-freshclam"],
}


class Program(NamedTuple):
    """A program: the names it may have, then its packages for apt-get, dnf and brew ("" where there is none)."""

    names: tuple[str, ...]
    packages: tuple[str, str, str]

    def path(self) -> str | None:
        places = os.environ.get("PATH", os.defpath)
        places += os.pathsep + places.replace("/bin", "/sbin")  # where Debian has nginx, and only root looks
        return next(filter(None, (shutil.which(name, path=places) for name in self.names)), None)

    def is_there(self) -> bool:
        return self.path() is not None


class Module(Program):
    """Parts of Python's own library, which Debian packages apart."""

    def is_there(self) -> bool:
        return all(map(importlib.util.find_spec, self.names))


class Chromium(Program):
    """The one in CHROMIUM, else the system's, else Playwright's own, which needs no path."""

    def path(self) -> str | None:
        if chosen := os.environ.get("CHROMIUM"):
            return shutil.which(chosen)
        if found := super().path():
            with open(found, "rb") as file:  # a snap, which is all that Ubuntu has, can't be driven from outside
                return None if found.startswith("/snap/") or b"/snap/" in file.read(4096) else found
        return None

    def is_there(self) -> bool:
        if os.environ.get("CHROMIUM") or self.path():
            return self.path() is not None
        if importlib.util.find_spec("playwright"):
            own = self.playwrights()
            return Path(own).exists() and subprocess.run([own, "--version"], capture_output=True).returncode == 0
        # Before the virtual environment is made. Where the system has no package, Playwright will bring its own.
        cache = "Library/Caches" if sys.platform == "darwin" else ".cache"
        browsers = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / cache / "ms-playwright")
        return any(browsers.glob("chromium-*")) or not package(self)

    def playwrights(self) -> str:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            return playwright.chromium.executable_path


class Postgres(Program):
    """Debian keeps its programs out of PATH: several versions may be there."""

    def path(self) -> str | None:
        places = [*glob.glob("/usr/lib/postgresql/*/bin"), os.environ.get("PATH", os.defpath)]
        return shutil.which(self.names[0], path=os.pathsep.join(places))


POSTGRES = Postgres(("postgres",), ("postgresql", "postgresql-server", "postgresql"))
# Each is needed by the tests that use the fixture of that name.
PROGRAMS = {
    "browser": Chromium(("chromium", "chromium-browser"), ("chromium", "chromium", "")),
    "serve_proxied": Program(("nginx",), ("nginx", "nginx", "nginx")),
    "postgres": POSTGRES,  # % if cookiecutter.accounts
    "redis": Program(("redis-server", "valkey-server"), ("redis-server", "valkey", "redis")),
    "clamd": Program(("clamd",), ("clamav-daemon", "clamd", "clamav")),
    "scanners": Program(("npm",), ("npm", "npm", "node")),
}
# What ``python3 -m venv`` needs.
VENV = Module(("venv", "ensurepip"), (f"python3.{sys.version_info.minor}-venv", "python3", "python"))


def manager() -> str | None:
    return "brew" if sys.platform == "darwin" else next(filter(shutil.which, INSTALL), None)


def package(program: Program) -> str:
    """Its package on this system, or ""."""
    chosen = manager()
    if chosen == "apt-get" and isinstance(program, Chromium):
        system = platform.freedesktop_os_release()
        if "ubuntu" in (system["ID"], *system.get("ID_LIKE", "").split()):
            return ""
    return program.packages[list(INSTALL).index(chosen)] if chosen else ""


def missing(programs: Iterable[Program]) -> list[Program]:
    return [program for program in programs if not program.is_there()]


def advice(programs: list[Program]) -> str:
    """What to do about programs that are missing, in one line."""
    names = ", ".join(program.names[0] for program in programs)
    if os.name == "nt":
        return f"Missing: {names}. Windows lacks some of what the tests need: run them in WSL (wsl --install)."
    if os.environ.get("CHROMIUM") and any(isinstance(program, Chromium) for program in programs):
        return f"CHROMIUM={os.environ['CHROMIUM']}: there is no such program."
    chosen = manager()
    packages = [package(program) for program in programs]
    commands = [" ".join([INSTALL[chosen], *filter(None, packages)])] if chosen and any(packages) else []
    if chosen and not all(packages):  # Chromium
        commands.append(f"{os.path.relpath(sys.executable)} -m playwright install --with-deps chromium")
    return f"Missing: {names}. Install with: {' && '.join(commands) or 'the package manager of your system'}"


def root() -> list[str] | None:
    """What goes before a command that needs root: nothing as root, or sudo. None: it may not run."""
    if os.geteuid() == 0:
        return []
    allowed = shutil.which("sudo") and not subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode
    return ["sudo", "-n"] if allowed else None


def install(programs: list[Program]) -> None:
    """Install what can be. Whether that has worked is for the caller to see."""
    prefix = root() if manager() == "apt-get" else None
    packages = " ".join(map(package, programs)).split()
    if packages and prefix is not None:
        print(f"Installing {', '.join(packages)} (apt-get)", flush=True)
        # The last two keep a service from being started, without and with systemd.
        apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "SYSTEMD_OFFLINE=1", "apt-get", "--yes"]
        subprocess.run([*apt, "update"])
        subprocess.run([*apt, "install", "--no-install-recommends", *packages])
        services = [service for name in packages for service in SERVICES.get(name, [])]
        if services and shutil.which("systemctl"):  # nor at the next boot
            subprocess.run([*prefix, "systemctl", "--quiet", "disable", *services])
    if importlib.util.find_spec("playwright") and any(isinstance(program, Chromium) for program in missing(programs)):
        print("Installing Playwright's Chromium", flush=True)
        libraries = ["--with-deps"] if prefix is not None else []
        subprocess.run([sys.executable, "-m", "playwright", "install", *libraries, "chromium"])


def main(programs: Iterable[Program]) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - it is what this tells
        sys.exit(f"Python 3.11 or newer is needed. This is {platform.python_version()}: choose another with PYTHON=…")
    if os.name != "nt" and (absent := missing(programs)):
        install(absent)
    if absent := missing(programs):
        sys.exit(advice(absent))


if __name__ == "__main__":
    main([VENV] if sys.argv[1:] == ["venv"] else [VENV, *PROGRAMS.values()])
