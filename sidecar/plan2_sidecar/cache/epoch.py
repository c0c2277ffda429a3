"""The store's epoch: a number in PostgreSQL that every key in the store carries.

Raising it makes all that the store holds unreadable, which is what a write does that could not
reach the store: nobody can say any more what the store has of it. Without PostgreSQL there is
no epoch to raise, and such a write is refused.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from plan2_contract import schema
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import EngineNotConfigured, SchemaOutdated

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

RAISE_SECONDS: Final = 2.0

_READ: Final = "SELECT epoch, answers FROM plan2.store_epoch"


def _raising(column: str, value: str) -> str:
    """The statement that brings a column to `value`, where $1 is what this sidecar knows."""
    return f"""
        INSERT INTO plan2.store_epoch ({column}) VALUES ({value.format("0")})
        ON CONFLICT (singleton) DO UPDATE
        SET {column} = {value.format(f"store_epoch.{column}")}, changed_at = now()
        RETURNING epoch, answers
    """


_AT_LEAST: Final = _raising("epoch", "greatest({}, $1::text::bigint)")
_NEXT: Final = _raising("epoch", "greatest({}, $1::text::bigint) + 1")
_NEXT_ANSWERS: Final = _raising("answers", "greatest({}, $1::text::bigint) + 1")


class Epoch:
    """The number as this sidecar knows it; it never goes down.

    `answers` is another, for what a write makes of kept answers: raising it ends those alone.
    `changed(foreign)` is called when it goes up; `foreign` unless it is this sidecar's own
    raise, with nobody else's before it.
    """

    def __init__(self, database: Database, changed: Callable[[bool], None]) -> None:
        self.number = 0
        self.answers = 0
        self._database = database
        self._changed = changed
        self._batch: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def kept(self, deadline: Deadline) -> bool:
        """Learn the number; False where no PostgreSQL keeps one. Raises Problem."""
        try:
            await self._run(_READ, (), deadline)
        except (EngineNotConfigured, SchemaOutdated):
            return False
        return True

    async def settle(self, decide: Callable[[], Awaitable[int]], deadline: Deadline) -> None:
        """Bring PostgreSQL to what `decide()` says while nobody else can raise it.

        `decide` runs in the transaction that holds the row, and knows `number` as it stands
        there. Raises Problem.
        """

        async def work(transaction: "Transaction") -> tuple[int, int]:
            connection = transaction.connection
            self._learn(_numbers(await connection.fetchrow(f"{_READ} FOR UPDATE")))
            return _numbers(await connection.fetchrow(_AT_LEAST, str(await decide())))

        self._learn(await self._database.run(work, deadline, needs=schema.SESSIONS))

    async def bump(self, deadline: Deadline) -> None:
        """Raise the number by one; those who ask meanwhile share the next raise.

        Raises Problem, EngineNotConfigured among them: then nothing was raised.
        """
        if self._batch is None:
            self._batch = asyncio.create_task(self._raise())
            self._batch.add_done_callback(_retrieved)
        async with deadline.enforced():
            await asyncio.shield(self._batch)

    async def bump_answers(self, deadline: Deadline) -> None:
        """Raise `answers` by one; raises Problem."""
        await self._run(_NEXT_ANSWERS, (str(self.answers),), deadline)

    def adopt(self, number: int, *, own: bool = False) -> None:
        """Take over what PostgreSQL or the store says."""
        if number > self.number:
            foreign = not own or number != self.number + 1
            self.number = number
            self._changed(foreign)

    async def _raise(self) -> None:
        async with self._turn:
            # The statement must start after the write of everybody who shares it has failed.
            self._batch = None
            deadline = Deadline.after(RAISE_SECONDS)
            await self._run(_NEXT, (str(self.number),), deadline, own=True)

    async def _run(
        self, statement: str, arguments: tuple[str, ...], deadline: Deadline, *, own: bool = False
    ) -> None:
        async def work(transaction: "Transaction") -> tuple[int, int]:
            return _numbers(await transaction.connection.fetchrow(statement, *arguments))

        self._learn(await self._database.run(work, deadline, needs=schema.SESSIONS), own=own)

    def _learn(self, numbers: tuple[int, int], *, own: bool = False) -> None:
        self.answers = max(self.answers, numbers[1])
        self.adopt(numbers[0], own=own)


def _numbers(row: Any) -> tuple[int, int]:
    return (0, 0) if row is None else (int(row["epoch"]), int(row["answers"]))


def _retrieved(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
