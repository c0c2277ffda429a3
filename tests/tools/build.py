"""Builds the Go programs that the tests and the cluster need, once for each version.

`python tests/tools/build.py etcd helm` prints the folder of each tool's programs on stdout and
its progress on stderr. As a library: `build.ensure("etcd")`, `build.program("kubectl")`. What
was built stands outside the checkout, under $PLAN2_CACHE or ~/.cache/plan2, in a folder named
by version and by a hash of all that went into it. Debian's packages are `apt.py`'s business.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # started as a script
    sys.path.insert(0, str(HERE.parent))

from tools import golang  # noqa: E402
from tools.golang import GoMissing  # noqa: E402
from tools.progress import REPORT_SECONDS, CommandFailed, run, say  # noqa: E402
from tools.recipes import RECIPES, Recipe  # noqa: E402

LEFT_OVER_SECONDS = 6 * 3600


def cache_root() -> Path:
    """The folder for everything that is costly to make and may be thrown away."""
    named = os.environ.get("PLAN2_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "plan2"


def ensure(*names: str) -> dict[str, Path]:
    """Build what is missing of the tools named; returns each one's folder of programs."""
    return {name: _ensure_one(RECIPES[name]) for name in names}


def program(name: str) -> Path:
    """The path of one program (`kubectl`, `helm`, …), its tool built first where needed."""
    for recipe in RECIPES.values():
        if name in recipe.programs:
            return _ensure_one(recipe) / name
    raise KeyError(f"no recipe makes {name!r}")


def folder(recipe: Recipe) -> Path:
    """Where a tool of this recipe, these versions and this machine stands or will stand."""
    digest = hashlib.sha256(repr(recipe).encode())
    for file in sorted((HERE / recipe.name).iterdir()):
        digest.update(file.read_bytes())
    digest.update(os.uname().machine.encode())
    return cache_root() / "tools" / f"{recipe.name}-{version(recipe)}-{digest.hexdigest()[:12]}"


def version(recipe: Recipe) -> str:
    """The version of the tool's module, as its go.mod requires it; "own" for one of ours."""
    text = (HERE / recipe.name / "go.mod").read_text()
    if f"module {recipe.module}\n" in text:
        return "own"
    found = re.search(rf"^(?:require )?\s*{re.escape(recipe.module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{recipe.name}/go.mod does not require {recipe.module}")
    return found.group(1)


def _ensure_one(recipe: Recipe) -> Path:
    target = folder(recipe)
    if not target.exists():
        with _only_builder(target):
            if not target.exists():
                _build(recipe, target)
    return target / "bin"


@contextmanager
def _only_builder(target: Path) -> Iterator[None]:
    """Hold the lock of one tool, so that two processes never build it twice."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.parent / f"{target.name}.lock"
    with lock.open("w") as handle:
        waited = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % REPORT_SECONDS == 0:
                    say(f"  {target.name}: another process is building it, {waited:.0f} s")
                time.sleep(0.5)
                waited += 0.5
        yield


def _build(recipe: Recipe, target: Path) -> None:
    started = time.monotonic()
    go = golang.find(cache_root())
    say(f"{target.name}: building {', '.join(recipe.programs)} (first time on this machine)")
    _forget_dead_builds(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=target.parent) as scratch:
        source = Path(scratch) / "source"
        shutil.copytree(HERE / recipe.name, source)
        made = Path(scratch) / "made"
        (made / "bin").mkdir(parents=True)
        flags = _vendor(recipe, go, source) if recipe.vendored else []
        compile_all = ["build", "-v", *flags, *_flags(recipe), "-o", f"{made}/bin/"]
        run(
            recipe.name,
            [*_gently(), go, *compile_all, *recipe.programs.values()],
            cwd=source,
            env=_environment(go),
            describe=lambda last, count: f"{count} packages so far, now {last[:80] or 'linking'}",
        )
        _name_programs(recipe, made / "bin")
        made.rename(target)
    say(f"{target.name}: built in {time.monotonic() - started:.0f} s")


def _flags(recipe: Recipe) -> list[str]:
    stamps = " ".join(f"-X {name}={value}" for name, value in recipe.stamps.items())
    flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {stamps}".rstrip()]
    return [*flags, f"-tags={recipe.tags}"] if recipe.tags else flags


def _vendor(recipe: Recipe, go: str, source: Path) -> list[str]:
    """Copy the dependencies beside the module, to add the files that one of them lacks."""
    run(f"{recipe.name} vendor", [go, "mod", "vendor"], cwd=source, env=_environment(go))
    for path, text in recipe.vendored.items():
        (source / "vendor" / path).write_text(text)
    return ["-mod=vendor"]


def _name_programs(recipe: Recipe, made: Path) -> None:
    """Give each program its own name: Go names it after its package (`v3` → `server`)."""
    found = {path.name: path for path in made.iterdir()}
    for name, package in recipe.programs.items():
        if name not in found:
            parts = [part for part in package.split("/") if not re.fullmatch(r"v\d+", part)]
            found[parts[-1]].rename(made / name)


def _forget_dead_builds(parent: Path) -> None:
    """Remove the scratch folders of builds that were killed."""
    for left in parent.glob(".*-*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > LEFT_OVER_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _gently() -> list[str]:
    return ["nice", "-n", "10"] if shutil.which("nice") else []


def _environment(go: str) -> dict[str, str]:
    newer = {} if golang.version(go) >= _wanted() else {"GOTOOLCHAIN": "auto"}
    return {**golang.environment(), **newer}


def _wanted() -> tuple[int, int]:
    """The newest Go that one of the tools' go.mod asks for."""
    versions = []
    for name in RECIPES:
        found = re.search(r"^go (\d+)\.(\d+)", (HERE / name / "go.mod").read_text(), re.MULTILINE)
        if found:
            versions.append((int(found.group(1)), int(found.group(2))))
    return max(versions)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the Go programs that the tests need.")
    parser.add_argument("tool", nargs="+", choices=[*RECIPES, "all"])
    asked = parser.parse_args().tool
    usual = [name for name, recipe in RECIPES.items() if not recipe.on_demand]
    try:
        for bin_folder in ensure(*(usual if "all" in asked else asked)).values():
            print(bin_folder)
    except (GoMissing, CommandFailed) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
