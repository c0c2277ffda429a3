"""Build the redis-cell module (CL.THROTTLE for Redis) once and print where it is.

The crate comes from crates.io through cargo; the version is pinned here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "0.2.2"


def path() -> Path:
    """The shared object, built if the cache has none; under a minute."""
    made = _cache() / f"libredis_cell-{VERSION}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        print(f"building redis-cell {VERSION}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as work:
            _build(Path(work), made)
    return made


def _build(work: Path, made: Path) -> None:
    manifest = work / "probe"
    (manifest / "src").mkdir(parents=True)
    (manifest / "src/lib.rs").touch()
    (manifest / "Cargo.toml").write_text(
        '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n'
        f'[dependencies]\nredis-cell = "={VERSION}"\n'
    )
    # The dylib that Redis loads is the crate's own build product, not that of a dependency.
    vendored = work / "vendor"
    _cargo("vendor", "--quiet", str(vendored), cwd=manifest)
    crate = work / "redis-cell"
    shutil.copytree(vendored / "redis-cell", crate)
    environment = {"CARGO_TARGET_DIR": str(work / "target"), "RUSTFLAGS": "-Awarnings"}
    _cargo("build", "--release", "--quiet", cwd=crate, environment=environment)
    fresh = made.with_suffix(".new")
    shutil.copy(work / "target/release/libredis_cell.so", fresh)
    fresh.replace(made)


def _cargo(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> None:
    command = [shutil.which("cargo") or str(Path.home() / ".cargo/bin/cargo"), *arguments]
    variables = os.environ | (environment or {})
    subprocess.run(command, cwd=cwd, check=True, env=variables, stdout=subprocess.DEVNULL)


def _cache() -> Path:
    return Path(os.environ.get("PLAN2_CACHE") or Path.home() / ".cache/plan2") / "redis-cell"


if __name__ == "__main__":
    print(path())
