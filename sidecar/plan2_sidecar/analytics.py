"""What services tell of the requests they served: buffered here, written to ClickHouse in batches.

A call costs the caller no round trip. Rows are written once a second, or as soon as there are a
thousand; while ClickHouse is away they are kept, and of too many the oldest are dropped and
counted. A clean stop writes what is left.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem
from plan2_sidecar.query import Result
from plan2_sidecar.warehouse import Table, Warehouse

LOG = logging.getLogger(__name__)

TABLE: Final = Table(
    "plan2_api_requests",
    """(
        at DateTime64(3, 'UTC'),
        method LowCardinality(String),
        path String,
        status UInt16,
        duration_ms Nullable(Float64),
        client_id Nullable(String),
        extra String
    )
    ENGINE = MergeTree
    PARTITION BY toYYYYMM(at)
    ORDER BY (at, path)
    TTL toDateTime(at) + INTERVAL 90 DAY""",
)

CAPACITY_ROWS: Final = 10_000
CAPACITY_BYTES: Final = 16 * 1024 * 1024
FLUSH_ROWS: Final = 1000
# One insert; ClickHouse itself waits up to its busy timeout for others' rows.
FLUSH_SECONDS: Final = 10.0
# The pod's grace is nearly over when this begins.
CLOSE_SECONDS: Final = 4.0
_RETRY_SECONDS: Final = 0.25


class Group(StrEnum):
    """What requests are counted by."""

    PATH = "path"
    METHOD = "method"
    STATUS = "status"
    CLIENT_ID = "clientId"


_COLUMNS: Final = {
    Group.PATH: "path",
    Group.METHOD: "method",
    Group.STATUS: "status",
    Group.CLIENT_ID: "client_id",
}
_MILLISECONDS: Final = "if(isFinite({0}), round({0}, 3), NULL)"
_SUMMARY: Final = f"""
    SELECT {{column}} AS `{{name}}`, count, errors,
        {_MILLISECONDS.format("quantiles[1]")} AS `p50Ms`,
        {_MILLISECONDS.format("quantiles[2]")} AS `p99Ms`
    FROM (
        SELECT {{column}}, count() AS count, countIf(status >= 400) AS errors,
            quantilesTDigestIf(0.5, 0.99)(ifNull(duration_ms, 0), isNotNull(duration_ms))
                AS quantiles
        FROM {TABLE.name}
        WHERE at >= parseDateTime64BestEffort({{{{since:String}}}}, 3, 'UTC')
            AND at < parseDateTime64BestEffort({{{{until:String}}}}, 3, 'UTC')
        GROUP BY {{column}}
    )
    ORDER BY count DESC, {{column}}
    LIMIT {{{{limit:UInt32}}}} OFFSET {{{{offset:UInt32}}}}
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, its end not in it, and how many groups of it were shown already."""

    since: datetime
    until: datetime
    offset: int = 0


class Analytics:
    """A part of the sidecar: the buffer and its way to ClickHouse.

    `dropped` is told how many rows were given up.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        dropped: Callable[[int], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._warehouse = warehouse
        self._dropped = dropped
        self._clock = clock
        self._rows: deque[bytes] = deque()
        self._bytes = 0
        self._flushing = asyncio.Lock()
        self._early: asyncio.Task[None] | None = None
        self.degraded = False

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._rows)

    def add(self, rows: Sequence[bytes]) -> None:
        """Take rows, a JSON object of the table's columns each; raises EngineNotConfigured."""
        self._warehouse.require()
        self._rows.extend(rows)
        self._bytes += sum(map(len, rows))
        self._bound()
        if len(self._rows) >= FLUSH_ROWS and not self.degraded and self._early is None:
            self._early = asyncio.get_running_loop().create_task(self._flush_early())

    async def look(self) -> None:
        """Write what waits."""
        if self._rows and self._warehouse.configured:
            await self._try_to_flush(Deadline.after(FLUSH_SECONDS, self._clock))

    async def close(self) -> None:
        """Write what waits, trying again for a while; the rest is dropped, and said."""
        deadline = Deadline.after(CLOSE_SECONDS, self._clock)
        if self._early is not None:
            await asyncio.wait({self._early}, timeout=CLOSE_SECONDS)
        while self._rows and self._warehouse.configured and self._clock() < deadline.at:
            if not await self._try_to_flush(deadline):
                await asyncio.sleep(_RETRY_SECONDS)
        if self._rows:
            LOG.error("%d requests were not written to ClickHouse", len(self._rows))
            self._drop(len(self._rows))

    async def summary(self, window: Window, group: Group, limit: int, deadline: Deadline) -> Result:
        """At most `limit` groups, those with most requests first; `truncated` when there are more.

        What this sidecar was told is in it. Raises Problem.
        """
        if self._rows:
            await self._try_to_flush(deadline.earlier(FLUSH_SECONDS))
        statement = _SUMMARY.format(column=_COLUMNS[group], name=group.value)
        params = {
            "since": _text(window.since),
            "until": _text(window.until),
            "limit": limit + 1,
            "offset": window.offset,
        }
        return await self._warehouse.select(statement, params, limit, deadline)

    async def _flush_early(self) -> None:
        try:
            await self._try_to_flush(Deadline.after(FLUSH_SECONDS, self._clock))
        finally:
            self._early = None

    async def _try_to_flush(self, deadline: Deadline) -> bool:
        """Whether everything that waited was written."""
        async with self._flushing:
            waiting = len(self._rows)
            # Fewer may be left than waited: the oldest are dropped while one is written.
            while count := min(waiting, len(self._rows), FLUSH_ROWS):
                batch = [self._rows.popleft() for _ in range(count)]
                self._bytes -= sum(map(len, batch))
                waiting -= count
                try:
                    await self._warehouse.insert(TABLE, b"\n".join(batch), deadline)
                except Problem as problem:
                    self._keep(batch)
                    if not self.degraded:
                        LOG.warning("requests wait for ClickHouse: %s", problem.detail)
                    self.degraded = True
                    return False
                except BaseException:
                    self._keep(batch)
                    raise
            self.degraded = False
            return True

    def _keep(self, batch: list[bytes]) -> None:
        self._rows.extendleft(reversed(batch))
        self._bytes += sum(map(len, batch))
        self._bound()

    def _bound(self) -> None:
        """Drop the oldest of too many."""
        surplus = max(0, len(self._rows) - CAPACITY_ROWS)
        excess = self._bytes - CAPACITY_BYTES
        for index, row in enumerate(self._rows):
            if excess <= 0:
                break
            excess -= len(row)
            surplus = max(surplus, index + 1)
        self._drop(surplus)

    def _drop(self, count: int) -> None:
        if count:
            self._bytes -= sum(len(self._rows.popleft()) for _ in range(count))
            self._dropped(count)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
