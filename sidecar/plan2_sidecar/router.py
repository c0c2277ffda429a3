"""Where a query goes, with what is known of the tables: `routing` and the catalogue together."""

from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar import routing
from plan2_sidecar.catalog import CatalogReader
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import AmbiguousRoute
from plan2_sidecar.query import Text
from plan2_sidecar.routing import Operation, Route, Rung

# A query that would be refused waits so long for tables that are just being read.
LONGEST_WAIT_SECONDS: Final = 0.5
SHARE_OF_DEADLINE: Final = 0.25


class Router:
    """The sidecar's: `choose` with the newest catalogue."""

    def __init__(self, catalog: CatalogReader) -> None:
        self._catalog = catalog

    def choose(self, query: Text, target: str | None, operation: Operation | None) -> Route:
        """The route as far as it is known now; raises UnknownEngine or AmbiguousRoute."""
        if target is not None:
            return routing.choose(query, target, operation)
        try:
            route = routing.choose(query, target, operation, self._catalog.snapshot())
        except AmbiguousRoute as ambiguous:
            if Engine.POSTGRESQL.value in ambiguous.members["candidates"]:
                self._catalog.need()
            raise
        if route.rung is Rung.CATALOG or route.rung is Rung.DIALECT:
            self._catalog.need()
        return route

    async def route(
        self, query: Text, target: str | None, operation: Operation | None, deadline: Deadline
    ) -> Route:
        """The route; one that is ambiguous waits a moment for tables that are being read, which
        happens on first need and behind a definition. Raises UnknownEngine or AmbiguousRoute.
        """
        if target is not None:
            return self.choose(query, target, operation)
        seconds = min(LONGEST_WAIT_SECONDS, deadline.remaining() * SHARE_OF_DEADLINE)
        patience = deadline.earlier(seconds)
        while True:
            try:
                return self.choose(query, target, operation)
            except AmbiguousRoute:
                # A reading that began before a definition ended is followed by another.
                if not await self._catalog.settled(patience):
                    raise
