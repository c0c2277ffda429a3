"""Short reads of PostgreSQL over one connection: same answers, and nobody is held up for long."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec
import pytest

from conformance.engine_cases import POSTGRESQL, Told, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from plan2_contract.engines import Engine
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import Connection, EngineClient
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.engines import postgresql_lane as lanes
from plan2_sidecar.engines import postgresql_short as short_reads
from plan2_sidecar.engines.base import Unanswered
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable
from plan2_sidecar.query import Query, Result

STALL_SECONDS = lanes.STALL_SECONDS
ROW = "SELECT id, name FROM plan2_short WHERE id = $1"
LIST = "SELECT id, name FROM plan2_short WHERE id >= $1 ORDER BY id"
# A view calls it, so nobody sees in the statement that it takes a while, or writes.
PACED = "SELECT waited FROM plan2_short_paced WHERE waited IS NOT NULL"


@pytest.fixture
async def admin(postgresql: EngineServer) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(postgresql.url)
    await opened.execute(
        """
        DROP VIEW IF EXISTS plan2_short_paced, plan2_short_writes;
        DROP FUNCTION IF EXISTS plan2_short_note;
        DROP TABLE IF EXISTS plan2_short, plan2_short_pace, plan2_short_notes;
        CREATE TABLE plan2_short (id int PRIMARY KEY, name text);
        INSERT INTO plan2_short VALUES (1, 'ü'), (2, NULL), (3, '');
        CREATE TABLE plan2_short_pace (seconds float8);
        INSERT INTO plan2_short_pace VALUES (0);
        CREATE VIEW plan2_short_paced AS SELECT pg_sleep(seconds)::text AS waited
          FROM plan2_short_pace;
        CREATE TABLE plan2_short_notes (at timestamptz);
        CREATE FUNCTION plan2_short_note() RETURNS int LANGUAGE sql AS
          'INSERT INTO plan2_short_notes VALUES (now()) RETURNING 1';
        CREATE VIEW plan2_short_writes AS SELECT plan2_short_note() AS noted;
        """
    )
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine holds nothing up but what a test is about."""
    monkeypatch.setattr(lanes, "STALL_SECONDS", 10.0)


@pytest.fixture
def stall_seconds(patient: None, monkeypatch: pytest.MonkeyPatch) -> float:
    """As it is."""
    monkeypatch.setattr(lanes, "STALL_SECONDS", STALL_SECONDS)
    return STALL_SECONDS


@pytest.fixture
async def client(
    postgresql: EngineServer, admin: asyncpg.Connection
) -> AsyncIterator[EngineClient]:
    async with opened(Engine.POSTGRESQL, connection(POSTGRESQL, postgresql)) as client:
        yield client


def own(client: EngineClient) -> Any:
    return engines.opened(client)


def asked(text: str, *params: Any, **options: Any) -> Query:
    return Query(query=text, params=list(params), **options)


class Begun(Told):
    """A call begun on the lane, or not begun."""

    def __init__(self, client: EngineClient, query: Query, seconds: float = 10.0) -> None:
        super().__init__()
        short = own(client).short
        self.taken = short.takes(query)
        self.cancel = None
        if self.taken:
            self.cancel = short.begin(query, Deadline.after(seconds), self)


async def ask(client: EngineClient, query: Query) -> Any:
    """Its outcome where it is begun at once, in whichever way, else what awaiting it gives."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    cancel = own(client).begin(query, Deadline.after(10), told.set_result)
    if cancel is None:
        return await run(client, query)
    async with asyncio.timeout(10):
        return await told


async def learnt(client: EngineClient, *queries: Query) -> None:
    """Ask them until they go on the lane."""
    for query in queries:
        for _ in range(1000):
            await ask(client, query)
            if own(client).short.takes(query):
                break
            await asyncio.sleep(0.002)
        assert own(client).short.takes(query)


async def answered(client: EngineClient, query: Query) -> Any:
    """What the lane answers, as a caller reads it."""
    result = await Begun(client, query).outcome()
    assert isinstance(result, Result)
    return plain(result)


async def count(admin: asyncpg.Connection, table: str) -> int:
    return int(await admin.fetchval(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize(
    ("text", "usual", "params"),
    [
        (ROW, [1], [1]),
        (ROW, [1], ["2"]),
        (ROW, [1], [3]),
        (ROW, [1], [99]),
        (ROW, [1], [None]),
        (LIST, [3], [1]),
        ("SELECT $1::text AS a, $2::bool AS b", ["", True], ['"ü\\', False]),
        ("SELECT $1::text AS a, $2::bool AS b", ["", True], [None, None]),
        ("SELECT $1::numeric AS a, $2::float8 AS b", [1, 1], ["1.50", 2.5]),
        ("SELECT $1::timestamptz AS a", ["2026-01-01"], ["2026-12-01 10:00:00+02"]),
        ("SELECT ROW(1, 'a') AS pair, NULL::json AS none FROM plan2_short WHERE id = 1", [], []),
        ("SELECT name FROM plan2_short WHERE name = $1  -- why not", ["ü"], ["ü"]),
    ],
)
@pytest.mark.parametrize("max_rows", [None, 2, 1], ids=["all", "two", "one"])
async def test_it_answers_what_a_connection_of_ones_own_does(
    client: EngineClient, text: str, usual: list[Any], params: list[Any], max_rows: int | None
) -> None:
    await learnt(client, asked(text, *usual, max_rows=max_rows))
    query = asked(text, *params, max_rows=max_rows)

    begun = Begun(client, query)

    assert begun.cancel is not None
    outcome, expected = await begun.outcome(), await run(client, query)
    assert plain(outcome) == plain(expected)
    assert outcome.columns == expected.columns
    assert (outcome.row_count, outcome.truncated) == (expected.row_count, expected.truncated)
    assert own(client).pool()["inUse"] == 0


async def test_many_share_it_and_each_gets_its_own_answer(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    await admin.execute("INSERT INTO plan2_short SELECT n, n FROM generate_series(10, 200) n")
    await learnt(client, asked(ROW, 1))

    begun = [Begun(client, asked(ROW, number)) for number in range(10, 10 + lanes.MOST)]
    one_more = Begun(client, asked(ROW, 1))
    pool = own(client).pool()

    assert one_more.taken
    assert one_more.cancel is None
    assert [plain(await each.outcome()) for each in begun] == [
        [{"id": number, "name": str(number)}] for number in range(10, 10 + lanes.MOST)
    ]
    assert pool["inUse"] == 1


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("SELECT pg_sleep(0)::text AS a", []),
        ("SHOW TimeZone", []),
        ("SELECT decode($1::text, 'hex') = $2::bytea AS a", ["00", {"$base64": "AA=="}]),
        (LIST, [1]),
    ],
    ids=["calls", "shows", "takes bytes", "many rows"],
)
async def test_what_is_not_a_short_read_never_goes_there(
    client: EngineClient, text: str, params: list[Any]
) -> None:
    await learnt(client, asked(ROW, 1))

    with contextlib.suppress(Exception):
        for _ in range(40):
            await ask(client, asked(text, *params))

    assert not own(client).short.takes(asked(text, *params))


async def test_reads_of_those_who_may_only_read_are_left_alone(client: EngineClient) -> None:
    await learnt(client, asked(ROW, 1))

    assert not own(client).short.takes(asked(ROW, 1, read_only=True))
    assert Begun(client, asked(ROW, 1), seconds=0).cancel is None
    assert Begun(client, asked(ROW, 1, 2)).cancel is None
    assert Begun(client, asked(ROW, [1])).cancel is None
    assert Begun(client, Query(query=ROW, params={})).cancel is None
    assert await answered(client, asked(ROW, 1)) == [{"id": 1, "name": "ü"}]


async def test_what_writes_unseen_is_refused_there_and_done_once(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    query = asked("SELECT noted FROM plan2_short_writes")
    await learnt(client, query)
    before = await count(admin, "plan2_short_notes")

    begun = Begun(client, query)

    assert isinstance(await begun.outcome(), Unanswered)
    assert await count(admin, "plan2_short_notes") == before
    assert not own(client).short.takes(query)
    await run(client, query)
    assert await count(admin, "plan2_short_notes") == before + 1


async def test_a_value_that_does_not_fit_says_nothing_of_the_others(client: EngineClient) -> None:
    query = asked("SELECT 6 / $1::int AS n", 2)
    await learnt(client, query)

    begun = [Begun(client, asked("SELECT 6 / $1::int AS n", value)) for value in (1, 0, "x", 3)]
    outcomes = [await each.outcome() for each in begun]

    assert [plain(outcomes[0]), plain(outcomes[3])] == [[{"n": 6}], [{"n": 2}]]
    assert all(isinstance(outcome, Unanswered) for outcome in outcomes[1:3])
    assert await answered(client, query) == [{"n": 3}]


async def test_tables_that_change_are_seen(client: EngineClient, admin: asyncpg.Connection) -> None:
    query = asked("SELECT * FROM plan2_short WHERE id = $1", 1)
    await learnt(client, query)

    await admin.execute("ALTER TABLE plan2_short ADD COLUMN more int DEFAULT 5")
    assert await answered(client, query) == [{"id": 1, "name": "ü", "more": 5}]

    await admin.execute("ALTER TABLE plan2_short RENAME TO plan2_short_notes_2")
    outcome = await Begun(client, query).outcome()
    await admin.execute("DROP TABLE plan2_short_notes_2")
    assert isinstance(outcome, Unanswered)
    assert not own(client).short.takes(query)


@pytest.mark.usefixtures("stall_seconds")
async def test_a_locked_table_holds_up_the_others_for_no_longer_than_a_stall(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    other = asked("SELECT $1::int AS n", 7)
    await learnt(client, asked(ROW, 1), other)
    async with admin.transaction():
        await admin.execute("LOCK TABLE plan2_short")
        started = time.monotonic()

        begun = [Begun(client, query) for query in (other, asked(ROW, 1), other)]
        outcomes = [await each.outcome() for each in begun]
        took = time.monotonic() - started

        assert plain(outcomes[0]) == [{"n": 7}]
        assert [type(outcome) for outcome in outcomes[1:]] == [Unanswered, Unanswered]
        # Far below the deadline of ten seconds, on however busy a machine.
        assert took < 2
        assert plain(await run(client, other)) == [{"n": 7}]
        assert not own(client).short.takes(asked(ROW, 1))
        await _backends(admin, "active", 0)

    assert plain(await run(client, asked(ROW, 1))) == [{"id": 1, "name": "ü"}]


@pytest.mark.usefixtures("stall_seconds")
async def test_after_a_stall_another_lane_is_opened(
    client: EngineClient, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_reads, "_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(short_reads, "_BANNED_SECONDS", 0.3)
    await learnt(client, asked(ROW, 1))
    async with admin.transaction():
        await admin.execute("LOCK TABLE plan2_short")
        assert isinstance(await Begun(client, asked(ROW, 1)).outcome(), Unanswered)

    await learnt(client, asked(ROW, 1))

    assert await answered(client, asked(ROW, 1)) == [{"id": 1, "name": "ü"}]


async def test_a_statement_that_grows_slow_leaves_the_lane(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    await learnt(client, asked(PACED), asked(ROW, 1))
    await admin.execute("UPDATE plan2_short_pace SET seconds = 0.02")

    answers = 0
    while own(client).short.takes(asked(PACED)):
        assert await answered(client, asked(PACED)) == [{"waited": ""}]
        answers += 1

    assert answers == 5
    assert await answered(client, asked(ROW, 1)) == [{"id": 1, "name": "ü"}]


async def test_a_pause_of_this_process_is_no_stall(
    client: EngineClient, stall_seconds: float
) -> None:
    await learnt(client, asked(ROW, 1))
    for _ in range(3):
        begun = [Begun(client, asked(ROW, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        time.sleep(2 * stall_seconds)  # noqa: ASYNC251  it is the loop that stands still

        for each in begun:
            assert isinstance(await each.outcome(), Result)

    assert own(client).short.takes(asked(ROW, 1))


async def test_an_answer_that_is_too_long_for_it_goes_elsewhere(client: EngineClient) -> None:
    text = "SELECT repeat('x', $1::int) AS a"
    await learnt(client, asked(text, 1))

    assert len((await answered(client, asked(text, 100_000)))[0]["a"]) == 100_000
    assert isinstance(await Begun(client, asked(text, 20_000_000)).outcome(), Unanswered)
    assert not own(client).short.takes(asked(text, 1))


async def test_who_has_little_time_is_told_when_it_is_over(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    await learnt(client, asked(ROW, 1))
    async with admin.transaction():
        await admin.execute("LOCK TABLE plan2_short")

        outcome = await Begun(client, asked(ROW, 1), seconds=0.02).outcome()

    assert isinstance(outcome, DeadlineExceeded)
    assert outcome.database is Engine.POSTGRESQL


async def test_a_caller_may_go_away(client: EngineClient) -> None:
    await learnt(client, asked(ROW, 1))
    begun = [Begun(client, asked(ROW, number)) for number in (1, 2, 3)]
    assert begun[1].cancel is not None

    begun[1].cancel()
    outcomes = [await each.outcome() for each in begun]
    begun[1].cancel()

    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert [plain(outcomes[0])[0]["id"], plain(outcomes[2])[0]["id"]] == [1, 3]
    assert await answered(client, asked(ROW, 2)) == [{"id": 2, "name": None}]


async def test_who_tells_badly_costs_the_others_nothing(client: EngineClient) -> None:
    await learnt(client, asked(ROW, 1))
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))

    def fails(_: object) -> None:
        raise ValueError("not here")

    own(client).short.begin(asked(ROW, 1), Deadline.after(5), fails)
    outcome = await answered(client, asked(ROW, 2))
    loop.set_exception_handler(None)

    assert outcome == [{"id": 2, "name": None}]
    assert [str(each["exception"]) for each in failures] == ["not here"]


@pytest.mark.parametrize("waiting", [0, 3])
async def test_a_connection_that_broke_is_followed_by_another(
    client: EngineClient, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(short_reads, "_AGAIN_SECONDS", 0.1)
    await learnt(client, asked(ROW, 1))
    await answered(client, asked(ROW, 1))
    lane = own(client).short._lane
    async with admin.transaction():
        if waiting:
            await admin.execute("LOCK TABLE plan2_short")
        begun = [Begun(client, asked(ROW, 1)) for _ in range(waiting)]
        ended = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'plan2-sidecar' AND query LIKE '%plan2_short%'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        outcomes = [await each.outcome() for each in begun]
    await _until_closed(lane)

    assert ended >= 1
    assert all(isinstance(outcome, Unanswered) for outcome in outcomes)
    for _ in range(3):
        with contextlib.suppress(Exception):
            await run(client, asked(ROW, 1))
    await learnt(client, asked(ROW, 1))
    assert await answered(client, asked(ROW, 1)) == [{"id": 1, "name": "ü"}]


async def test_a_server_that_breaks_the_protocol_is_left(client: EngineClient) -> None:
    await learnt(client, asked(ROW, 1))
    lane = own(client).short._lane
    begun = Begun(client, asked(ROW, 1))

    lane.data_received(b"W\0\0\0\4")

    assert isinstance(await begun.outcome(), Unanswered)
    assert lane.closed
    assert plain(await run(client, asked(ROW, 1))) == [{"id": 1, "name": "ü"}]


async def test_its_connection_is_one_of_the_pools(
    postgresql: EngineServer, admin: asyncpg.Connection
) -> None:
    to = with_pool(connection(POSTGRESQL, postgresql), 2)
    sleep = asked("SELECT pg_sleep(0.5)::text AS slept")
    async with opened(Engine.POSTGRESQL, to) as client:
        await learnt(client, asked(ROW, 1))
        at_rest = own(client).pool()
        started = time.monotonic()

        # Both places are wanted: the lane gives up its own.
        await asyncio.gather(run(client, sleep), run(client, sleep))
        took = time.monotonic() - started

        assert at_rest["inUse"] == 0
        assert at_rest["idle"] == at_rest["size"] <= 2
        assert took < 0.95
        assert not own(client).short.takes(asked(ROW, 1))


async def test_a_pool_of_one_has_no_lane(postgresql: EngineServer) -> None:
    to = with_pool(connection(POSTGRESQL, postgresql), 1)
    async with opened(Engine.POSTGRESQL, to) as client:
        for _ in range(40):
            await ask(client, asked("SELECT 1 AS n"))

        assert not own(client).short.takes(asked("SELECT 1 AS n"))


async def test_a_lane_that_cannot_be_opened_costs_no_place(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    async def refused(_: object) -> None:
        tried.append(time.monotonic())
        raise EngineUnavailable("unsupported startup parameter")

    monkeypatch.setattr(short_reads, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(own(client).short, "_in_place_of", refused)
    while len(tried) < 5:
        assert plain(await ask(client, asked(ROW, 1))) == [{"id": 1, "name": "ü"}]
        await asyncio.sleep(0.002)

    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))
    assert not own(client).short.takes(asked(ROW, 1))
    assert own(client).pool()["inUse"] == 0
    monkeypatch.undo()
    own(client).short._not_before = 0.0
    await learnt(client, asked(ROW, 1))


async def test_it_closes_when_nobody_asks(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IDLE_SECONDS", 0.2)
    await learnt(client, asked(ROW, 1))
    lane = own(client).short._lane

    await _until_closed(lane)

    monkeypatch.undo()
    own(client).short._not_before = 0.0
    await learnt(client, asked(ROW, 1))


async def test_a_client_that_closes_waits_for_it_and_ends_it(
    client: EngineClient, admin: asyncpg.Connection
) -> None:
    await learnt(client, asked(ROW, 1))
    begun = Begun(client, asked(ROW, 1))
    short = own(client).short

    await client.close(5)

    assert isinstance(await begun.outcome(), Result)
    await _backends(admin, "idle", 0)
    # Nor does a call that comes to its end later open it anew.
    assert short._not_before == math.inf


async def test_it_keeps_so_many_statements_and_the_newest_of_them(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_reads, "_STATEMENTS", 5)
    queries = [asked(f"SELECT $1::int + {number} AS n", 1) for number in range(8)]
    for query in queries:
        await learnt(client, query)
        assert len(await answered(client, query)) == 1

    taken = [own(client).short.takes(query) for query in queries]

    assert taken == [False] * 3 + [True] * 5
    for _ in range(2):
        answers = [await answered(client, query) for query in queries[3:]]
        assert answers == [[{"n": 1 + number}] for number in range(3, 8)]


async def test_asyncpg_opens_what_is_spoken_here(postgresql: EngineServer) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    class Hearing(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.put_nowait(data)

    connection = await asyncpg.connect(postgresql.url)

    transport = internals.take_over(connection, Hearing())
    transport.write(b"Q\0\0\0\rSELECT 1\0")
    async with asyncio.timeout(5):
        answer = await heard.get()
    connection.terminate()
    await asyncio.sleep(0)

    assert b"SELECT 1\0Z\0\0\0\5I" in answer
    assert connection.is_closed()
    assert transport.is_closing()


def with_pool(to: Connection, size: int) -> Connection:
    return msgspec.structs.replace(to, pool_max=size)


async def _until_closed(lane: Any) -> None:
    for _ in range(500):
        if lane.closed:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the lane is still open")


async def _backends(admin: asyncpg.Connection, state: str, wanted: int) -> None:
    """Until so many sessions of the client are in that state."""
    found = -1
    for _ in range(100):
        # Within a transaction it would show the same again and again.
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        found = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'plan2-sidecar'"
            " AND datname = current_database() AND state = $1",
            state,
        )
        if found == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{found} sessions are {state}, not {wanted}")
