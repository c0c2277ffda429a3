"""Debian root file systems and Python packages for images, by the ordinary clients."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from images.recipes import SUITE, Base
from tools import apt
from tools import build as tools
from tools.progress import run, say

# Debian's python3 in the images; the packages are chosen for it, whatever runs this.
PYTHON_VERSION = "3.11"
UNNEEDED = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    # PostgreSQL does without its compiler where the files are not there: 150 MB less.
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
)


def root(base: Base, target: Path) -> None:
    """Write a tar of a root file system with these packages; a minute or two."""
    apt.ensure("mmdebstrap")
    command = [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(base.packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={place}" for place in UNNEEDED),
        *_users(base),
        SUITE,
        str(target),
    ]
    run(f"root file system {base.name}", command, env=dict(os.environ))


def _users(base: Base) -> list[str]:
    """Before the packages make them, at the uid that the official image has."""
    hooks = []
    for name, uid in base.users.items():
        account = f"{name}:x:{uid}:{uid}::/var/lib/{name}:/bin/sh"
        # useradd is not there yet when the hook runs.
        hooks += [
            f"--essential-hook=echo '{account}' >> \"$1/etc/passwd\"",
            f"--essential-hook=echo '{name}:x:{uid}:' >> \"$1/etc/group\"",
        ]
    if "postgresql-15" in base.packages:
        # No cluster of its own: the image's first start makes one where PGDATA says.
        place = '"$1/etc/postgresql-common"'
        text = "create_main_cluster = false"
        hooks.append(
            f"--essential-hook=mkdir -p {place} && echo {shlex.quote(text)} > "
            f'"$1/etc/postgresql-common/createcluster.conf"'
        )
    return hooks


def install(requirements: Path, target: Path) -> None:
    """Install pinned wheels for the images' Python into a folder."""
    command = [
        str(_uv()),
        "pip",
        "install",
        "--no-deps",
        "--only-binary=:all:",
        f"--python={sys.executable}",
        f"--python-version={PYTHON_VERSION}",
        f"--python-platform={os.uname().machine}-manylinux_2_36",
        f"--target={target}",
        f"--requirements={requirements}",
    ]
    run(f"Python packages of {requirements.parent.name}", command, env=dict(os.environ))
    # Bytecode would be the host's Python's; the tests of the packages are never run.
    for place in (*target.rglob("__pycache__"), *target.rglob("tests")):
        shutil.rmtree(place, ignore_errors=True)


def _uv() -> Path:
    """The uv that `make setup` installed, or the machine's own."""
    kept = sorted(tools.cache_root().glob("uv-*/bin/uv"))
    found = str(kept[-1]) if kept else shutil.which("uv")
    if found is None:
        say("uv is not there: run `make setup`")
        raise subprocess.CalledProcessError(127, "uv")
    return Path(found)
