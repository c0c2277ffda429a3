"""The history of configuration in ClickHouse: every change of PostgreSQL, copied from there.

Any sidecar copies what is not copied yet; rows are claimed, so that two never take the same one.
ClickHouse down or not there: the changes wait in PostgreSQL. A copy that was written and not
noted down is written again and merged away, because rows of one id are one row to the table.
"""

import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plan2_contract import schema
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem, Unavailable
from plan2_sidecar.warehouse import Table, Warehouse

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

LOG = logging.getLogger(__name__)

TABLE: Final = Table(
    "plan2_config_changes",
    """(
        id UInt64,
        user_id String,
        key String,
        version Nullable(UInt64),
        old_value Nullable(String),
        new_value Nullable(String),
        actor String,
        at DateTime64(6, 'UTC')
    )
    ENGINE = ReplacingMergeTree
    PARTITION BY toYYYYMM(at)
    ORDER BY (user_id, key, id)
    TTL toDateTime(at) + INTERVAL 2 YEAR
    SETTINGS non_replicated_deduplication_window = 1000""",
)

BATCH: Final = 500
COPY_SECONDS: Final = 10.0
# Changes of sidecars that are gone are found by the others so often.
SWEEP_SECONDS: Final = 300.0
_SHORTEST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0

_CLAIM = """
    SELECT id, user_id, key, version, old_value::text AS old_value, new_value::text AS new_value,
        actor, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS at
    FROM plan2.config_change WHERE NOT copied ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
_COPIED = """
    UPDATE plan2.config_change SET copied = true
    WHERE id IN (SELECT unnest(string_to_array($1, ','))::bigint)
"""


class Copies:
    """A part of the sidecar: `wanted()` after a change, the rest is its own look.

    `sweeps`: look for what other sidecars left, even before this one wrote a change.
    """

    def __init__(
        self,
        database: Database,
        warehouse: Warehouse,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
        *,
        sweeps: bool,
    ) -> None:
        self._database = database
        self._warehouse = warehouse
        self._clock = clock
        self._chance = chance
        self._sweeps = sweeps
        self._pause = _SHORTEST_PAUSE
        self._next = clock() + SWEEP_SECONDS * chance()
        self._changed = False

    def wanted(self) -> None:
        """There is a change to be copied."""
        self._changed = True
        self._sweeps = True

    async def look(self) -> None:
        """Copy what waits, when it is time; a failure makes the next try later."""
        now = self._clock()
        if not (self._sweeps and self._database.configured and self._warehouse.configured):
            return
        if now < self._next and not (self._changed and self._pause == _SHORTEST_PAUSE):
            return
        self._changed = False
        try:
            while await self.copy(Deadline.after(COPY_SECONDS, self._clock)) == BATCH:
                pass
        except Problem as problem:
            self._changed = True
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._next = now + self._pause * (0.5 + self._chance() / 2)
            level = logging.INFO if isinstance(problem, Unavailable) else logging.WARNING
            LOG.log(level, "configuration changes wait to be copied: %s", problem.detail)
        else:
            self._pause = _SHORTEST_PAUSE
            self._next = now + SWEEP_SECONDS * (0.5 + self._chance())

    async def close(self) -> None:
        """Once more, for what was changed last; what fails now is copied by another sidecar."""
        if self._changed and self._database.configured and self._warehouse.configured:
            try:
                await self.copy(Deadline.after(1.0, self._clock))
            except Problem as problem:
                LOG.info("configuration changes are left to others: %s", problem.detail)

    async def copy(self, deadline: Deadline) -> int:
        """Copy at most BATCH changes; how many there were. Raises Problem."""

        async def work(transaction: "Transaction") -> int:
            rows = await transaction.connection.fetch(_CLAIM, BATCH)
            if not rows:
                return 0
            await self._insert(rows, deadline)
            ids = ",".join(str(row["id"]) for row in rows)
            await transaction.connection.execute(_COPIED, ids)
            return len(rows)

        return await self._database.run(work, deadline, needs=schema.CONFIGURATION)

    async def _insert(self, rows: Sequence[Any], deadline: Deadline) -> None:
        lines = b"\n".join(msgspec.json.encode(dict(row.items())) for row in rows)
        # The same rows again, after a commit that failed, are no second insert.
        token = hashlib.sha256(",".join(str(row["id"]) for row in rows).encode()).hexdigest()
        await self._warehouse.insert(
            TABLE, lines, deadline, async_insert="0", insert_deduplication_token=token
        )
