"""The tables that each SQL engine really has, as a value: what `choose` is given.

A snapshot is made by `plan2_sidecar.catalog` and never changed; a new one takes its place when
the tables did, so that decisions can be remembered for as long as the snapshot is the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.routing.tables import Name

SQL_ENGINES: Final = (Engine.POSTGRESQL, Engine.CLICKHOUSE)


@dataclass(frozen=True, slots=True)
class Tables:
    """One engine's: names as tuples, `("accounts",)` where no schema is needed and
    `("public", "accounts")`. Where it is not `complete`, a missing name proves nothing.
    """

    names: frozenset[tuple[str, ...]]
    complete: bool = True

    def has(self, parts: tuple[str, ...]) -> bool:
        """Whether there is such a table."""
        return parts in self.names


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """`tables` holds the configured SQL engines; None stands for one that is not known."""

    tables: Mapping[Engine, Tables | None] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(SQL_ENGINES))
    )

    def owner(self, names: Iterable[Name], *, certain: bool) -> Engine | None:
        """The one engine that has these tables.

        `certain`: every other configured engine is known to lack some of them. Otherwise it is
        enough that no other is known to have any, when not all are found in one.
        """
        asked = list(names)
        if not asked:
            return None
        counts = {engine: self._count(engine, asked) for engine in self.tables}
        owners = [engine for engine, count in counts.items() if count == len(asked)]
        if certain:
            return owners[0] if len(owners) == 1 and self._all_known(owners[0]) else None
        if not owners:
            owners = [engine for engine, count in counts.items() if count]
        return owners[0] if len(owners) == 1 else None

    def _count(self, engine: Engine, names: list[Name]) -> int:
        tables = self.tables.get(engine)
        return 0 if tables is None else sum(tables.has(name.on(engine)) for name in names)

    def _all_known(self, owner: Engine) -> bool:
        others = (tables for engine, tables in self.tables.items() if engine is not owner)
        return all(tables is not None and tables.complete for tables in others)


UNKNOWN: Final = Catalog()
"""Nothing has been read yet."""
