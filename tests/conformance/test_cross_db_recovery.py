"""Taking over, giving up, and coming back: leases, fences, engines that are away for a while."""

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from conformance.cross_db_lab import PATH, ask, environment, query, sql
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, Start, eventually, nobody_there
from plan2_contract import schema
from plan2_contract.engines import Engine
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import ConnectionLost, Problem, QueryRejected
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query
from plan2_sidecar.sagas import plan as plans
from plan2_sidecar.sagas.attempt import Patience
from plan2_sidecar.sagas.effects import Batch, Effects, Results
from plan2_sidecar.sagas.log import Claim, LeaseLost, Outcome
from plan2_sidecar.sagas.plan import Action
from plan2_sidecar.sagas.record import Kind, Record, State, StepState
from plan2_sidecar.sagas.request import CrossDbRequest
from plan2_sidecar.sagas.service import Sagas

LEASE_MS = 20_000
QUICK = Patience(tries=4, saga_tries=3, first_seconds=0.01, longest_seconds=0.05)


@dataclass(frozen=True)
class Part:
    """A sidecar's part in operations, without the sidecar around it."""

    sagas: Sagas
    fleet: Fleet
    database: Database

    async def sql(self, text: str, *params: Any) -> Any:
        found = await self.fleet.member(Engine.POSTGRESQL).execute(
            Query(query=text, params=list(params)), soon()
        )
        return msgspec.json.decode(msgspec.json.encode(found.data))


Make = Callable[[], Part]


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.fixture
async def make(
    postgresql: EngineServer, dragonflydb: EngineServer, mongodb: EngineServer
) -> AsyncIterator[Make]:
    made: list[Part] = []

    def one() -> Part:
        variables = environment(a=postgresql, b=dragonflydb, c=mongodb)
        fleet = Fleet(ConnectionEnvironment(variables))
        fleet.refresh()
        database = Database(fleet, migrates=True)
        sagas = Sagas(fleet, database, lease_ms=LEASE_MS, patience=QUICK)
        made.append(Part(sagas, fleet, database))
        return made[-1]

    yield one
    for part in made:
        await part.sagas.close()
        await part.fleet.close()


@pytest.fixture
async def part(make: Make) -> Part:
    made = make()

    async def nothing(_: Any) -> None:
        return None

    await made.database.run(nothing, soon(), needs=schema.CROSS_DB)
    await made.sql("DROP TABLE IF EXISTS trace")
    await made.sql("CREATE TABLE trace (key text, what text)")
    return made


def trace(key: str, what: str = "do") -> dict[str, Any]:
    return {"query": "INSERT INTO trace VALUES ($1, $2)", "params": [key, what]}


def step(identity: str, key: str, **members: Any) -> dict[str, Any]:
    return {"id": identity, "targetDatabase": "postgresql", **trace(key), **members}


def redis(identity: str, *command: str, **members: Any) -> dict[str, Any]:
    words = list(command)
    return {"id": identity, "targetDatabase": "dragonflydb", "query": words, **members}


def planned(*operations: dict[str, Any], mode: str = "saga") -> plans.Plan:
    asked = {"mode": mode, "operations": list(operations)}
    return plans.make(msgspec.convert(asked, CrossDbRequest))


async def left_behind(part: Part, plan: plans.Plan) -> tuple[Record, Claim]:
    """An operation in the log whose sidecar died right after it was begun."""
    record = Record(str(uuid.uuid4()), str(uuid.uuid4()), "hash", plan)
    claim = await part.sagas.log.create(record, soon())
    assert claim is not None
    await expire(part)
    return record, claim


async def expire(part: Part) -> None:
    """Let every lease end now."""
    await part.sql(
        "UPDATE plan2.operation SET lease_until = now() - interval '1 second' "
        "WHERE finished_at IS NULL"
    )


async def count(part: Part, key: str, what: str = "do") -> int:
    text = "SELECT count(*) AS n FROM trace WHERE key = $1 AND what = $2"
    return int((await part.sql(text, key, what))[0]["n"])


async def ended(part: Part, identity: str) -> Record:
    found: list[Record] = []

    async def final() -> bool:
        record = await part.sagas.find(identity, soon())
        found[:] = [record] if record is not None else []
        return record is not None and record.state.final

    await eventually(final, seconds=30)
    return found[0]


async def test_of_several_that_take_over_one_gets_each_operation(part: Part, make: Make) -> None:
    records = []
    for number in range(20):
        record = Record(
            str(uuid.uuid4()), f"race-{uuid.uuid4()}", "h", planned(step("a", f"race-{number}"))
        )
        assert await part.sagas.log.create(record, soon())
        records.append(record)
    await expire(part)
    others = [make() for _ in range(3)]

    claimed = await asyncio.gather(
        *(other.sagas.log.claim_due(15, other.fleet.members) for other in others)
    )
    taken = [claim.id for claims in claimed for claim in claims]
    assert len(taken) == len(set(taken))
    assert {record.id for record in records} <= set(taken)
    for other, claims in zip(others, claimed, strict=True):
        await other.sagas.log.release(claims)

    async def all_ended() -> bool:
        await asyncio.gather(*(other.sagas.look() for other in others))
        found = [await part.sagas.find(record.id, soon()) for record in records]
        return all(record is not None and record.state.final for record in found)

    await eventually(all_ended, seconds=60, every=0.2)
    for number in range(len(records)):
        assert await count(part, f"race-{number}") == 1


async def test_who_lost_the_lease_writes_nothing_more(part: Part, make: Make) -> None:
    record, old = await left_behind(part, planned(step("a", "fence")))
    log, place = part.sagas.log, (Kind.DO, 0)
    await log.intent(old, record, [place])
    other = make()
    claims = await other.sagas.log.claim_due(10, other.fleet.members)
    new = next(claim for claim in claims if claim.id == record.id)

    statement = Query(**trace("fence"))
    with pytest.raises(LeaseLost):
        await log.intent(old, record, [place])
    with pytest.raises(LeaseLost):
        await log.outcome(old, record, [Outcome(place, StepState.FAILED)], State.FAILED)
    with pytest.raises(LeaseLost):
        await log.apply(old, record, place, statement, soon(), State.COMMITTED)
    assert await log.renew([old]) == set()
    await log.release([old])

    assert await count(part, "fence") == 0
    assert await other.sagas.log.renew([new]) == {record.id}
    await other.sagas.log.apply(new, record, place, statement, soon(), State.COMMITTED)
    assert await count(part, "fence") == 1


async def test_nobody_takes_over_while_a_postgresql_step_is_under_way(
    part: Part, make: Make
) -> None:
    slow = {"query": "INSERT INTO trace SELECT 'slow', 'do' FROM pg_sleep(3)", "params": []}
    record, claim = await left_behind(part, planned(step("a", "slow", **slow)))

    async def under_way() -> bool:
        text = (
            "SELECT 1 FROM pg_stat_activity WHERE state = 'active' "
            "AND query LIKE '%pg_sleep(3)%' AND pid <> pg_backend_pid()"
        )
        return bool(await part.sql(text))

    place = (Kind.DO, 0)
    await part.sagas.log.intent(claim, record, [place])
    statement = Query(**slow)
    work = asyncio.create_task(
        part.sagas.log.apply(claim, record, place, statement, soon(), State.COMMITTED)
    )
    await eventually(under_way, seconds=20)

    taken = await make().sagas.log.claim_due(10, part.fleet.members)

    assert record.id not in {each.id for each in taken}
    await work
    assert (await ended(part, record.id)).state is State.COMMITTED


async def test_a_sidecar_leaves_alone_what_it_has_no_engine_for(part: Part) -> None:
    record, _ = await left_behind(part, planned(redis("a", "SET", "k", "v")))

    taken = await part.sagas.log.claim_due(100, [Engine.POSTGRESQL, Engine.MONGODB])

    assert record.id not in {each.id for each in taken}


class Unreliable(Effects):
    """Engines whose first answers are lost on the way, after or instead of the work."""

    def __init__(self, fleet: Fleet, *answers: Problem | None) -> None:
        super().__init__(fleet)
        self._answers = list(answers)

    async def apply(
        self, action: Action, mark: str, op_id: str, batch: Batch, deadline: Deadline
    ) -> Results:
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, QueryRejected):
            raise answer
        results = await super().apply(action, mark, op_id, batch, deadline)
        if answer is not None:
            raise answer
        return results


async def test_an_answer_that_was_lost_is_looked_up(part: Part) -> None:
    forget = {"collection": "trace", "filter": {}, "delete": "many"}
    await part.fleet.member(Engine.MONGODB).execute(Query(query=forget), soon())
    lost = [ConnectionLost("lost"), ConnectionLost("lost")]
    part.sagas.runner.effects = Unreliable(part.fleet, *lost)
    form = {"collection": "trace", "documents": [{"a": 1}]}
    plan = planned({"id": "a", "targetDatabase": "mongodb", "query": form})

    record = await part.sagas.submit(plan, None, "h", soon())

    assert record.state is State.COMMITTED
    assert record.entry((Kind.DO, 0)).tries == 3
    find = {"collection": "trace", "filter": {}}
    found = await part.fleet.member(Engine.MONGODB).execute(Query(query=find), soon())
    assert found.row_count == 1


async def test_what_may_have_been_applied_is_compensated_too(part: Part) -> None:
    refused = QueryRejected("no room")
    part.sagas.runner.effects = Unreliable(part.fleet, ConnectionLost("lost"), refused)
    undo = {**trace("maybe", "undo"), "targetDatabase": "postgresql"}
    plan = planned(redis("a", "SET", "maybe", "x", compensate=undo))

    record = await part.sagas.submit(plan, None, "h", soon())

    assert record.state is State.COMPENSATED
    assert await count(part, "maybe", "undo") == 1


async def test_what_may_have_been_applied_and_has_no_compensation_needs_a_human(
    part: Part,
) -> None:
    refused = QueryRejected("no room")
    part.sagas.runner.effects = Unreliable(part.fleet, ConnectionLost("lost"), refused)

    record = await part.sagas.submit(planned(redis("a", "SET", "maybe", "x")), None, "h", soon())

    assert record.state is State.DEAD


async def test_operations_that_ended_long_ago_are_dropped(part: Part) -> None:
    records = [
        await part.sagas.submit(planned(step("a", "old")), None, "h", soon()) for _ in range(2)
    ]
    await part.sql(
        "UPDATE plan2.operation SET finished_at = now() - interval '8 days' WHERE id = $1",
        records[0].id,
    )

    while await part.sagas.log.purge():
        pass

    assert await part.sagas.find(records[0].id, soon()) is None
    assert await part.sagas.find(records[1].id, soon()) is not None


async def test_an_engine_that_is_away_delays_an_outbox_and_undoes_a_saga(
    postgresql: EngineServer, dragonflydb: EngineServer, start_sidecar: Start, connect: Connect
) -> None:
    client = connect(start_sidecar(**environment(a=postgresql, b=dragonflydb)))
    await query(client, "postgresql", "DROP TABLE IF EXISTS trace")
    await query(client, "postgresql", "CREATE TABLE trace (key text, what text)")
    undo = {"query": "INSERT INTO trace VALUES ('away', 'undo')", "params": []}
    dragonflydb.stop()
    try:
        delayed = await ask(
            client, timeoutMs=500, operations=[step("a", "delayed"), redis("b", "SET", "b", "1")]
        )
        undone = await ask(
            client,
            mode="saga",
            timeoutMs=30_000,
            operations=[step("a", "away", compensate=undo), redis("b", "SET", "b", "2")],
        )
    finally:
        await asyncio.to_thread(dragonflydb.start)

    assert (delayed.status, delayed.body["state"]) == (202, "running"), delayed.body
    assert (undone.status, undone.body["state"]) == (424, "compensated"), undone.body
    assert undone.body["operations"][1]["problem"]["status"] == 503

    async def delivered() -> bool:
        found = await client.get(delayed.headers["Location"])
        return bool(found.body["state"] == "committed")

    await eventually(delivered, seconds=60, every=0.2)
    assert await query(client, "dragonflydb", ["GET", "b"]) == "1"


async def test_a_clean_stop_lets_another_go_on_long_before_the_lease_ends(
    postgresql: EngineServer, start_sidecar: Start, connect: Connect
) -> None:
    lease = {"PLAN2_SAGA_LEASE_MS": "120000"}
    first = start_sidecar(**(environment(a=postgresql) | lease))
    second = connect(start_sidecar(**(environment(a=postgresql) | lease)))
    await query(second, "postgresql", "DROP TABLE IF EXISTS trace")
    await query(second, "postgresql", "CREATE TABLE trace (key text, what text)")
    begun = await ask(
        connect(first),
        mode="saga",
        timeoutMs=300,
        operations=[
            sql("sleep", "SELECT pg_sleep(3)::text"),
            step("a", "handed"),
        ],
    )
    assert begun.status == 202, begun.body

    started = time.monotonic()
    assert first.stop(signal.SIGTERM) == 0

    async def committed() -> bool:
        found = await second.get(begun.headers["Location"])
        return bool(found.body["state"] == "committed")

    await eventually(committed, seconds=60, every=0.2)
    assert time.monotonic() - started < 45
    rows = await query(second, "postgresql", "SELECT what FROM trace WHERE key = 'handed'")
    assert len(rows) == 1


async def test_without_postgresql_only_reads_are_served(
    dragonflydb: EngineServer, start_sidecar: Start, connect: Connect
) -> None:
    client = connect(start_sidecar(**environment(b=dragonflydb)))
    away = connect(start_sidecar(**nobody_there()))

    read = await ask(client, operations=[redis("a", "GET", "k")])
    write = await ask(client, operations=[redis("a", "SET", "k", "v")])
    found = await client.get(f"{PATH}/some")
    down = await ask(away, operations=[redis("a", "SET", "k", "v")])

    assert read.status == 200
    assert (write.status, write.body["code"]) == (422, "engine_not_configured")
    assert (found.status, found.body["code"]) == (422, "engine_not_configured")
    assert (down.status, down.body["code"]) == (503, "engine_unavailable")
