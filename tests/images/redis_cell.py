"""Build the redis-cell module (CL.THROTTLE for Redis) once and print where it is.

The crate comes from crates.io through cargo; what it stands on is pinned in redis_cell.lock.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # started as a script
    sys.path.insert(0, str(HERE.parent))

from tools import apt  # noqa: E402
from tools import build as tools  # noqa: E402
from tools.progress import say  # noqa: E402

VERSION = "0.2.2"


def path() -> Path:
    """The shared object, built if the cache has none; under a minute."""
    made = _cache() / f"libredis_cell-{VERSION}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        say(f"redis-cell {VERSION}: building")
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
    shutil.copy(HERE / "redis_cell.lock", crate / "Cargo.lock")
    environment = {"CARGO_TARGET_DIR": str(work / "target"), "RUSTFLAGS": "-Awarnings"}
    _cargo("build", "--release", "--locked", "--quiet", cwd=crate, environment=environment)
    fresh = made.with_suffix(".new")
    shutil.copy(work / "target/release/libredis_cell.so", fresh)
    fresh.replace(made)


def _cargo(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> None:
    places = f"{os.environ['PATH']}:{Path.home() / '.cargo/bin'}"
    if shutil.which("cargo", path=places) is None:
        apt.ensure("cargo")
    program = shutil.which("cargo", path=places) or "cargo"
    variables = os.environ | (environment or {})
    command = [program, *arguments]
    subprocess.run(command, cwd=cwd, check=True, env=variables, stdout=subprocess.DEVNULL)


def _cache() -> Path:
    return tools.cache_root() / "redis-cell"


if __name__ == "__main__":
    print(path())
