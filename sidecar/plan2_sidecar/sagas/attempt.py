"""One step of an operation: tried until it is known what became of it, or patience ends.

Before each try its intent is logged, after it its outcome; what comes between may be cut off at
any point. `probe` is awaited around every write to the log and every call of an engine.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineNotConfigured,
    EngineUnavailable,
    Internal,
    Problem,
    QueryRejected,
    Refused,
)
from plan2_sidecar.query import Query
from plan2_sidecar.sagas import references
from plan2_sidecar.sagas.effects import Batch, Effects, Results, Sealed
from plan2_sidecar.sagas.log import MOST_ROWS, AlreadyCommitted, Claim, LeaseLost, Log, Outcome
from plan2_sidecar.sagas.plan import Action
from plan2_sidecar.sagas.record import Entry, Kind, Place, Record, State, StepState
from plan2_sidecar.sagas.repeats import Repeat
from plan2_sidecar.sagas.request import Mode

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Probe = Callable[[str], Awaitable[None]]
Told = Callable[[Engine, Query], Awaitable[None]]

# Whose 5xx may come after the work was done.
_DOUBTFUL: Final = frozenset({Engine.WEAVIATE, Engine.CLICKHOUSE})
_CERTAIN: Final = frozenset({Repeat.MARKED, Repeat.READ})


async def nobody(point: str) -> None:
    """The probe that does nothing."""


async def untold(engine: Engine, query: Query) -> None:
    """For operations whose writes nobody has to know of."""


@dataclass(frozen=True)
class Patience:
    """How long a step is tried. Waits double from `first_seconds` to `longest_seconds`.

    `tries` is for a step whose engine is away, `saga_tries` for one that can be given up since
    the others can be undone or are not done. A wait longer than `held_seconds` gives the operation
    out of hand, for any sidecar to go on with when it is over.
    """

    tries: int = 60
    saga_tries: int = 5
    first_seconds: float = 0.2
    longest_seconds: float = 60.0
    held_seconds: float = 2.0
    step_seconds: float = 30.0

    def wait(self, tries: int) -> float:
        """Seconds after so many tries, a quarter more or less."""
        seconds = min(self.first_seconds * 2.0 ** min(tries - 1, 30), self.longest_seconds)
        return seconds * random.uniform(0.75, 1.25)


class Parked(Exception):
    """Nothing can be done for a while; `seconds` says how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass
class Attempt:
    """Steps that are done together, and the operation's state that follows from them."""

    claim: Claim
    record: Record
    places: list[Place]
    batch: Batch
    then: State | None
    failing: State | None

    @property
    def entry(self) -> Entry:
        """What the log says of the first, which stands for all."""
        return self.record.entry(self.places[0])

    @property
    def action(self) -> Action:
        """What the first sends."""
        return self.record.action(self.places[0])

    @property
    def mark(self) -> str:
        """What the engine's marker is called."""
        atomic = self.record.plan.mode is Mode.ATOMIC
        return self.record.id if atomic else self.record.mark(self.places[0])

    def __str__(self) -> str:
        kind, position = self.places[0]
        return f"{kind} {self.record.plan.steps[position].id}"


@dataclass
class Attempts:
    """What runs steps; one object for all of a sidecar's.

    `told` is awaited after every write that was done, or may have been: kept answers end then.
    """

    log: Log
    effects: Effects
    patience: Patience = Patience()
    probe: Probe = nobody
    told: Told = untold

    async def _step(
        self,
        claim: Claim,
        record: Record,
        place: Place,
        then: State | None,
        failing: State | None = None,
    ) -> bool:
        """Whether it was applied; both is logged, with the operation's state that follows."""
        batch = self._batch(record, place[0], [place[1]])
        try:
            return await self._attempt(Attempt(claim, record, [place], batch, then, failing))
        finally:
            await self.tell(record.action(place))

    async def tell(self, *actions: Action) -> None:
        """That these may have changed what their engines hold."""
        for action in actions:
            if action.writes:
                await self.told(action.engine, Query(query=action.query))

    async def _attempt(self, attempt: Attempt) -> bool:
        """Try until it is known what became of it, or patience ends."""
        while True:
            try:
                await self._point(
                    f"intent of {attempt}",
                    lambda: self.log.intent(attempt.claim, attempt.record, attempt.places),
                )
                problem = await self._try(attempt)
                if problem is None:
                    return True
                known = await self._judged(attempt, problem)
            except AlreadyCommitted:
                await self._take_note(attempt)
                return True
            if known is not None:
                return known

    async def _try(self, attempt: Attempt) -> Problem | None:
        """One try: None when it was applied and logged. Raises LeaseLost, AlreadyCommitted."""
        record, action = attempt.record, attempt.action
        deadline = Deadline.after(self.patience.step_seconds)
        try:
            if action.engine is Engine.POSTGRESQL:
                query = attempt.batch.only()
                await self._point(
                    f"step {attempt}",
                    lambda: self.log.apply(
                        attempt.claim, record, attempt.places[0], query, deadline, attempt.then
                    ),
                )
                return None
            own = record.op_id(attempt.places[0][1])
            results = await self._point(
                f"step {attempt}",
                lambda: self.effects.apply(action, attempt.mark, own, attempt.batch, deadline),
            )
        except Problem as problem:
            return problem
        except (LeaseLost, AlreadyCommitted):
            raise
        except Exception as error:
            LOG.exception("%s of %s failed in a way nobody thought of", attempt, record.id)
            return Internal(f"{type(error).__name__}; the sidecar's log says more")
        await self._committed(attempt, results)
        return None

    async def _judged(self, attempt: Attempt, problem: Problem) -> bool | None:
        """Log what the problem means: whether the step was applied, None to try again."""
        entry, action = attempt.entry, attempt.action
        unknown = _unknown(problem, action)
        unsure = entry.unsure or unknown
        certain = action.repeat in _CERTAIN
        # Nothing speaks against giving up what can still be undone, or was not done at all.
        undoable = attempt.failing is not None
        few = undoable and (certain or not unsure)
        tries = self.patience.saga_tries if few else self.patience.tries
        refused = _is_refusal(problem) and not unknown
        if not refused and entry.tries < tries:
            state = StepState.UNKNOWN if unknown else StepState.WAITING
            again = [
                Outcome(place, state, problem=_document(problem), unsure=entry.unsure)
                for place in attempt.places
            ]
            await self._note(attempt.claim, attempt.record, again, None)
            await self._pause(entry.tries)
            return None
        if unsure and certain:
            sealed = await self._seal(attempt)
            if sealed is not None and sealed.applied:
                await self._committed(attempt, sealed.results)
                return True
            unsure = sealed is None
        await self._failed(attempt, problem, unsure)
        return False

    async def _seal(self, attempt: Attempt) -> Sealed | None:
        """What became of it for good; None where the engine keeps silent to the end."""
        if attempt.action.engine is Engine.POSTGRESQL or attempt.action.repeat is Repeat.READ:
            # The log itself is the marker: it takes no failure of a step that was committed.
            return Sealed(applied=False)
        deadline = Deadline.after(self.patience.step_seconds)
        try:
            return await self._point(
                f"seal of {attempt}",
                lambda: self.effects.seal(attempt.action, attempt.mark, deadline),
            )
        except Problem as problem:
            LOG.info("%s of %s stays unknown: %s", attempt, attempt.record.id, problem.detail)
            if attempt.entry.tries >= self.patience.tries:
                return None
            raise Parked(self.patience.wait(attempt.entry.tries)) from problem

    async def _failed(self, attempt: Attempt, problem: Problem, unsure: bool) -> None:
        # A batch of objects is no transaction: some may be there.
        unsure = unsure or "inserted" in problem.members
        outcomes = [
            Outcome(place, StepState.FAILED, problem=_document(problem), unsure=unsure)
            if place[1] == attempt.batch.current
            else Outcome(place, StepState.SKIPPED, unsure=unsure)
            for place in attempt.places
        ]
        dead = unsure and attempt.failing is State.FAILED
        then = State.DEAD if dead else attempt.failing
        await self._note(attempt.claim, attempt.record, outcomes, then)

    async def _committed(self, attempt: Attempt, results: Results) -> None:
        outcomes = [
            Outcome(place, StepState.COMMITTED, results.get(place[1])) for place in attempt.places
        ]
        await self._note(attempt.claim, attempt.record, outcomes, attempt.then)

    async def _take_note(self, attempt: Attempt) -> None:
        """A try that was thought lost had committed: bring the record up to the log."""
        known = await self.log.load(attempt.claim)
        attempt.record.state, attempt.record.steps = known.state, known.steps
        if attempt.then is not None and known.state is not attempt.then:
            await self._note(attempt.claim, attempt.record, [], attempt.then)

    async def _pause(self, tries: int) -> None:
        seconds = self.patience.wait(tries)
        if seconds > self.patience.held_seconds:
            raise Parked(seconds)
        await asyncio.sleep(seconds)

    async def _note(
        self, claim: Claim, record: Record, outcomes: list[Outcome], then: State | None
    ) -> None:
        said = [f"{at.place[0]} {record.plan.steps[at.place[1]].id}" for at in outcomes]
        await self._point(
            f"outcome {', '.join([*said, *([then] if then else [])])}",
            lambda: self.log.outcome(claim, record, outcomes, then),
        )

    async def _point(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        await self.probe(f"before {name}")
        done = await work()
        await self.probe(f"after {name}")
        return done

    def _batch(self, record: Record, kind: Kind, positions: list[int]) -> Batch:
        def query_of(position: int, results: Results | None) -> Query:
            action, own = record.action((kind, position)), record.op_id(position)

            def answer_of(name: str) -> Any:
                at = next(at for at, step in enumerate(record.plan.steps) if step.id == name)
                fresh = None if results is None else results.get(at)
                return record.answer(at) if fresh is None else msgspec.json.decode(fresh)

            look = None if results is None else answer_of
            return Query(
                query=references.resolve(action.query, own, look, f"{action.place}.query"),
                params=references.resolve(action.params, own, look, f"{action.place}.params"),
                max_rows=MOST_ROWS,
            )

        return Batch(positions, query_of)


def _unknown(problem: Problem, action: Action) -> bool:
    """Whether the statement may have been run all the same."""
    if action.repeat is Repeat.READ:
        return False
    if isinstance(problem, ConnectionLost | DeadlineExceeded | Internal):
        return True
    said = isinstance(problem, EngineUnavailable) and problem.engine_code is not None
    return said and action.engine in _DOUBTFUL


def _is_refusal(problem: Problem) -> bool:
    """Whether another try would meet the same answer."""
    if isinstance(problem, EngineNotConfigured):
        # Another sidecar may have it, or this one the next time it looks.
        return False
    return isinstance(problem, QueryRejected | Refused) and not problem.retryable


def _document(problem: Problem) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(problem.document()))
