"""The engines Plan2 knows: their ids, what they can do, and the ports they listen on.

The ids are the same everywhere: in the spec, in status, in labels, in the API, in metrics.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Engine(StrEnum):
    """One of the six engines, or the legacy Redis."""

    POSTGRESQL = "postgresql"
    DRAGONFLYDB = "dragonflydb"
    CLICKHOUSE = "clickhouse"
    WEAVIATE = "weaviate"
    ARANGODB = "arangodb"
    MONGODB = "mongodb"
    REDIS = "redis"


SIX: Final = tuple(engine for engine in Engine if engine is not Engine.REDIS)


class Capability(StrEnum):
    """What an engine can be asked for."""

    SQL = "sql"
    TRANSACTIONS = "transactions"
    KEY_VALUE = "key-value"
    ANALYTICS = "analytics"
    VECTOR = "vector"
    GRAPH = "graph"
    DOCUMENT = "document"


CAPABILITIES: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: frozenset({Capability.SQL, Capability.TRANSACTIONS}),
        Engine.DRAGONFLYDB: frozenset({Capability.KEY_VALUE}),
        Engine.CLICKHOUSE: frozenset({Capability.SQL, Capability.ANALYTICS}),
        Engine.WEAVIATE: frozenset({Capability.VECTOR}),
        Engine.ARANGODB: frozenset(
            {Capability.GRAPH, Capability.DOCUMENT, Capability.TRANSACTIONS}
        ),
        Engine.MONGODB: frozenset({Capability.DOCUMENT, Capability.TRANSACTIONS}),
        Engine.REDIS: frozenset({Capability.KEY_VALUE}),
    }
)

ALIASES: Final = MappingProxyType(
    {
        "postgres": Engine.POSTGRESQL,
        "dragonfly": Engine.DRAGONFLYDB,
        "arango": Engine.ARANGODB,
        "mongo": Engine.MONGODB,
    }
)

PORTS: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: 5432,
        Engine.DRAGONFLYDB: 6379,
        Engine.CLICKHOUSE: 8123,
        Engine.WEAVIATE: 8080,
        Engine.ARANGODB: 8529,
        Engine.MONGODB: 27017,
        Engine.REDIS: 6380,
    }
)
WEAVIATE_GRPC_PORT: Final = 50051
DRAGONFLY_ADMIN_PORT: Final = 9999

DATABASES: Final = MappingProxyType(
    {
        Engine.POSTGRESQL: "aitrading_operational",
        Engine.CLICKHOUSE: "aitrading_analytics",
        Engine.ARANGODB: "aitrading_graph",
        Engine.MONGODB: "aitrading_config",
    }
)


def parse(name: str) -> Engine | None:
    """The engine of that id or alias, or None."""
    return _NAMES.get(name)


_NAMES: Final = {**{engine.value: engine for engine in Engine}, **ALIASES}
