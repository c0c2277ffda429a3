"""Whether a statement may be run again when nobody knows whether it ran. Pure.

What is told here is told before anything runs: a write that could be applied twice is refused
unless its caller says that this does no harm.
"""

import re
from enum import StrEnum
from typing import Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar import routing
from plan2_sidecar.engines import sqltext
from plan2_sidecar.errors import NotIdempotent
from plan2_sidecar.query import Text


class Repeat(StrEnum):
    """Why a statement may be sent again."""

    READ = "read"
    """It changes nothing."""
    MARKED = "marked"
    """A marker is written in the same transaction: exactly once."""
    NAMED = "named"
    """The engine knows it again by a name that comes from the operation's id."""
    HARMLESS = "harmless"
    """Twice is as good as once."""
    CALLER = "caller"
    """The caller says so."""
    ASK = "ask"
    """Only the engine can tell; never left standing in a plan that runs."""


TRANSACTIONAL: Final = frozenset({Engine.POSTGRESQL, Engine.ARANGODB, Engine.MONGODB})
"""Engines with transactions that can carry a marker, or several operations."""

_HARMLESS: Final = frozenset(
    {
        *("MSET", "SETEX", "PSETEX", "DEL", "UNLINK", "PERSIST", "SETBIT", "SETRANGE", "PFADD"),
        *("HSET", "HMSET", "HDEL", "SADD", "SREM", "JSON.DEL", "JSON.MERGE"),
        *("ZREM", "ZREMRANGEBYSCORE", "ZREMRANGEBYLEX"),
    }
)
# What makes a command's effect hang on what it finds; a repeat finds its own first run.
_CONDITIONS: Final = frozenset(["NX", "XX", "GET", "INCR", "IFEQ", "IFNE", "IFDEQ", "IFDNE"])
_TABLE: Final = re.compile(
    r"""\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?!FUNCTION\b)
        (?:(?P<db>\w+|`[^`]+`|"[^"]+")\s*\.\s*)?(?P<table>\w+|`[^`]+`|"[^"]+")""",
    re.VERBOSE | re.IGNORECASE,
)


def of(engine: Engine, query: Text, *, idempotent: bool, place: str) -> Repeat:
    """Why it may be repeated, ASK where the engine must be asked; raises NotIdempotent."""
    if engine is Engine.WEAVIATE:
        objects = isinstance(query, dict) and "objects" in query
        return Repeat.NAMED if objects else Repeat.READ
    if engine is Engine.POSTGRESQL:
        return Repeat.MARKED
    if not routing.writes(engine, query):
        return Repeat.READ
    if engine is Engine.ARANGODB:
        return Repeat.MARKED
    if engine is Engine.MONGODB:
        return Repeat.ASK
    if engine is Engine.CLICKHOUSE and inserted_into(query) is not None:
        return Repeat.ASK
    if engine in (Engine.DRAGONFLYDB, Engine.REDIS) and _is_harmless(query):
        return Repeat.HARMLESS
    if idempotent:
        return Repeat.CALLER
    raise refusal(engine, place)


def refusal(engine: Engine, place: str, why: str = "") -> NotIdempotent:
    """What is said of a write that could be applied twice."""
    because = f" ({why})" if why else ""
    return NotIdempotent(
        f"{place}: after a failure nobody could tell whether this write was applied{because}; "
        'where running it twice does no harm, say "idempotent": true',
        database=engine,
    )


def inserted_into(query: Text) -> tuple[str | None, str] | None:
    """Database and table of a ClickHouse INSERT that carries its rows; None for anything else."""
    if not isinstance(query, str):
        return None
    found = _TABLE.match(_without_comments(query))
    if found is None:
        return None
    # The data may hold anything: what INSERT … SELECT would read stands before it.
    head = re.split(r"\bVALUES\b|\bFORMAT\b", query, maxsplit=1, flags=re.IGNORECASE)[0]
    words = sqltext.bare(head).upper().split()
    if head == query or "SELECT" in words or "WITH" in words or "INFILE" in words:
        return None
    database = _unquoted(found["db"]) if found["db"] else None
    return database, _unquoted(found["table"])


def _without_comments(query: str) -> str:
    return re.sub(r"\A(?:\s+|--[^\n]*\n|/\*.*?\*/)*", "", query, flags=re.DOTALL)


def _unquoted(name: str) -> str:
    return name[1:-1] if name[0] in '`"' else name


def _is_harmless(query: Text) -> bool:
    words: list[Any] = query.split() if isinstance(query, str) else list(query)
    if not words or not isinstance(words[0], str):
        return False
    name, rest = words[0].upper(), words[1:]
    options = {word.upper() for word in rest if isinstance(word, str)}
    if name == "SET":
        # Behind key and value; the value itself may be called anything.
        return _CONDITIONS.isdisjoint({word.upper() for word in rest[2:] if isinstance(word, str)})
    if name in ("EXPIREAT", "PEXPIREAT"):
        return len(rest) == 2
    if name in ("ZADD", "GEOADD", "JSON.SET"):
        return _CONDITIONS.isdisjoint(options)
    return name in _HARMLESS
