"""Installs the Debian packages of `apt-packages.txt` that are missing, and starts none of them.

`python tests/tools/apt.py` installs all, `python tests/tools/apt.py containerd runc` some. It
runs apt-get only when something is missing, as root or through sudo without a password; else
it names the command to run. A service that a package brings is not started: it would hold the
port of a database or the containers of a node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # started as a script
    sys.path.insert(0, str(HERE.parent))

from tools.progress import CommandFailed, run, say  # noqa: E402

LIST = HERE / "apt-packages.txt"
POLICY = Path("/usr/sbin/policy-rc.d")
ASIDE = POLICY.with_name("policy-rc.d.before-plan2")
MARK = "# Written by plan2's tests while packages are installed"
OLDEST_NODE = 18
FORBID_STARTS = f"#!/bin/sh\n{MARK}: start no service.\nexit 101\n"


class PackagesMissing(Exception):
    """Packages are missing and cannot be installed from here; the message says what to do."""


def listed() -> list[str]:
    """The packages of the list, without those whose program another source brought."""
    lines = (line.split("#")[0].strip() for line in LIST.read_text().splitlines())
    return [line for line in lines if line and not _at_hand(line)]


def _at_hand(package: str) -> bool:
    """Node.js is often installed from elsewhere, and Debian's npm conflicts with that one."""
    match package:
        case "nodejs":
            return _node_major() >= OLDEST_NODE
        case "npm":
            return shutil.which("npm") is not None
        case _:
            return False


def _node_major() -> int:
    """18 for v18.20.4; 0 where there is none."""
    program = shutil.which("node")
    if program is None:
        return 0
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    major = said.stdout.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdigit() else 0


def missing(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that are not wholly installed."""
    if shutil.which("dpkg-query") is None:
        raise PackagesMissing(
            "This machine has no dpkg: install what tests/tools/apt-packages.txt lists with its"
            " own package manager, or use PLAN2_CLUSTER=kind with a Docker engine."
        )
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f=${Package} ${db:Status-Abbrev}\n", *packages],
        capture_output=True,
        text=True,
        check=False,  # it answers 1 when one is unknown
    )
    rows = (line.split() for line in answer.stdout.splitlines())
    installed = {row[0] for row in rows if len(row) > 1 and row[1] == "ii"}
    return [package for package in packages if package not in installed]


def ensure(*packages: str) -> None:
    """Install those of `packages` (of the whole list when none is named) that are missing."""
    if not missing(packages or listed()):
        return
    with _alone():
        # Another process may have installed them meanwhile.
        absent = missing(packages or listed())
        if absent:
            _install(absent)


def _install(absent: Sequence[str]) -> None:
    started = time.monotonic()
    say(f"Debian packages: installing {', '.join(absent)}")
    root = _as_root(absent)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    patience = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    run("apt-get update", [*root, "apt-get", "-q", *patience, "update"], env=environment)
    with _no_service_starts(root):
        install = ["apt-get", "-q", "-y", *patience, "--no-install-recommends", "install"]
        run("apt-get install", [*root, *install, *absent], env=environment)
    say(f"Debian packages: installed in {time.monotonic() - started:.0f} s")


def _as_root(absent: Sequence[str]) -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], check=False).returncode == 0:
        return ["sudo", "-n", "--preserve-env=DEBIAN_FRONTEND"]
    raise PackagesMissing(
        "Some Debian packages are missing and installing them needs root. Run:\n"
        f"  sudo apt-get install --no-install-recommends {' '.join(absent)}"
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One of us at a time: `apt-get update` fails at once where another holds the lists."""
    with (Path(tempfile.gettempdir()) / "plan2-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_service_starts(root: Sequence[str]) -> Iterator[None]:
    """Have Debian's own switch refuse every start of a service while packages unpack."""
    own = not POLICY.exists() or MARK in POLICY.read_text(errors="replace")
    if not own:
        subprocess.run([*root, "mv", str(POLICY), str(ASIDE)], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as written:
        written.write(FORBID_STARTS)
        written.flush()
        subprocess.run([*root, "install", "-m", "755", written.name, str(POLICY)], check=True)
    try:
        yield
    finally:
        subprocess.run([*root, "rm", "-f", str(POLICY)], check=True)
        if ASIDE.exists():  # also what a killed run set aside
            subprocess.run([*root, "mv", str(ASIDE), str(POLICY)], check=True)


def main() -> int:
    try:
        ensure(*sys.argv[1:])
    except (PackagesMissing, CommandFailed) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
