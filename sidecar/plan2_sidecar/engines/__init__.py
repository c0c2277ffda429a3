"""The engines: one module each, imported with its driver by the first call that needs it."""

import ssl
from importlib import import_module
from types import MappingProxyType
from typing import Final

from plan2_contract.connection import KeyValue, MongoDB, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import EngineClient
from plan2_sidecar.errors import EngineUnavailable
from plan2_sidecar.query import Query, Result

__all__ = ["FACTORIES", "Connection", "EngineClient", "open_engine", "opened"]

Connection = Sql | KeyValue | Weaviate | MongoDB

FACTORIES: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: "plan2_sidecar.engines.postgresql:PostgreSQL",
        Engine.DRAGONFLYDB: "plan2_sidecar.engines.dragonflydb:DragonflyDB",
        Engine.CLICKHOUSE: "plan2_sidecar.engines.clickhouse:ClickHouse",
        Engine.WEAVIATE: "plan2_sidecar.engines.weaviate:WeaviateClient",
        Engine.ARANGODB: "plan2_sidecar.engines.arangodb:ArangoDB",
        Engine.MONGODB: "plan2_sidecar.engines.mongodb:Mongo",
        Engine.REDIS: "plan2_sidecar.engines.dragonflydb:DragonflyDB",
    }
)


def open_engine(engine: Engine, connection: Connection) -> EngineClient:
    """A client that connects, and imports its driver, when it is first used."""
    return _OnFirstUse(engine, connection)


def opened(client: EngineClient) -> EngineClient:
    """The engine's own client, which has more calls than EngineClient; raises EngineUnavailable."""
    return client.opened() if isinstance(client, _OnFirstUse) else client


class _OnFirstUse:
    """Stands for an engine's client until somebody calls it."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self.engine = engine
        self._connection = connection
        self._client: EngineClient | None = None
        self._closed = False

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        return await self.opened().execute(query, deadline)

    async def ping(self, deadline: Deadline) -> str:
        return await self.opened().ping(deadline)

    def pool(self) -> dict[str, int]:
        if self._client is None:
            return {"size": 0, "idle": 0, "inUse": 0, "max": self._connection.pool_max}
        return self._client.pool()

    async def close(self, grace_seconds: float) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.close(grace_seconds)

    def opened(self) -> EngineClient:
        """The client, made now if it was not; raises EngineUnavailable."""
        if self._closed:
            raise EngineUnavailable("this connection was closed", database=self.engine)
        if self._client is None:
            module, _, name = FACTORIES[self.engine].partition(":")
            opener = getattr(import_module(module), name)
            try:
                self._client = opener(self.engine, self._connection)
            except ssl.SSLError:
                raise EngineUnavailable(
                    "caPem in the connection holds no certificate that can be used",
                    database=self.engine,
                ) from None
        return self._client
