"""The engines as the operator deploys them: one pure module each, all listed here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from plan2_contract.engines import Engine
from plan2_operator.engines import (
    arangodb,
    clickhouse,
    dragonflydb,
    mongodb,
    postgresql,
    redis,
    weaviate,
)
from plan2_operator.engines.base import Connection, EngineModule

__all__ = ["MODULES", "Connection", "EngineModule"]

MODULES: Final[Mapping[Engine, EngineModule]] = MappingProxyType(
    {
        Engine.POSTGRESQL: postgresql,
        Engine.DRAGONFLYDB: dragonflydb,
        Engine.CLICKHOUSE: clickhouse,
        Engine.WEAVIATE: weaviate,
        Engine.ARANGODB: arangodb,
        Engine.MONGODB: mongodb,
        Engine.REDIS: redis,
    }
)
