"""What each test image is made of. Data only; `build.py` makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from images.oci import Settings

HERE = Path(__file__).resolve().parent
ENGINE = "/opt/engine"
# Debian's python3, which all but two images stand on, and with it what the product's need to
# be built on it.
PYTHON_PACKAGES = ("ca-certificates", "python3", "python3-venv", "tzdata")
DATABASE_PACKAGES = ("ca-certificates", "python3", "postgresql-15", "redis-server", "tzdata")
SUITE = "bookworm"


@dataclass(frozen=True)
class Base:
    """A Debian root file system; users by name with their uid."""

    name: str
    packages: tuple[str, ...]
    users: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An image: a base, Python packages, programs of the tests' tools, our files.

    `folder` goes to /opt/engine, and `package`, one of the sidecar's, beside it; `programs` maps
    a path in the image to a tool's program, `links` a path to where it points, `directories` are
    made for the image's volumes.
    """

    name: str
    base: Base
    settings: Settings
    folder: str = ""
    requirements: str = ""
    package: str = ""
    programs: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()


PYTHON = Base("python", PYTHON_PACKAGES)
DATABASES = Base("databases", DATABASE_PACKAGES, {"postgres": 999})

_LIBRARY = {"PYTHONPATH": f"{ENGINE}/lib", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _program(file: str) -> tuple[str, ...]:
    return ("/usr/bin/python3", f"{ENGINE}/{file}")


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="postgresql",
            base=DATABASES,
            folder="postgresql",
            settings=Settings(
                entrypoint=_program("entrypoint.py"),
                command=("postgres",),
                user="999:999",
                env={"PATH": "/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin"},
                stop_signal="SIGINT",
            ),
            directories=("/var/lib/postgresql/data", "/docker-entrypoint-initdb.d"),
        ),
        *(
            Recipe(
                name=name,
                base=DATABASES,
                folder="dragonflydb",
                settings=Settings(
                    entrypoint=_program("dragonfly.py"),
                    command=(command,),
                    user="999:999",
                    env={**_LIBRARY},
                    working_directory="/data",
                ),
                programs={"/usr/lib/redis/libredis_cell.so": "redis-cell"},
                directories=("/data",),
            )
            for name, command in (("dragonflydb", "dragonfly"), ("redis", "redis-server"))
        ),
        Recipe(
            name="clickhouse",
            base=PYTHON,
            folder="clickhouse",
            requirements="clickhouse/requirements.txt",
            package="plan2_sidecar/embedded/clickhouse_server",
            settings=Settings(
                entrypoint=_program("server.py"),
                user="101:101",
                env={**_LIBRARY, "HOME": "/var/lib/clickhouse"},
            ),
            directories=(
                "/var/lib/clickhouse",
                "/var/log/clickhouse-server",
                "/etc/clickhouse-server/config.d",
                "/etc/clickhouse-server/users.d",
            ),
        ),
        Recipe(
            name="weaviate",
            base=PYTHON,
            settings=Settings(entrypoint=("/bin/weaviate",), user="1000:1000"),
            programs={"/bin/weaviate": "weaviate-server"},
            directories=("/var/lib/weaviate",),
        ),
        Recipe(
            name="arangodb",
            base=PYTHON,
            folder="arangodb",
            requirements="arangodb/requirements.txt",
            settings=Settings(
                entrypoint=_program("arangod.py"),
                command=("arangod",),
                user="1000:1000",
                env={**_LIBRARY},
            ),
            directories=("/var/lib/arangodb3", "/var/lib/arangodb3-apps"),
        ),
        Recipe(
            name="mongodb",
            base=PYTHON,
            folder="mongodb",
            requirements="mongodb/requirements.txt",
            settings=Settings(
                entrypoint=_program("mongod.py"),
                command=("mongod",),
                user="999:999",
                env={**_LIBRARY},
            ),
            programs={"/usr/local/bin/ferretdb": "ferretdb"},
            links={"/usr/local/bin/mongosh": f"{ENGINE}/mongosh"},
            directories=("/data/db", "/data/configdb"),
        ),
        Recipe(
            name="sample",
            base=PYTHON,
            settings=Settings(
                entrypoint=(),
                command=("python3",),
                user="1000:1000",
                env={"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            ),
        ),
    )
}
PRODUCTS = ("operator", "sidecar")
