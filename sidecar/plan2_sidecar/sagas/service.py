"""Cross-database operations as the sidecar offers them: begin, wait, find, take over.

The work goes on when its caller has gone; the caller only waits for it. A sidecar looks now and
then for operations whose own has died (`look`), and lets go of its own when it ends (`close`).
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import (
    BulkheadFull,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    EngineNotConfigured,
    IdempotencyConflict,
    OutcomeUnknown,
    Problem,
    QueryRejected,
    Refused,
    SchemaOutdated,
    Unavailable,
)
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.sagas.attempt import Parked, Patience, Probe, Told, nobody, untold
from plan2_sidecar.sagas.effects import Effects
from plan2_sidecar.sagas.leases import Leases
from plan2_sidecar.sagas.log import Claim, LeaseLost, Log
from plan2_sidecar.sagas.plan import Plan
from plan2_sidecar.sagas.record import Entry, Kind, Record, State, StepState
from plan2_sidecar.sagas.request import Mode
from plan2_sidecar.sagas.run import Runner

LOG = logging.getLogger(__name__)

Ended = Callable[[Mode, State], None]

MOST_AT_ONCE: Final = 256
# So many are taken over together: more would fill the engines' bulkheads with old work.
RESUMED_AT_ONCE: Final = 8
CONFLICTS: Final = 3
LONGEST_LOOK_SECONDS: Final = 5.0
# A sidecar that has no other business with PostgreSQL opens a connection so seldom.
IDLE_LOOK_SECONDS: Final = 60.0
ACTIVE_SECONDS: Final = 600.0
PURGE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = (0.05, 0.5)


class Sagas:
    """One sidecar's part in all operations.

    `probe` is awaited around each effect; `ended` is called for each operation that came to its
    end here.
    """

    def __init__(
        self,
        fleet: Fleet,
        database: Database,
        *,
        lease_ms: int,
        patience: Patience | None = None,
        clock: Clock = time.monotonic,
        probe: Probe = nobody,
        told: Told = untold,
        ended: Ended = lambda mode, state: None,
    ) -> None:
        self._fleet = fleet
        self._database = database
        self._clock = clock
        self._tell_ended = ended
        self._effects = Effects(fleet)
        self.log = Log(database, fleet, f"{uuid.uuid4()}", lease_ms, clock)
        self.runner = Runner(self.log, self._effects, patience or Patience(), probe, told)
        self._leases = Leases(self.log, clock)
        self._records: dict[str, Record] = {}
        self._resumed: set[str] = set()
        self._beginning: set[asyncio.Task[Record]] = set()
        self._known_log = False
        self._used_at = float("-inf")
        self._looked_at = float("-inf")
        self._wake_at = float("inf")
        self._next_purge = clock() + random.uniform(0, PURGE_SECONDS)
        self._stopping = False

    async def submit(
        self, plan: Plan, key: str | None, fingerprint: str, deadline: Deadline
    ) -> Record:
        """The operation as it stands when it has ended, or at the deadline.

        Raises IdempotencyConflict, what is wrong with the plan, or OutcomeUnknown when nobody
        can tell whether it was begun.
        """
        self._fleet.member(Engine.POSTGRESQL)
        self._used_at = self._clock()
        known = None if key is None else await self.log.find(key, deadline, by_id=False)
        if known is None:
            if len(self._leases) + len(self._beginning) >= MOST_AT_ONCE:
                raise BulkheadFull(f"{MOST_AT_ONCE} cross-database operations are under way here")
            plan = await self._effects.settle(plan, deadline)
            record = Record(str(uuid.uuid4()), key or str(uuid.uuid4()), fingerprint, plan)
            known = await self._begun(record, deadline)
        if known.fingerprint != fingerprint:
            raise IdempotencyConflict("this key was used before, for another request")
        return await self._ended(known, deadline)

    async def find(self, id_or_key: str, deadline: Deadline) -> Record | None:
        """The operation of that id or key, as it stands."""
        self._fleet.member(Engine.POSTGRESQL)
        found = None
        if _is_uuid(id_or_key):
            found = await self.log.find(id_or_key, deadline, by_id=True)
        return found or await self.log.find(id_or_key, deadline, by_id=False)

    # -- a part of the sidecar ---------------------------------------------------------------

    async def look(self) -> None:
        """Take over what nobody runs, where it is time to look."""
        now = self._clock()
        if not self._database.configured or self._stopping:
            return
        due = min(self._looked_at + self._interval(now), self._wake_at)
        if now < due:
            return
        # A little more or less, so that sidecars do not look in step.
        self._looked_at, self._wake_at = now + random.uniform(0.0, 0.2), float("inf")
        try:
            if not await self._has_log():
                return
            if (room := RESUMED_AT_ONCE - len(self._resumed)) > 0:
                claims = await self.log.claim_due(room, self._fleet.members)
                for claim in claims:
                    self._resume(claim)
                if len(claims) == room:
                    self._wake_at = now
            if now >= self._next_purge:
                self._next_purge = now + PURGE_SECONDS
                while await self.log.purge():
                    pass
        except (SchemaOutdated, EngineNotConfigured, QueryRejected):
            # No log that this role may use.
            self._looked_at = now + IDLE_LOOK_SECONDS
        except Problem as problem:
            LOG.debug("no look for operations to take over: %s", problem.detail)

    async def close(self) -> None:
        """Let go of every operation, so that another sidecar goes on at once."""
        self._stopping = True
        for task in self._beginning:
            task.cancel()
        await asyncio.gather(*self._beginning, return_exceptions=True)
        claims = await self._leases.close()
        if claims:
            try:
                await self.log.release(claims)
            except Problem as problem:
                LOG.warning("leases are left to end by themselves: %s", problem.detail)

    async def _has_log(self) -> bool:
        """Whether there is anything to look at; a look never makes the schema."""
        if not self._known_log:
            self._known_log = await self.log.exists(Deadline.after(LONGEST_LOOK_SECONDS))
        return self._known_log

    def _interval(self, now: float) -> float:
        busy = now - self._used_at < ACTIVE_SECONDS or len(self._leases) > 0
        if not busy and not self._fleet.member(Engine.POSTGRESQL).pool()["size"]:
            return IDLE_LOOK_SECONDS
        return min(max(self.log.lease_ms / 1000 / 3, 0.2), LONGEST_LOOK_SECONDS)

    # -- beginning ---------------------------------------------------------------------------

    async def _begun(self, record: Record, deadline: Deadline) -> Record:
        """The operation in the log, ours or the one that was there; it goes on without us."""
        task = asyncio.get_running_loop().create_task(self._begin(record, deadline))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        # Nobody may be left to hear how it went.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _begin(self, record: Record, deadline: Deadline) -> Record:
        claim = await self._logged(record, deadline)
        if claim is None:
            known = await self.log.find(record.key, deadline, by_id=False)
            if known is None:
                raise Conflict(
                    "an operation with this key ended just now and was dropped", retryable=True
                )
            if known.id != record.id or known.state.final:
                return known
            # Ours, logged by a try whose reply was lost.
            record, claim = known, Claim(known.id, known.attempt, 0.0)
            if not await self.log.renew([claim]):
                return known
        if record.state.final:
            self._tell_ended(record.plan.mode, record.state)
        else:
            self._run(claim, record)
        return record

    async def _logged(self, record: Record, deadline: Deadline) -> Claim | None:
        """Log the operation, PostgreSQL's part of it in the same transaction."""
        batch = self.runner.postgresql(record)
        work = None if batch is None else partial(self.runner.work, batch)
        conflicts, unknown = 0, False
        while True:
            try:
                await self.runner.probe("before the operation is logged")
                try:
                    claim = await self.log.create(record, deadline, work)
                finally:
                    await self.runner.tell_of_logged(record)
                await self.runner.probe("after the operation is logged")
                return claim
            except Problem as problem:
                if isinstance(problem, ConnectionLost | DeadlineExceeded):
                    unknown = True
                elif isinstance(problem, Conflict) and problem.retryable:
                    conflicts += 1
                    if conflicts > CONFLICTS:
                        raise
                elif isinstance(problem, QueryRejected | Refused) and batch and batch.under_way:
                    _refuse(record, batch.current, problem)
                    work = batch = None
                elif not (unknown and isinstance(problem, Unavailable)):
                    raise
                if self._clock() >= deadline.at - _POLL_SECONDS[0]:
                    raise OutcomeUnknown(
                        "the log did not say in time whether the operation was begun; "
                        "ask again with the same key",
                        members={"id": record.id, "idempotencyKey": record.key},
                    ) from problem
                await asyncio.sleep(_POLL_SECONDS[0])

    # -- running -----------------------------------------------------------------------------

    def _run(self, claim: Claim, record: Record | None) -> asyncio.Task[None]:
        task = self._leases.start(claim, self._work(claim, record))
        if record is not None:
            self._records[claim.id] = record
        task.add_done_callback(lambda _: self._records.pop(claim.id, None))
        return task

    def _resume(self, claim: Claim) -> None:
        LOG.info("taking over %s, attempt %s", claim.id, claim.attempt)
        self._resumed.add(claim.id)
        self._run(claim, None).add_done_callback(lambda _: self._resumed.discard(claim.id))

    async def _work(self, claim: Claim, record: Record | None) -> None:
        while True:
            try:
                known = record or await self.log.load(claim)
                self._records[claim.id] = known
                await self.runner.run(claim, known)
                self._tell_ended(known.plan.mode, known.state)
                return
            except LeaseLost:
                LOG.info("%s is another's now", claim.id)
                return
            except Parked as parked:
                await self._park(claim, parked.seconds)
                return
            except Problem as problem:
                # The log itself. What it says is read again before anything else is done.
                LOG.warning("%s: the log: %s", claim.id, problem.detail)
                record = None
                await asyncio.sleep(_POLL_SECONDS[1])
            except Exception:
                LOG.exception("%s failed; it is tried again later", claim.id)
                await self._park(claim, self.runner.patience.longest_seconds)
                return

    async def _park(self, claim: Claim, seconds: float) -> None:
        try:
            await self.log.release([claim], seconds)
        except Problem as problem:
            LOG.warning("%s is left to its lease: %s", claim.id, problem.detail)
            return
        self._wake_at = min(self._wake_at, self._clock() + seconds)

    # -- waiting -----------------------------------------------------------------------------

    async def _ended(self, record: Record, deadline: Deadline) -> Record:
        """The record when it is final, or as it is just before the deadline."""
        pause = _POLL_SECONDS[0]
        while not record.state.final:
            seconds = deadline.at - self._clock() - _POLL_SECONDS[0] / 2
            if seconds <= 0:
                break
            task = self._leases.task(record.id)
            if task is not None:
                record = self._records.get(record.id, record)
                await asyncio.wait([task], timeout=seconds)
                if record.state.final or not task.done():
                    continue
            await asyncio.sleep(min(pause, seconds))
            pause = min(pause * 2, _POLL_SECONDS[1])
            record = await self._newest(record, deadline)
        return record

    async def _newest(self, record: Record, deadline: Deadline) -> Record:
        try:
            return await self.log.find(record.id, deadline, by_id=True) or record
        except (Unavailable, DeadlineExceeded) as problem:
            LOG.info("%s: the log: %s", record.id, problem.detail)
            return record


def _refuse(record: Record, position: int, problem: Problem) -> None:
    """PostgreSQL's part was refused and rolled back: nothing of the operation was done."""
    record.state = State.FAILED
    for at in range(len(record.plan.steps)):
        record.steps[Kind.DO, at] = Entry(state=StepState.SKIPPED)
    whole = msgspec.Raw(msgspec.json.encode(problem.document()))
    record.steps[Kind.DO, position] = Entry(state=StepState.FAILED, problem=whole)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
