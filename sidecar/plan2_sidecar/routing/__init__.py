"""Which engine a query goes to: a ladder, the first rung that holds wins. Pure.

    target     `targetDatabase`
    hint       a leading `/* plan2: clickhouse */`
    operation  cache, session, vector, graph, analytics, document, relational
    shape      an object's members say MongoDB or Weaviate
    language   GraphQL, AQL, a Redis command
    dialect    SQL that only one of the two SQL engines can parse
    else       AmbiguousRoute with the candidates

A write is never guessed: evidence that is no more than likely routes reads alone. Decisions on
text are remembered by the text.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from plan2_contract import engines
from plan2_contract.engines import Engine
from plan2_sidecar.errors import AmbiguousRoute, UnknownEngine
from plan2_sidecar.query import Text
from plan2_sidecar.routing import commands, languages, shapes, tokens

_HINT = re.compile(r"\s*/\*\s*plan2:\s*([\w-]+)\s*\*/\s*")
# Longer texts are rare and would keep memory; they are read again each time.
_REMEMBERED_LENGTH = 4096
_REMEMBERED = 2048


class Rung(StrEnum):
    """What decided."""

    TARGET = "target"
    HINT = "hint"
    OPERATION = "operation"
    SHAPE = "shape"
    LANGUAGE = "language"
    DIALECT = "dialect"


class Operation(StrEnum):
    """What the caller says the query is for."""

    CACHE = "cache"
    SESSION = "session"
    VECTOR = "vector"
    GRAPH = "graph"
    ANALYTICS = "analytics"
    DOCUMENT = "document"
    RELATIONAL = "relational"


OPERATIONS = MappingProxyType(
    {
        Operation.CACHE: Engine.DRAGONFLYDB,
        Operation.SESSION: Engine.DRAGONFLYDB,
        Operation.VECTOR: Engine.WEAVIATE,
        Operation.GRAPH: Engine.ARANGODB,
        Operation.ANALYTICS: Engine.CLICKHOUSE,
        Operation.DOCUMENT: Engine.MONGODB,
        Operation.RELATIONAL: Engine.POSTGRESQL,
    }
)
_SQL_ENGINES = (Engine.POSTGRESQL, Engine.CLICKHOUSE)
_OBJECT_ENGINES = (Engine.MONGODB, Engine.WEAVIATE)
_TEXT_ENGINES = (
    Engine.POSTGRESQL,
    Engine.CLICKHOUSE,
    Engine.ARANGODB,
    Engine.WEAVIATE,
    Engine.DRAGONFLYDB,
)
# Whose languages do not know `/* … */`: the hint is taken off before they see the text.
_NO_COMMENTS = frozenset({Engine.DRAGONFLYDB, Engine.REDIS, Engine.WEAVIATE})


@dataclass(frozen=True, slots=True)
class Route:
    """Where to, why, and the query as that engine gets it."""

    engine: Engine
    rung: Rung
    query: Text

    @property
    def write(self) -> bool:
        """Whether the query may change something; worked out when asked, true when in doubt."""
        return writes(self.engine, self.query)


def choose(query: Text, target: str | None, operation: Operation | None) -> Route:
    """The route; raises UnknownEngine or AmbiguousRoute (member `candidates`)."""
    if target is not None:
        return Route(_engine(target), Rung.TARGET, query)
    if isinstance(query, str) and (hint := _HINT.match(query)):
        engine = _engine(hint[1])
        rest = query[hint.end() :] if engine in _NO_COMMENTS else query
        return Route(engine, Rung.HINT, rest)
    if operation is not None:
        return Route(OPERATIONS[operation], Rung.OPERATION, query)
    if isinstance(query, dict):
        return _by_shape(query)
    if isinstance(query, list):
        return Route(Engine.DRAGONFLYDB, Rung.LANGUAGE, query)
    read = _remembered if len(query) <= _REMEMBERED_LENGTH else _by_text
    decided, rung, candidates = read(query)
    if decided is None:
        raise _ambiguous(candidates)
    return Route(decided, rung, query)


def writes(engine: Engine, query: Text) -> bool:
    """Whether `query` may change something on `engine`; true when in doubt."""
    match engine, query:
        case ((Engine.DRAGONFLYDB | Engine.REDIS), list()):
            return not (query and commands.is_read(str(query[0])))
        case ((Engine.DRAGONFLYDB | Engine.REDIS), str()):
            return not commands.is_read(query.strip().split(" ", 1)[0])
        case Engine.MONGODB, dict():
            return shapes.mongodb_writes(query)
        case Engine.WEAVIATE, dict():
            return shapes.weaviate_writes(query)
        case Engine.WEAVIATE, str():
            return not languages.is_graphql(query)
        case Engine.ARANGODB, str():
            return any(languages.aql_writes(found) for found in tokens.readings(query))
        case ((Engine.POSTGRESQL | Engine.CLICKHOUSE), str()):
            return any(languages.sql_writes(found) for found in tokens.readings(query))
        case _:
            return True


def _engine(name: str) -> Engine:
    engine = engines.parse(name)
    if engine is None:
        known = ", ".join(engine.value for engine in Engine)
        raise UnknownEngine(f"no engine is called {name!r}; there are {known}")
    return engine


def _by_shape(query: dict[str, Any]) -> Route:
    mongodb, weaviate = shapes.is_mongodb(query), shapes.is_weaviate(query)
    if mongodb == weaviate:
        raise _ambiguous(_OBJECT_ENGINES)
    return Route(Engine.MONGODB if mongodb else Engine.WEAVIATE, Rung.SHAPE, query)


def _by_text(text: str) -> tuple[Engine | None, Rung, tuple[Engine, ...]]:
    if languages.is_graphql(text):
        return Engine.WEAVIATE, Rung.LANGUAGE, ()
    found = tokens.readings(text)
    if languages.is_aql(found[0]):
        return Engine.ARANGODB, Rung.LANGUAGE, ()
    if commands.is_command(text.split()):
        return Engine.DRAGONFLYDB, Rung.LANGUAGE, ()
    if not languages.is_sql(found[0]):
        return None, Rung.LANGUAGE, _TEXT_ENGINES
    dialects = {languages.dialect(reading) for reading in found}
    if len(dialects) == 1:
        return dialects.pop(), Rung.DIALECT, _SQL_ENGINES
    return None, Rung.DIALECT, _SQL_ENGINES


_remembered = lru_cache(maxsize=_REMEMBERED)(_by_text)


def _ambiguous(candidates: tuple[Engine, ...]) -> AmbiguousRoute:
    names = [engine.value for engine in candidates]
    return AmbiguousRoute(
        f"this could be for {' or '.join(names)}; say which in targetDatabase",
        members={"candidates": names},
    )
