"""Finds a Go that can build the tools, or brings one by Debian's and Go's own package clients.

From 1.21 on Go fetches the toolchain that a go.mod asks for. An older Go, such as Debian's,
cannot; but it can fetch the module `golang.org/toolchain`, which is a whole newer Go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tools import apt
from tools.progress import CommandFailed, say

TOOLCHAIN = "1.26.8"
DEBIAN_PACKAGE = "golang-go"
OLDEST = (1, 21)
OLDEST_FETCHER = (1, 13)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
REMEDY = "Install Go 1.21 or newer (https://go.dev/doc/install) and put its bin folder on the PATH."


class GoMissing(Exception):
    """No Go, or one too old, and none could be brought; the message says what to do."""


def find(cache: Path) -> str:
    """The path of a Go of 1.21 or newer; one is brought into `cache` where there is none."""
    found = _installed()
    if found is not None and version(found) >= OLDEST:
        return found
    kept = cache / f"go-{TOOLCHAIN}"
    if not kept.exists():
        _bring(kept, found)
    return str(kept / "bin" / "go")


def version(go: str) -> tuple[int, int]:
    """Major and minor number of a Go, (0, 0) when it does not say."""
    answer = subprocess.run(
        [go, "version"], capture_output=True, text=True, check=False, cwd="/", env=environment()
    )
    said = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(said.group(1)), int(said.group(2))) if said else (0, 0)


def environment() -> dict[str, str]:
    """The caller's environment without the settings of Go that could change what is built."""
    apart = ("GOROOT", "GOTOOLDIR")
    kept = {name: value for name, value in os.environ.items() if name not in apart}
    return {**kept, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _installed() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")


def _bring(kept: Path, found: str | None) -> None:
    started = time.monotonic()
    if found is None or version(found) < OLDEST_FETCHER:
        say(f"Go is not on this machine: bringing {TOOLCHAIN}")
        try:
            apt.ensure(DEBIAN_PACKAGE)
        except (apt.PackagesMissing, CommandFailed) as error:
            raise GoMissing(f"Go is not on this machine. {REMEDY}\n{error}") from error
        found = _installed()
    if found is None:
        raise GoMissing(f"Go is not on this machine. {REMEDY}")
    _copy(_fetch(found), kept)
    say(f"Go {TOOLCHAIN}: fetched in {time.monotonic() - started:.0f} s")


def _fetch(fetcher: str) -> Path:
    """Have an older Go fetch the newer one as a module, checked by its sum like any other."""
    machine = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    module = f"golang.org/toolchain@v0.0.1-go{TOOLCHAIN}.linux-{machine}"
    answer = subprocess.run(
        [fetcher, "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment(),
    )
    if answer.returncode != 0:
        raise GoMissing(f"{fetcher} cannot fetch {module}. {REMEDY}\n{answer.stderr.strip()}")
    return Path(json.loads(answer.stdout)["Dir"])


def _copy(module: Path, kept: Path) -> None:
    """Copy a module to where it may be run from: modules are kept read-only, none executable."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".go-", dir=kept.parent) as scratch:
        copied = Path(scratch) / "go"
        shutil.copytree(module, copied)
        for path in [copied, *copied.rglob("*")]:
            runs = path.is_dir() or {"bin", "tool"} & set(path.relative_to(copied).parts[:-1])
            path.chmod(0o755 if runs else 0o644)
        copied.rename(kept)
