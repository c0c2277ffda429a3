"""The fleet: engines come and go with the document, and calls under way notice nothing."""

import asyncio

import pytest

from fixtures.fix_memory_engine import MemoryEngine, MemoryEngines
from plan2_contract.connection import Document, Engines, KeyValue, Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import Cancel, Told, Unanswered
from plan2_sidecar.errors import EngineNotConfigured, EngineUnavailable
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.health import State
from plan2_sidecar.query import Query, Result


class Connections:
    """A source that gives what the test put there."""

    def __init__(self, document: Document | None = None) -> None:
        self.next = document

    def poll(self) -> Document | None:
        document, self.next = self.next, None
        return document


def document(password: str, store: bool = True, required: tuple[Engine, ...] = ()) -> Document:
    return Document(
        version=1,
        required_engines=required,
        engines=Engines(
            postgresql=Sql(
                host="h", port=1, database="d", rw=Login(username="u", password=password)
            ),
            dragonflydb=KeyValue(host="h", port=2) if store else None,
        ),
    )


@pytest.fixture
def engines() -> MemoryEngines:
    return MemoryEngines()


@pytest.fixture
def connections() -> Connections:
    return Connections(document("old"))


@pytest.fixture
def fleet(connections: Connections, engines: MemoryEngines) -> Fleet:
    fleet = Fleet(connections, opener=engines.open)
    fleet.refresh()
    return fleet


async def execute(fleet: Fleet, query: str = "SELECT 1") -> Result:
    member = fleet.member(Engine.POSTGRESQL)
    return await member.execute(Query(query=query), Deadline.after(5))


async def test_no_client_is_opened_before_its_first_call(
    fleet: Fleet, engines: MemoryEngines
) -> None:
    assert engines.opened == []

    await asyncio.gather(*(execute(fleet) for _ in range(5)))

    assert [engine.engine for engine in engines.opened] == [Engine.POSTGRESQL]


async def test_an_engine_without_a_connection_is_not_configured(fleet: Fleet) -> None:
    with pytest.raises(EngineNotConfigured) as refusal:
        fleet.member(Engine.MONGODB)

    assert refusal.value.database is Engine.MONGODB


async def test_a_changed_connection_is_swapped_and_an_unchanged_one_kept(
    fleet: Fleet, connections: Connections
) -> None:
    store = fleet.member(Engine.DRAGONFLYDB)
    sql = fleet.member(Engine.POSTGRESQL)

    connections.next = document("new")

    assert fleet.refresh()
    assert fleet.member(Engine.DRAGONFLYDB) is store
    assert fleet.member(Engine.POSTGRESQL) is not sql


async def test_an_equal_document_changes_nothing(fleet: Fleet, connections: Connections) -> None:
    connections.next = document("old")

    assert not fleet.refresh()


async def test_calls_under_way_finish_on_the_old_client_which_is_then_closed(
    fleet: Fleet, connections: Connections, engines: MemoryEngines
) -> None:
    under_way = asyncio.create_task(execute(fleet, "slow"))
    await engines.started.wait()

    connections.next = document("new")
    fleet.refresh()
    await execute(fleet)
    old, new = engines.opened
    assert not old.closed

    engines.release.set()
    await under_way
    await asyncio.wait_for(old.closed_event.wait(), 10)
    assert not new.closed


async def test_an_engine_taken_from_the_document_is_closed(
    fleet: Fleet, connections: Connections, engines: MemoryEngines
) -> None:
    await fleet.member(Engine.DRAGONFLYDB).execute(Query(query="GET k"), Deadline.after(5))

    connections.next = document("old", store=False)
    fleet.refresh()

    await asyncio.wait_for(engines.opened[0].closed_event.wait(), 10)
    with pytest.raises(EngineNotConfigured):
        fleet.member(Engine.DRAGONFLYDB)


async def test_closing_the_fleet_closes_every_client(fleet: Fleet, engines: MemoryEngines) -> None:
    await execute(fleet)

    await fleet.close()

    assert [engine.closed for engine in engines.opened] == [True]


async def test_callers_share_one_ping_and_a_fresh_state_needs_none(
    fleet: Fleet, engines: MemoryEngines
) -> None:
    member = fleet.member(Engine.POSTGRESQL)

    await asyncio.gather(*(member.check(5) for _ in range(10)))
    await member.check(5)

    assert engines.opened[0].pings == 1
    assert (member.health.state, member.health.version) == (State.UP, "1.0")


async def test_a_ping_that_hangs_is_over_within_a_second(
    fleet: Fleet, engines: MemoryEngines
) -> None:
    engines.hang = True
    member = fleet.member(Engine.POSTGRESQL)

    async with asyncio.timeout(1.5):
        await member.check(5)

    assert member.health.state is State.DOWN


async def test_a_ping_closes_the_breaker_of_an_engine_that_came_back(
    fleet: Fleet, engines: MemoryEngines
) -> None:
    member = fleet.member(Engine.POSTGRESQL)
    engines.problem = EngineUnavailable("down")
    for _ in range(5):
        with pytest.raises(EngineUnavailable):
            await execute(fleet)
    assert member.health.state is State.DOWN

    engines.problem = None
    await member.check(0)

    assert (await execute(fleet)).row_count == 1


async def test_required_engines_are_waited_for_until_they_answered_once(
    fleet: Fleet, connections: Connections, engines: MemoryEngines
) -> None:
    connections.next = document("old", required=(Engine.POSTGRESQL, Engine.MONGODB))
    fleet.refresh()
    assert fleet.unreached() == [Engine.MONGODB, Engine.POSTGRESQL]

    await fleet.check_required()
    assert fleet.unreached() == [Engine.MONGODB]

    engines.problem = EngineUnavailable("down")
    await fleet.member(Engine.POSTGRESQL).check(0)
    assert fleet.unreached() == [Engine.MONGODB]


async def test_a_client_that_could_not_be_opened_is_opened_by_the_next_call(
    fleet: Fleet, engines: MemoryEngines
) -> None:
    engines.cannot_open = True
    with pytest.raises(ImportError):
        await execute(fleet)

    engines.cannot_open = False

    assert (await execute(fleet)).row_count == 1


def test_the_memory_engine_is_an_engine_client() -> None:
    from plan2_sidecar.engines.base import EngineClient

    client: EngineClient = MemoryEngine(Engine.POSTGRESQL, MemoryEngines())

    assert client.pool()["max"] > 0


class AtOnce(MemoryEngine):
    """Begins every call, and tells what the test says."""

    def __init__(self, engine: Engine, engines: MemoryEngines) -> None:
        super().__init__(engine, engines)
        self.told: list[Told] = []
        self.cancelled = 0

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        if query.query == "new":
            return None
        self.told.append(told)
        return self._cancel

    def _cancel(self) -> None:
        self.cancelled += 1
        self.told.pop()(asyncio.CancelledError())


FOUND = Result(data=[], row_count=0)


@pytest.fixture
async def at_once(fleet: Fleet, engines: MemoryEngines) -> AtOnce:
    opened = AtOnce(Engine.POSTGRESQL, engines)
    fleet.member(Engine.POSTGRESQL)._client = opened
    return opened


def begin(fleet: Fleet, query: str = "SELECT 1") -> tuple[Cancel | None, list[object]]:
    outcomes: list[object] = []
    member = fleet.member(Engine.POSTGRESQL)
    return member.begin(Query(query=query), Deadline.after(5), outcomes.append), outcomes


async def test_a_call_begun_at_once_counts_as_any_other(fleet: Fleet, at_once: AtOnce) -> None:
    member = fleet.member(Engine.POSTGRESQL)

    _, outcomes = begin(fleet)
    in_use = member.guard.bulkhead.in_use
    at_once.told.pop()(FOUND)

    assert outcomes == [FOUND]
    assert (in_use, member.guard.bulkhead.in_use) == (1, 0)
    assert member.health.state is State.UP
    assert member.health.latency_ms() is not None


async def test_its_problems_open_the_breaker(fleet: Fleet, at_once: AtOnce) -> None:
    member = fleet.member(Engine.POSTGRESQL)

    for _ in range(5):
        begin(fleet)
        at_once.told.pop()(EngineUnavailable("away"))

    assert member.health.state is State.DOWN
    assert begin(fleet)[0] is None
    assert member.guard.bulkhead.in_use == 0


async def test_its_caller_may_go_away(fleet: Fleet, at_once: AtOnce) -> None:
    member = fleet.member(Engine.POSTGRESQL)
    cancel, outcomes = begin(fleet)
    assert cancel is not None

    cancel()

    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert member.guard.bulkhead.in_use == 0
    assert member.health.state is State.UNKNOWN


async def test_it_waits_for_no_place(fleet: Fleet, at_once: AtOnce) -> None:
    member = fleet.member(Engine.POSTGRESQL)
    begun = [begin(fleet)[0] for _ in range(member.guard.bulkhead.size)]

    assert None not in begun
    assert begin(fleet)[0] is None


async def test_what_cannot_begin_takes_no_place(fleet: Fleet, at_once: AtOnce) -> None:
    assert begin(fleet, "new")[0] is None
    assert fleet.member(Engine.POSTGRESQL).guard.bulkhead.in_use == 0


class Sharing:
    """A connection that takes `SELECT short`; what it was told to tell is kept."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.full = False

    def takes(self, query: Query) -> bool:
        return query.query == "SELECT short"

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        if self.full:
            return None
        self.told.append(told)
        return lambda: None


@pytest.fixture
async def sharing(at_once: AtOnce) -> Sharing:
    shared = Sharing()
    vars(at_once)["short"] = shared
    return shared


async def test_a_call_on_a_shared_connection_takes_no_place_of_its_own(
    fleet: Fleet, sharing: Sharing, at_once: AtOnce
) -> None:
    bulkhead = fleet.member(Engine.POSTGRESQL).guard.bulkhead

    _, short = begin(fleet, "SELECT short")
    places_of_short = bulkhead.in_use
    _, other = begin(fleet, "SELECT other")
    places_of_other = bulkhead.in_use
    sharing.told.pop()(FOUND)
    at_once.told.pop()(FOUND)

    assert (places_of_short, places_of_other, bulkhead.in_use) == (0, 1, 0)
    assert (short, other) == ([FOUND], [FOUND])


async def test_where_it_takes_no_more_the_call_has_a_connection_of_its_own(
    fleet: Fleet, sharing: Sharing, at_once: AtOnce
) -> None:
    sharing.full = True

    _, outcomes = begin(fleet, "SELECT short")
    at_once.told.pop()(FOUND)

    assert outcomes == [FOUND]
    assert fleet.member(Engine.POSTGRESQL).guard._shared.in_use == 0


async def test_what_was_not_answered_there_says_nothing_of_the_engine(
    fleet: Fleet, sharing: Sharing
) -> None:
    member = fleet.member(Engine.POSTGRESQL)
    unanswered = Unanswered()

    _, outcomes = begin(fleet, "SELECT short")
    sharing.told.pop()(unanswered)

    assert outcomes == [unanswered]
    assert member.health.state is State.UNKNOWN
    assert member.guard._shared.in_use == 0


async def test_a_client_that_is_not_open_begins_nothing(fleet: Fleet) -> None:
    assert begin(fleet)[0] is None


async def test_a_call_begun_at_once_finishes_on_the_old_client(
    fleet: Fleet, at_once: AtOnce, connections: Connections
) -> None:
    member = fleet.member(Engine.POSTGRESQL)
    member._opening = asyncio.create_task(asyncio.sleep(0, at_once))
    begin(fleet)

    connections.next = document("new")
    fleet.refresh()
    await asyncio.sleep(0.01)
    closed_before = at_once.closed
    at_once.told.pop()(FOUND)
    async with asyncio.timeout(1):
        await at_once.closed_event.wait()

    assert not closed_before
