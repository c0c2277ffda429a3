"""The durable log in PostgreSQL: every operation, its steps, who runs it and until when.

A claim is (operation, attempt). Whoever takes an operation over raises the attempt, and every
write here first finds its own attempt there and keeps it from changing until it has committed:
a sidecar that lost its lease can write nothing more, nor commit a PostgreSQL step. Renewing a
lease is not held up by that, taking one over is (FOR KEY SHARE against FOR UPDATE SKIP LOCKED).
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from plan2_contract import schema
from plan2_contract.engines import Engine
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result
from plan2_sidecar.sagas import plan as plans
from plan2_sidecar.sagas import statements
from plan2_sidecar.sagas.record import Entry, Kind, Place, Record, State, StepState

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

T = TypeVar("T")

LOG_SECONDS: Final = 5.0
KEPT_DAYS: Final = 7
PURGED_AT_ONCE: Final = 100
# What one step may leave in the log; the rest of its rows is left out.
MOST_ROWS: Final = 1000
MOST_RESULT_BYTES: Final = 1 << 20


class LeaseLost(Exception):
    """Another sidecar has the operation now: nothing more may be done to it here."""


class AlreadyCommitted(Exception):
    """The step was committed by a try that was thought lost."""


@dataclass
class Claim:
    """The right to run an operation until `until`, on the sidecar's own clock."""

    id: str
    attempt: int
    until: float


@dataclass
class Outcome:
    """What became of a step, and of the operation with it where `then` is given."""

    place: Place
    state: StepState
    result: msgspec.Raw | None = None
    problem: msgspec.Raw | None = None
    unsure: bool = False


Work = Callable[["Transaction"], Awaitable[Mapping[int, msgspec.Raw]]]


@dataclass
class Log:
    """`owner` names this sidecar; `clock` is the one that claims end on."""

    database: Database
    fleet: Fleet
    owner: str
    lease_ms: int
    clock: Clock = time.monotonic

    async def create(
        self, record: Record, deadline: Deadline, work: Work | None = None
    ) -> Claim | None:
        """Log a new operation; None where its key, or the operation itself, is there already.

        `work` is done in the same transaction, and its results (by position) are logged as
        committed steps.
        """
        claim = Claim(record.id, 1, self._until())

        async def call(transaction: "Transaction") -> list[Outcome] | None:
            connection = transaction.connection
            made = await connection.fetchval(
                statements.CREATE,
                record.id,
                record.key,
                record.fingerprint,
                record.state.value,
                plans.ENCODER.encode(record.plan).decode(),
                ",".join(record.plan.engines),
                self.owner,
                self.lease_ms,
                int(record.state.final),
            )
            if made is None:
                return None
            await self._insert_steps(connection, record)
            results = {} if work is None else await work(transaction)
            outcomes = [
                Outcome((Kind.DO, position), StepState.COMMITTED, result)
                for position, result in results.items()
            ]
            await self._keep_outcomes(connection, claim, outcomes)
            if len(outcomes) == len(record.plan.steps):
                await _set_state(connection, record.id, State.COMMITTED)
            return outcomes

        outcomes = await self._run(call, deadline)
        if outcomes is None:
            return None
        note(record, outcomes, State.COMMITTED if len(outcomes) == len(record.plan.steps) else None)
        return claim

    async def exists(self, deadline: Deadline) -> bool:
        """Whether there is a log, made by anybody; it is not made here."""

        async def work(client: Any) -> bool:
            async def call(transaction: "Transaction") -> bool:
                table = "SELECT to_regclass('plan2.operation') IS NOT NULL"
                return bool(await transaction.connection.fetchval(f"SELECT ({table})::int"))

            found: bool = await client.transaction(call, deadline)
            return found

        return await self.fleet.member(Engine.POSTGRESQL).use(work, deadline)

    async def find(self, id_or_key: str, deadline: Deadline, *, by_id: bool) -> Record | None:
        """The operation of that id, or that key."""

        async def call(transaction: "Transaction") -> Record | None:
            where = "id = $1::text::uuid" if by_id else "idempotency_key = $1"
            row = await transaction.connection.fetchrow(
                f"{statements.OPERATION} WHERE {where}", id_or_key
            )
            if row is None:
                return None
            steps = await transaction.connection.fetch(statements.STEPS, row[0])
            return _record(row, steps)

        return await self._run(call, deadline)

    async def load(self, claim: Claim) -> Record:
        """The claimed operation; raises LeaseLost."""
        record = await self.find(claim.id, self._soon(), by_id=True)
        if record is None or record.attempt != claim.attempt or record.state.final:
            raise LeaseLost(claim.id)
        return record

    async def claim_due(self, most: int, engines: Iterable[str]) -> list[Claim]:
        """Take over operations that nobody runs; each goes to one claimant alone."""
        until = self._until()

        async def call(transaction: "Transaction") -> list[Claim]:
            rows = await transaction.connection.fetch(
                statements.CLAIM, ",".join(engines), most, self.owner, self.lease_ms
            )
            return [Claim(row[0], row[1], until) for row in rows]

        return await self._run(call, self._soon())

    async def renew(self, claims: Iterable[Claim]) -> set[str]:
        """Keep the claims for another lease; the ids of those that still hold."""
        held = {claim.id: claim for claim in claims}
        until = self._until()

        async def call(transaction: "Transaction") -> set[str]:
            rows = await transaction.connection.fetch(
                "UPDATE plan2.operation o "
                f"SET lease_until = now() + $2::int * interval '1 millisecond' {statements.MINE} "
                "RETURNING o.id::text",
                _pairs(held.values()),
                self.lease_ms,
            )
            return {row[0] for row in rows}

        kept = await self._run(call, self._soon())
        for identity in kept:
            held[identity].until = until
        return kept

    async def release(self, claims: Iterable[Claim], delay_seconds: float = 0.0) -> None:
        """Let go of the claims: whoever looks after `delay_seconds` may take them over."""

        async def call(transaction: "Transaction") -> None:
            await transaction.connection.execute(
                "UPDATE plan2.operation o SET lease_owner = NULL, "
                f"lease_until = now() + $2::int * interval '1 millisecond' {statements.MINE}",
                _pairs(claims),
                int(delay_seconds * 1000),
            )

        await self._run(call, self._soon())

    async def intent(self, claim: Claim, record: Record, places: list[Place]) -> None:
        """Note that the steps are begun; raises LeaseLost, AlreadyCommitted."""

        async def call(transaction: "Transaction") -> list[tuple[int, bool]]:
            noted = []
            for kind, position in places:
                row = await transaction.connection.fetchrow(
                    statements.INTENT, claim.id, kind.value, position
                )
                if row is None:
                    raise AlreadyCommitted(position)
                noted.append((row[0], bool(row[1])))
            return noted

        for place, (tries, unsure) in zip(places, await self._fenced(claim, call), strict=True):
            entry = record.entry(place)
            entry.state, entry.tries, entry.unsure = StepState.RUNNING, tries, unsure

    async def outcome(
        self,
        claim: Claim,
        record: Record,
        outcomes: list[Outcome],
        then: State | None = None,
    ) -> None:
        """Note what became of steps and the operation; raises LeaseLost, AlreadyCommitted."""

        async def call(transaction: "Transaction") -> None:
            for outcome in outcomes:
                await self._outcome(transaction.connection, claim.id, outcome)
            if then is not None:
                await _set_state(transaction.connection, claim.id, then)

        await self._fenced(claim, call)
        note(record, outcomes, then)

    async def apply(
        self,
        claim: Claim,
        record: Record,
        place: Place,
        query: Query,
        deadline: Deadline,
        then: State | None,
    ) -> None:
        """Run a PostgreSQL step and note its result, in one transaction.

        Raises LeaseLost, AlreadyCommitted, or the Problem of the statement.
        """
        kind, position = place

        async def call(transaction: "Transaction") -> Outcome:
            # A try whose connection was lost may still be under way on the server.
            state = await transaction.connection.fetchval(
                "SELECT state FROM plan2.operation_step WHERE operation_id = $1::text::uuid "
                "AND kind = $2 AND position = $3::int FOR UPDATE",
                claim.id,
                kind.value,
                position,
            )
            if state == StepState.COMMITTED:
                raise AlreadyCommitted(position)
            started = self.clock()
            answer = await transaction.execute(query)
            result = encoded(answer, int((self.clock() - started) * 1_000_000))
            outcome = Outcome(place, StepState.COMMITTED, result)
            await self._outcome(transaction.connection, claim.id, outcome)
            if then is not None:
                await _set_state(transaction.connection, claim.id, then)
            return outcome

        note(record, [await self._fenced(claim, call, deadline)], then)

    async def purge(self) -> int:
        """Drop some of the operations that ended long ago; how many."""

        async def call(transaction: "Transaction") -> int:
            status: str = await transaction.connection.execute(
                "DELETE FROM plan2.operation WHERE id IN ("
                "SELECT id FROM plan2.operation "
                f"WHERE finished_at < now() - interval '{KEPT_DAYS} days' "
                f"ORDER BY finished_at LIMIT {PURGED_AT_ONCE} FOR UPDATE SKIP LOCKED)"
            )
            return int(status.rpartition(" ")[2])

        return await self._run(call, self._soon())

    async def _insert_steps(self, connection: Any, record: Record) -> None:
        for position in range(len(record.plan.steps)):
            entry = record.entry((Kind.DO, position))
            await connection.execute(
                "INSERT INTO plan2.operation_step "
                "(operation_id, kind, position, state, problem) "
                "VALUES ($1::text::uuid, 'do', $2::int, $3, $4)",
                record.id,
                position,
                entry.state.value,
                _text(entry.problem),
            )

    async def _keep_outcomes(self, connection: Any, claim: Claim, outcomes: list[Outcome]) -> None:
        """Of work that may have taken longer than the lease that was written before it."""
        for outcome in outcomes:
            await self._outcome(connection, claim.id, outcome)
        if outcomes:
            claim.until = self._until()
            await connection.execute(statements.EXTEND, claim.id, self.lease_ms)

    async def _outcome(self, connection: Any, identity: str, outcome: Outcome) -> None:
        kind, position = outcome.place
        status = await connection.execute(
            statements.OUTCOME,
            identity,
            kind.value,
            position,
            outcome.state.value,
            _text(outcome.result),
            _text(outcome.problem),
            int(outcome.unsure),
        )
        if status == "UPDATE 0":
            raise AlreadyCommitted(position)

    async def _fenced(
        self,
        claim: Claim,
        work: Callable[["Transaction"], Awaitable[T]],
        deadline: Deadline | None = None,
    ) -> T:
        async def call(transaction: "Transaction") -> T:
            mine = await transaction.connection.fetchval(
                "SELECT attempt FROM plan2.operation WHERE id = $1::text::uuid "
                "AND attempt = $2::int AND finished_at IS NULL FOR KEY SHARE",
                claim.id,
                claim.attempt,
            )
            if mine is None:
                raise LeaseLost(claim.id)
            return await work(transaction)

        return await self._run(call, deadline or self._soon())

    async def _run(self, work: Callable[["Transaction"], Awaitable[T]], deadline: Deadline) -> T:
        return await self.database.run(work, deadline, needs=schema.CROSS_DB)

    def _soon(self) -> Deadline:
        return Deadline.after(LOG_SECONDS)

    def _until(self) -> float:
        return self.clock() + self.lease_ms / 1000


def encoded(
    result: Result, took_us: int = 0, most_bytes: int | None = MOST_RESULT_BYTES
) -> msgspec.Raw:
    """A result as the log keeps it: `{data, rowCount, tookUs}` and the engine's own members."""
    answer: dict[str, Any] = {
        "data": result.data,
        "rowCount": result.row_count,
        "tookUs": took_us,
    }
    if result.truncated:
        answer["truncated"] = True
    text = plans.ENCODER.encode(answer | (result.extra or {}))
    if most_bytes is not None and len(text) > most_bytes:
        text = plans.ENCODER.encode(answer | {"data": [], "truncated": True})
    return msgspec.Raw(text)


def note(record: Record, outcomes: list[Outcome], then: State | None) -> None:
    """Bring the record to what the log says now."""
    for outcome in outcomes:
        entry = record.entry(outcome.place)
        entry.state, entry.result = outcome.state, outcome.result
        entry.problem, entry.unsure = outcome.problem, outcome.unsure
    if then is not None:
        record.state = then


async def _set_state(connection: Any, identity: str, state: State) -> None:
    await connection.execute(
        "UPDATE plan2.operation SET state = $2, "
        "finished_at = CASE WHEN $3::int <> 0 THEN now() END WHERE id = $1::text::uuid",
        identity,
        state.value,
        int(state.final),
    )


def _record(row: Any, steps: Iterable[Any]) -> Record:
    record = Record(
        id=row[0],
        key=row[1],
        fingerprint=row[2],
        plan=plans.DECODER.decode(row[4]),
        state=State(row[3]),
        attempt=row[5],
    )
    for kind, position, state, tries, unsure, result, problem in steps:
        record.steps[Kind(kind), position] = Entry(
            state=StepState(state),
            tries=tries,
            unsure=bool(unsure),
            result=_raw(result),
            problem=_raw(problem),
        )
    return record


def _pairs(claims: Iterable[Claim]) -> str:
    return ",".join(f"{claim.id}/{claim.attempt}" for claim in claims)


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _text(raw: msgspec.Raw | None) -> str | None:
    return None if raw is None else bytes(raw).decode()
