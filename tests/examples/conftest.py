"""Every example runs in front of the sidecar that a laptop has: real engines, no cluster."""

import os
from collections.abc import Iterator

import pytest

from fixtures.embedded import embedded_sidecar
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import SidecarProcess


@pytest.fixture(scope="session")
def laptop() -> Iterator[SidecarProcess]:
    """PostgreSQL, ClickHouse and Redis in Dragonfly's place."""
    with embedded_sidecar() as sidecar:
        yield sidecar


@pytest.fixture(scope="session")
def with_mongodb(mongodb: EngineServer) -> Iterator[SidecarProcess]:
    """The same, and MongoDB."""
    with embedded_sidecar(MONGODB_URL=mongodb.url, MONGODB_DB="examples") as sidecar:
        yield sidecar


@pytest.fixture(scope="session")
def with_arangodb(arangodb: EngineServer) -> Iterator[SidecarProcess]:
    """The same, and ArangoDB."""
    with embedded_sidecar(
        ARANGO_URL=arangodb.url,
        ARANGO_DB="_system",
        ARANGO_USER=arangodb.admin_user,
        ARANGO_PASSWORD=arangodb.admin_password,
    ) as sidecar:
        yield sidecar


@pytest.fixture
def unique() -> str:
    """A word that no other test uses: the stores are shared."""
    return os.urandom(6).hex()
