"""Running an operation over a log and engines made of memory: tries, doubts, giving up."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    BreakerOpen,
    ConnectionLost,
    DeadlineExceeded,
    EngineNotConfigured,
    EngineUnavailable,
    QueryRejected,
)
from plan2_sidecar.sagas import plan as plans
from plan2_sidecar.sagas.attempt import Parked, Patience
from plan2_sidecar.sagas.effects import Batch, Results, Sealed
from plan2_sidecar.sagas.log import Claim, Outcome, note
from plan2_sidecar.sagas.plan import Action
from plan2_sidecar.sagas.record import Kind, Place, Record, State, StepState
from plan2_sidecar.sagas.repeats import Repeat
from plan2_sidecar.sagas.request import CrossDbRequest
from plan2_sidecar.sagas.run import Runner, needs_human

QUICK = Patience(tries=4, saga_tries=2, first_seconds=0.0, longest_seconds=0.0)
ANSWER = msgspec.Raw(b'{"data":[{"id":7}],"rowCount":1}')


class Memory:
    """The log as it would be, without a database; `written` is the order of its writes."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def intent(self, claim: Claim, record: Record, places: list[Place]) -> None:
        for place in places:
            entry = record.entry(place)
            entry.unsure = entry.maybe
            entry.state, entry.tries = StepState.RUNNING, entry.tries + 1
            self.written.append(f"intent {place[0]} {place[1]}")

    async def outcome(
        self, claim: Claim, record: Record, outcomes: list[Outcome], then: State | None
    ) -> None:
        note(record, outcomes, then)
        self.written += [f"{each.state} {each.place[0]} {each.place[1]}" for each in outcomes]
        if then is not None:
            self.written.append(then)


@dataclass
class Engines:
    """Engines that answer what they are told to, by what an action is called."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    seals: list[Any] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)

    async def apply(
        self, action: Action, mark: str, op_id: str, batch: Batch, deadline: Deadline
    ) -> Results:
        self.sent.append(batch.only().query)
        told = self.answers.get(action.place, [])
        answer = told.pop(0) if told else None
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(batch.positions, ANSWER)

    async def seal(self, action: Action, mark: str, deadline: Deadline) -> Sealed | None:
        answer = self.seals.pop(0)
        if isinstance(answer, Exception):
            raise answer
        sealed: Sealed | None = answer
        return sealed


@dataclass(frozen=True)
class Lab:
    """A runner and what it runs on."""

    log: Memory
    engines: Engines
    runner: Runner

    async def run(self, record: Record) -> Record:
        await self.runner.run(Claim(record.id, 1, 0.0), record)
        return record


@pytest.fixture
def lab() -> Lab:
    log, engines = Memory(), Engines()
    return Lab(log, engines, Runner(log, engines, QUICK))  # type: ignore[arg-type]  # stand-ins


def redis(identity: str, **members: Any) -> dict[str, Any]:
    query = ["SET", identity, "x"]
    return {"id": identity, "targetDatabase": "redis", "query": query, **members}


def aql(identity: str, **members: Any) -> dict[str, Any]:
    text = f"INSERT {{_key: '{identity}'}} INTO t"
    return {"id": identity, "targetDatabase": "arangodb", "query": text, **members}


def record(*operations: dict[str, Any], mode: str = "saga") -> Record:
    asked = msgspec.convert({"mode": mode, "operations": list(operations)}, CrossDbRequest)
    return Record(str(uuid.uuid4()), "key", "hash", plans.make(asked))


def undo(identity: str) -> dict[str, Any]:
    return {"query": ["DEL", identity]}


def states(found: Record, kind: Kind = Kind.DO) -> list[StepState]:
    return [found.entry((kind, at)).state for at in range(len(found.plan.steps))]


async def test_each_intent_is_written_before_its_step_and_each_outcome_after(lab: Lab) -> None:
    points: list[str] = []

    async def probe(point: str) -> None:
        points.append(point)

    lab.runner.probe = probe
    found = await lab.run(record(redis("a"), redis("b")))

    assert found.state is State.COMMITTED
    assert lab.log.written == [
        "intent do 0",
        "committed do 0",
        "intent do 1",
        "committed do 1",
        "committed",
    ]
    assert points[:6] == [
        "before intent of do a",
        "after intent of do a",
        "before step do a",
        "after step do a",
        "before outcome do a",
        "after outcome do a",
    ]


async def test_results_travel_to_later_steps(lab: Lab) -> None:
    second = redis("b") | {"query": ["SET", {"$ref": "a.data.0.id"}, {"$opId": True}]}
    whole = record(redis("a"), second)

    await lab.run(whole)

    assert lab.engines.sent[1] == ["SET", 7, whole.op_id(1)]


async def test_a_step_that_was_committed_before_is_not_sent_again(lab: Lab) -> None:
    whole = record(redis("a"), redis("b"))
    whole.entry((Kind.DO, 0)).state = StepState.COMMITTED

    await lab.run(whole)

    assert lab.engines.sent == [["SET", "b", "x"]]
    assert whole.state is State.COMMITTED


@pytest.mark.parametrize(
    "away",
    [EngineUnavailable("away"), BreakerOpen("open"), EngineNotConfigured("gone")],
    ids=["unavailable", "breaker", "not-configured"],
)
async def test_an_engine_that_is_away_is_tried_again(lab: Lab, away: Exception) -> None:
    lab.engines.answers["operations[0]"] = [away]

    found = await lab.run(record(redis("a")))

    assert (found.state, found.entry((Kind.DO, 0)).tries) == (State.COMMITTED, 2)
    assert not found.entry((Kind.DO, 0)).unsure


async def test_a_saga_gives_up_early_what_was_never_run(lab: Lab) -> None:
    lab.engines.answers["operations[1]"] = [EngineUnavailable("away")] * 9

    found = await lab.run(record(redis("a", compensate=undo("a")), redis("b")))

    assert found.state is State.COMPENSATED
    assert found.entry((Kind.DO, 1)).tries == QUICK.saga_tries
    assert states(found, Kind.UNDO)[0] is StepState.COMMITTED
    assert needs_human(found) == []


async def test_compensations_run_in_reverse(lab: Lab) -> None:
    lab.engines.answers["operations[2]"] = [QueryRejected("no")]
    steps = [redis(name, compensate=undo(name)) for name in "ab"]

    found = await lab.run(record(*steps, redis("c")))

    assert found.state is State.COMPENSATED
    assert lab.engines.sent[3:] == [["DEL", "b"], ["DEL", "a"]]


async def test_a_refused_compensation_and_a_missing_one_need_a_human(lab: Lab) -> None:
    lab.engines.answers["operations[2]"] = [QueryRejected("no")]
    lab.engines.answers["operations[0].compensate"] = [QueryRejected("no")]
    steps = [redis("a", compensate=undo("a")), redis("b"), redis("c")]

    found = await lab.run(record(*steps))

    assert found.state is State.DEAD
    assert needs_human(found) == [0, 1]


async def test_the_first_step_that_fails_leaves_nothing(lab: Lab) -> None:
    lab.engines.answers["operations[0]"] = [QueryRejected("no")]

    found = await lab.run(record(redis("a"), redis("b")))

    assert found.state is State.FAILED
    assert lab.engines.sent == [["SET", "a", "x"]]


@pytest.mark.parametrize(
    "lost", [ConnectionLost("lost"), DeadlineExceeded("late"), ValueError("a bug")]
)
async def test_a_step_in_doubt_that_is_then_refused_is_compensated_too(
    lab: Lab, lost: Exception
) -> None:
    lab.engines.answers["operations[0]"] = [lost, QueryRejected("no")]

    found = await lab.run(record(redis("a", compensate=undo("a"))))

    assert found.state is State.COMPENSATED
    assert lab.engines.sent[-1] == ["DEL", "a"]


async def test_a_step_in_doubt_is_asked_for_where_the_engine_can_tell(lab: Lab) -> None:
    lab.engines.answers["operations[0]"] = [ConnectionLost("lost")] * 9
    lab.engines.seals = [Sealed(applied=True, results={0: ANSWER})]

    found = await lab.run(record(aql("a")))

    assert found.state is State.COMMITTED
    assert found.answer(0)["data"] == [{"id": 7}]


async def test_a_step_that_provably_never_was_needs_no_compensation(lab: Lab) -> None:
    lab.engines.answers["operations[0]"] = [ConnectionLost("lost")] * 9
    lab.engines.seals = [Sealed(applied=False)]
    undone = {"query": "REMOVE 'a' IN t"}

    found = await lab.run(record(aql("a", compensate=undone)))

    assert found.state is State.FAILED
    assert (Kind.UNDO, 0) not in found.steps


async def test_while_an_engine_keeps_silent_the_operation_waits_and_at_last_says_so(
    lab: Lab,
) -> None:
    whole = record(aql("a"), mode="atomic")
    lab.engines.answers["operations[0]"] = [ConnectionLost("lost")] * 9
    lab.engines.seals = [ConnectionLost("silent")] * 9

    parked = 0
    while not whole.state.final:
        try:
            await lab.run(whole)
        except Parked:
            parked += 1

    assert parked == QUICK.tries - QUICK.saga_tries
    assert whole.state is State.DEAD
    assert whole.entry((Kind.DO, 0)).unsure


async def test_a_dead_letter_takes_along_only_what_needs_it(lab: Lab) -> None:
    lab.engines.answers["operations[0]"] = [QueryRejected("no")]
    steps = [redis("a"), redis("b", dependsOn=["a"]), redis("c", dependsOn=["b"]), redis("d")]

    found = await lab.run(record(*steps, mode="outbox"))

    assert found.state is State.DEAD
    assert states(found) == [
        StepState.FAILED,
        StepState.SKIPPED,
        StepState.SKIPPED,
        StepState.COMMITTED,
    ]
    assert needs_human(found) == [0, 1, 2]


async def test_a_batch_of_objects_that_was_partly_stored_is_in_doubt(lab: Lab) -> None:
    lab.engines.answers["operations[0]"] = [QueryRejected("1 of 2", members={"inserted": ["x"]})]
    objects = {"collection": "T", "objects": [{"a": 1}, {"a": 2}]}

    found = await lab.run(record({"id": "a", "targetDatabase": "weaviate", "query": objects}))

    assert found.state is State.DEAD


async def test_a_read_is_never_in_doubt(lab: Lab) -> None:
    whole = record(redis("a") | {"query": ["GET", "a"]})
    assert whole.plan.steps[0].do.repeat is Repeat.READ
    lab.engines.answers["operations[0]"] = [ConnectionLost("lost")] * 9

    found = await lab.run(whole)

    assert found.state is State.FAILED
    assert not found.entry((Kind.DO, 0)).unsure


def test_waits_grow_to_their_longest() -> None:
    patience = Patience()
    waits: Callable[[int], float] = patience.wait

    assert 0.15 <= waits(1) <= 0.25
    assert 2.4 <= waits(5) <= 4.0
    assert 45 <= waits(60) <= 75
