"""What a query is about: the tables or collections whose change makes another answer. Pure.

None where that cannot be told: such a read is about the whole engine, and such a write too.
"""

from functools import lru_cache
from typing import Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache.tables import Tables
from plan2_sidecar.query import Text
from plan2_sidecar.routing import reading, tokens
from plan2_sidecar.routing.tables import tables

LONGEST_TEXT: Final = 8192
MOST_TAGS: Final = 16
# What starts a statement that changes rows alone; any other may change what tables there are.
_CHANGES_ROWS: Final = tokens.keywords("INSERT UPDATE DELETE MERGE WITH SELECT")


def of(engine: Engine, query: Text, known: Tables | None, *, write: bool) -> frozenset[str] | None:
    """The tags in small letters; None where they cannot be told."""
    match engine, query:
        case ((Engine.POSTGRESQL | Engine.CLICKHOUSE), str()):
            found = _sql(query, known, write=write)
        case Engine.MONGODB, dict():
            found = _mongodb(query, known)
        case Engine.WEAVIATE, {"collection": str(name)}:
            found = frozenset({name.lower()})
        case _:
            return None
    return found if found and len(found) <= MOST_TAGS else None


def _sql(text: str, known: Tables | None, *, write: bool) -> frozenset[str] | None:
    if known is None or len(text) > LONGEST_TEXT:
        return None
    first, names, extracted = _names(text)
    if (write and first not in _CHANGES_ROWS) or not known.entangled.isdisjoint(names):
        return None
    # A column that is called like a table does no harm.
    return extracted | (names & known.plain)


@lru_cache(maxsize=1024)
def _names(text: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """The first word, all names, and those that stand where tables do."""
    found = [reading.read(read) for read in tokens.readings(text)]
    names = {_plain(token.text) for one in found for token in one.tokens if token.is_name}
    extracted = {name.parts[-1].lower() for one in found for name in tables(one)}
    return found[0].word(0), frozenset(names), frozenset(extracted)


def _plain(name: str) -> str:
    return name.strip('"`').lower()


def _mongodb(query: dict[str, Any], known: Tables | None) -> frozenset[str] | None:
    collection = query.get("collection")
    # A pipeline may read and write other collections.
    if known is None or not isinstance(collection, str) or "pipeline" in query:
        return None
    name = collection.lower()
    return None if name in known.entangled else frozenset({name})
