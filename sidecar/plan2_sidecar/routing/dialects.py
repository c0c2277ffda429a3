"""Which SQL dialect a statement is in: what only one of the two engines can parse.

Certain evidence is syntax that the other engine refuses, whatever tables it has. Likely evidence
(a function of that name, an alias that is a keyword there) is enough for a read, never for a
write. The words that tell become the reason given to the caller.
"""

from dataclasses import dataclass

from plan2_contract.engines import Engine
from plan2_sidecar.routing import clickhouse, postgresql
from plan2_sidecar.routing.reading import Reading, Rule


@dataclass(frozen=True, slots=True)
class Evidence:
    """The engine that `words` point to."""

    engine: Engine
    words: str


def certain(found: Reading) -> Evidence | None:
    """What only one engine can parse; None without, or with both kinds."""
    return _one(found, clickhouse.CERTAIN, postgresql.CERTAIN)


def contradicts(found: Reading, engine: Engine | None) -> bool:
    """Whether the statement holds what this engine cannot parse."""
    if engine is None:
        return False
    other = postgresql.CERTAIN if engine is Engine.CLICKHOUSE else clickhouse.CERTAIN
    return _first(found, other) is not None


def likely(found: Reading) -> Evidence | None:
    """What one engine is known for; None without, or with both kinds, or where none can parse."""
    if _first(found, clickhouse.CERTAIN) or _first(found, postgresql.CERTAIN):
        return None
    return _one(found, clickhouse.LIKELY, postgresql.LIKELY)


def _one(found: Reading, first: tuple[Rule, ...], second: tuple[Rule, ...]) -> Evidence | None:
    clickhouse_words, postgresql_words = _first(found, first), _first(found, second)
    if clickhouse_words and not postgresql_words:
        return Evidence(Engine.CLICKHOUSE, clickhouse_words)
    if postgresql_words and not clickhouse_words:
        return Evidence(Engine.POSTGRESQL, postgresql_words)
    return None


def _first(found: Reading, rules: tuple[Rule, ...]) -> str | None:
    return next((words for rule in rules if (words := rule(found))), None)
