"""The buffer of requests told of: bounded, in order, kept while ClickHouse is away."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plan2_sidecar import analytics
from plan2_sidecar.analytics import CAPACITY_BYTES, CAPACITY_ROWS, FLUSH_ROWS, Analytics
from plan2_sidecar.api.analytics import Summarized, _window
from plan2_sidecar.errors import EngineUnavailable, InvalidRequest


class Warehouse:
    """Takes rows, or does what the test says."""

    configured = True

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.away = False
        self.hold: asyncio.Event | None = None

    @property
    def rows(self) -> list[bytes]:
        return [row for batch in self.batches for row in batch]

    def require(self) -> None:
        pass

    async def insert(self, table: Any, rows: bytes, deadline: Any, **settings: str) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise EngineUnavailable("away")
        self.batches.append(rows.split(b"\n"))


@pytest.fixture
def warehouse() -> Warehouse:
    return Warehouse()


@pytest.fixture
def dropped() -> list[int]:
    return []


@pytest.fixture
def buffer(warehouse: Warehouse, dropped: list[int]) -> Analytics:
    return Analytics(warehouse, dropped.append)  # type: ignore[arg-type]  # a warehouse of ours


def numbers(first: int, count: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


async def test_rows_are_written_by_the_next_look(buffer: Analytics, warehouse: Warehouse) -> None:
    buffer.add(numbers(0, 3))
    assert warehouse.batches == []

    await buffer.look()

    assert warehouse.batches == [numbers(0, 3)]
    assert len(buffer) == 0


async def test_a_thousand_rows_are_written_at_once(buffer: Analytics, warehouse: Warehouse) -> None:
    buffer.add(numbers(0, FLUSH_ROWS))

    await asyncio.sleep(0.01)

    assert warehouse.rows == numbers(0, FLUSH_ROWS)


async def test_rows_that_could_not_be_written_are_kept_in_their_order(
    buffer: Analytics, warehouse: Warehouse, dropped: list[int]
) -> None:
    warehouse.away = True
    buffer.add(numbers(0, 2))
    await buffer.look()
    assert buffer.degraded
    buffer.add(numbers(2, 2))
    warehouse.away = False

    await buffer.look()

    assert warehouse.rows == numbers(0, 4)
    assert not buffer.degraded
    assert dropped == []


async def test_of_too_many_rows_the_oldest_are_dropped_and_counted(
    buffer: Analytics, warehouse: Warehouse, dropped: list[int]
) -> None:
    warehouse.away = True
    buffer.add(numbers(0, CAPACITY_ROWS))
    buffer.add(numbers(CAPACITY_ROWS, 5))
    await buffer.look()
    warehouse.away = False

    await buffer.look()

    assert sum(dropped) == 5
    assert warehouse.rows == numbers(5, CAPACITY_ROWS)


async def test_the_buffer_is_bounded_in_bytes_too(
    buffer: Analytics, warehouse: Warehouse, dropped: list[int]
) -> None:
    warehouse.away = True
    row = b"x" * (CAPACITY_BYTES // 4)

    buffer.add([row] * 4)
    assert dropped == []
    buffer.add([row, b"last"])

    assert sum(dropped) == 2
    assert len(buffer) == 4


async def test_rows_dropped_while_others_are_being_written_are_counted_once(
    buffer: Analytics, warehouse: Warehouse, dropped: list[int]
) -> None:
    warehouse.hold, warehouse.away = asyncio.Event(), True
    buffer.add(numbers(0, 10))
    flushing = asyncio.create_task(buffer.look())
    await asyncio.sleep(0)

    buffer.add(numbers(10, CAPACITY_ROWS))
    warehouse.hold.set()
    await flushing

    assert sum(dropped) == 10
    assert len(buffer) == CAPACITY_ROWS
    warehouse.away = False
    await buffer.look()
    assert warehouse.rows == numbers(10, CAPACITY_ROWS)


async def test_a_caller_who_stops_waiting_loses_no_row(
    buffer: Analytics, warehouse: Warehouse
) -> None:
    warehouse.hold = asyncio.Event()
    buffer.add(numbers(0, 3))
    flushing = asyncio.create_task(buffer.look())
    await asyncio.sleep(0)

    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    warehouse.hold.set()
    await buffer.look()

    assert warehouse.rows == numbers(0, 3)


async def test_a_stop_writes_what_is_left_even_if_it_takes_a_second_try(
    buffer: Analytics, warehouse: Warehouse, dropped: list[int]
) -> None:
    warehouse.away = True
    buffer.add(numbers(0, 3))
    closing = asyncio.create_task(buffer.close())
    await asyncio.sleep(0.05)
    warehouse.away = False

    await closing

    assert warehouse.rows == numbers(0, 3)
    assert dropped == []


async def test_a_stop_without_clickhouse_says_what_it_gave_up(
    warehouse: Warehouse, dropped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics, "CLOSE_SECONDS", 0.05)
    buffer = Analytics(warehouse, dropped.append)  # type: ignore[arg-type]  # a warehouse of ours
    warehouse.away = True
    buffer.add(numbers(0, 3))

    await buffer.close()

    assert dropped == [3]


NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("15m", NOW - timedelta(minutes=15)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("999999d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-07-01T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-07-01T13:00:00.5+02:00", NOW - timedelta(minutes=59, seconds=59.5)),
        ("2999-01-01T00:00:00Z", NOW),
    ],
)
def test_since_is_a_span_or_a_moment(text: str, since: datetime) -> None:
    window = _window(Summarized(since=text), NOW)

    assert window.since == since
    assert window.until > NOW


@pytest.mark.parametrize("text", ["", "15", "m", "1.5h", "-5m", "2026-07-01", "1e3s", "\uff11m"])
def test_another_since_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="since"):
        _window(Summarized(since=text), NOW)
