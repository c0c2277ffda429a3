"""Which engine a query goes to: a ladder, the first rung that holds wins. Pure.

    target     `targetDatabase`
    hint       a leading `/* plan2: clickhouse */`
    operation  cache, session, vector, graph, analytics, document, relational
    shape      an object's members say MongoDB or Weaviate
    language   GraphQL, AQL, a Redis command
    catalog    the tables the SQL names, where one SQL engine alone has them
    dialect    SQL that only one of the two SQL engines can parse
    else       AmbiguousRoute with the candidates

A write is never guessed: evidence that is no more than likely routes reads alone. Decisions on
text are remembered by the text, for as long as the catalogue is the same.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from plan2_contract import engines
from plan2_contract.engines import Engine
from plan2_sidecar.errors import AmbiguousRoute, UnknownEngine
from plan2_sidecar.query import Text
from plan2_sidecar.routing import commands, dialects, languages, shapes, tokens
from plan2_sidecar.routing.catalog import SQL_ENGINES, UNKNOWN, Catalog, Tables
from plan2_sidecar.routing.reading import Reading, read
from plan2_sidecar.routing.tables import tables

__all__ = [
    "SQL_ENGINES",
    "UNKNOWN",
    "Catalog",
    "Operation",
    "Route",
    "Rung",
    "Tables",
    "choose",
    "defines_tables",
    "writes",
]

_HINT: Final = re.compile(r"\s*/\*\s*plan2:\s*([\w-]+)\s*\*/\s*")
# Longer texts are rare and would keep memory; they are read again each time.
_REMEMBERED_LENGTH: Final = 4096
_REMEMBERED: Final = 2048
# Beyond this even looking for a word holds up the others.
_LONGEST_SEARCHED: Final = 8 * tokens.LONGEST
_DEFINES: Final = re.compile(
    r"(?:[\s;(]++|--[^\n]*+\n|/\*(?>.*?\*/))*+"
    r"(?:(?:ALTER|ATTACH|CALL|CREATE|DETACH|DO|DROP|EXCHANGE|RENAME|REPLACE|RESTORE|UNDROP)\b"
    r"|(?:SELECT|WITH)\b.*?\bINTO\s+(?!OUTFILE)\w)",
    re.IGNORECASE | re.DOTALL,
)


_TARGETED: Final = "targetDatabase names it"


class Rung(StrEnum):
    """What decided."""

    TARGET = "target"
    HINT = "hint"
    OPERATION = "operation"
    SHAPE = "shape"
    LANGUAGE = "language"
    CATALOG = "catalog"
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


class Route(msgspec.Struct, frozen=True):
    """Where to, on what evidence, and the query as that engine gets it."""

    engine: Engine
    rung: Rung
    query: Text
    reason: str = ""
    known_write: bool | None = None

    @property
    def write(self) -> bool:
        """Whether the query may change something; worked out when asked, true when in doubt."""
        known = self.known_write
        return writes(self.engine, self.query) if known is None else known


@dataclass(frozen=True, slots=True)
class _Decision:
    """What a text was found to be; without an engine, `candidates` are what it fits."""

    engine: Engine | None
    rung: Rung
    reason: str
    candidates: tuple[Engine, ...] = ()


def choose(
    query: Text,
    target: str | None,
    operation: Operation | None,
    catalog: Catalog = UNKNOWN,
) -> Route:
    """The route; raises UnknownEngine or AmbiguousRoute (member `candidates`)."""
    if target is not None:
        if isinstance(query, str) and len(query) <= _REMEMBERED_LENGTH:
            return _text_targeted(query, target)
        return Route(_engine(target), Rung.TARGET, query, _TARGETED)
    if isinstance(query, str) and (hint := _HINT.match(query)):
        engine = _engine(hint[1])
        rest = query[hint.end() :] if engine in _NO_COMMENTS else query
        return Route(engine, Rung.HINT, rest, "the leading comment names it")
    if operation is not None:
        reason = f"operation {operation} is this engine's"
        return Route(OPERATIONS[operation], Rung.OPERATION, query, reason)
    if isinstance(query, dict):
        return _by_shape(query)
    if isinstance(query, list):
        return Route(Engine.DRAGONFLYDB, Rung.LANGUAGE, query, "a list is a Redis command")
    if len(query) <= _REMEMBERED_LENGTH:
        decision = _MEMORY.decide(query, catalog)
    else:
        decision = _by_text(query, catalog)
    if decision.engine is None:
        raise _ambiguous(decision.candidates, decision.reason)
    return Route(decision.engine, decision.rung, query, decision.reason)


def defines_tables(query: Text) -> bool:
    """Whether SQL may make, change or remove tables: the catalogue is read again behind it."""
    if not isinstance(query, str):
        return False
    return _text_defines(query) if len(query) <= _REMEMBERED_LENGTH else _defines(query)


def _defines(query: str) -> bool:
    return _DEFINES.match(query) is not None


_text_defines = lru_cache(maxsize=_REMEMBERED)(_defines)


def writes(engine: Engine, query: Text) -> bool:
    """Whether `query` may change something on `engine`; true when in doubt."""
    if isinstance(query, str) and len(query) <= _REMEMBERED_LENGTH:
        return _text_writes(engine, query)
    return _writes(engine, query)


def _writes(engine: Engine, query: Text) -> bool:
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
            found = tokens.aql_tokens(query)
            return languages.aql_writes(found) or _hides_write(query)
        case ((Engine.POSTGRESQL | Engine.CLICKHOUSE), str()):
            return _sql_writes(query, tokens.readings(query))
        case _:
            return True


_text_writes = lru_cache(maxsize=_REMEMBERED)(_writes)


@lru_cache(maxsize=_REMEMBERED)
def _text_targeted(query: str, target: str) -> Route:
    engine = _engine(target)
    return Route(engine, Rung.TARGET, query, _TARGETED, writes(engine, query))


def _engine(name: str) -> Engine:
    engine = engines.parse(name)
    if engine is None:
        known = ", ".join(engine.value for engine in Engine)
        raise UnknownEngine(f"no engine is called {name!r}; there are {known}")
    return engine


def _by_shape(query: dict[str, Any]) -> Route:
    mongodb, weaviate = shapes.is_mongodb(query), shapes.is_weaviate(query)
    if mongodb == weaviate:
        raise _ambiguous(_OBJECT_ENGINES, "its members fit two engines, or none")
    engine = Engine.MONGODB if mongodb else Engine.WEAVIATE
    return Route(engine, Rung.SHAPE, query, f"only {engine} has queries with these members")


def _by_text(text: str, catalog: Catalog) -> _Decision:
    if languages.is_graphql(text):
        return _Decision(Engine.WEAVIATE, Rung.LANGUAGE, "it is GraphQL")
    found = tokens.readings(text)
    if languages.is_aql(found[0]):
        return _Decision(Engine.ARANGODB, Rung.LANGUAGE, "it begins as AQL does")
    words = text[: tokens.LONGEST].split()
    if commands.is_command(words):
        return _Decision(Engine.DRAGONFLYDB, Rung.LANGUAGE, f"{words[0].upper()} is a command")
    if not languages.is_sql(found[0]):
        return _Decision(None, Rung.LANGUAGE, "it is in no language known here", _TEXT_ENGINES)
    write = _sql_writes(text, found)
    readings = [read(reading) for reading in found]
    decision = _by_catalog(readings, catalog, write) or _by_dialect(readings, write)
    if decision is not None:
        return decision
    candidates = (*SQL_ENGINES, Engine.DRAGONFLYDB) if commands.may_be(words) else SQL_ENGINES
    kind = "a write is never guessed" if write else "both may have these tables"
    return _Decision(
        None, Rung.DIALECT, f"nothing in this SQL is one engine's alone; {kind}", candidates
    )


def _by_catalog(readings: list[Reading], catalog: Catalog, write: bool) -> _Decision | None:
    named = [tables(reading) for reading in readings]
    owners = {catalog.owner(names, certain=True) for names in named}
    if owners == {None} and not write:
        owners = {catalog.owner(names, certain=False) for names in named}
        if any(dialects.contradicts(reading, owner) for owner in owners for reading in readings):
            return None
    owner = owners.pop()
    if owners or owner is None:
        return None
    which = ", ".join(sorted(map(str, named[0])))
    if write and any(dialects.contradicts(reading, owner) for reading in readings):
        reason = f"only {owner} has {which}, and it cannot parse this"
        return _Decision(None, Rung.CATALOG, reason, SQL_ENGINES)
    return _Decision(owner, Rung.CATALOG, f"of the SQL engines {owner} alone has {which}")


def _by_dialect(readings: list[Reading], write: bool) -> _Decision | None:
    kinds = (dialects.certain,) if write else (dialects.certain, dialects.likely)
    for kind in kinds:
        seen = [kind(reading) for reading in readings]
        first = seen[0]
        if first is not None and all(one and one.engine is first.engine for one in seen):
            likely = "" if kind is dialects.certain else "most likely "
            reason = f"{first.words} is {likely}{first.engine}'s"
            return _Decision(first.engine, Rung.DIALECT, reason)
    return None


def _sql_writes(text: str, found: list[list[tokens.Token]]) -> bool:
    return any(languages.sql_writes(reading) for reading in found) or _hides_write(text)


def _hides_write(text: str) -> bool:
    """Whether a text that is too long to be read whole may write further on."""
    if len(text) <= tokens.LONGEST:
        return False
    return len(text) > _LONGEST_SEARCHED or languages.mentions_write(text)


class _Memory:
    """The last decisions on texts, all made with one catalogue: a new one empties it."""

    def __init__(self) -> None:
        self._catalog = UNKNOWN
        self._decisions: OrderedDict[str, _Decision] = OrderedDict()

    def decide(self, text: str, catalog: Catalog) -> _Decision:
        """The decision, remembered or made."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._decisions.clear()
        known = self._decisions.get(text)
        if known is not None:
            self._decisions.move_to_end(text)
            return known
        decision = self._decisions[text] = _by_text(text, catalog)
        if len(self._decisions) > _REMEMBERED:
            self._decisions.popitem(last=False)
        return decision


_MEMORY: Final = _Memory()


def _ambiguous(candidates: tuple[Engine, ...], reason: str) -> AmbiguousRoute:
    names = [engine.value for engine in candidates]
    return AmbiguousRoute(
        f"this could be for {' or '.join(names)} ({reason}); say which in targetDatabase",
        members={"candidates": names},
    )
