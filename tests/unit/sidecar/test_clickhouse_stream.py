"""What ClickHouse sends while it works, and the message it leaves behind rows it had sent."""

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_sidecar.engines import clickhouse_stream
from plan2_sidecar.engines.http_chunks import Part
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, Problem, QueryRejected
from plan2_sidecar.query import Chunk

ROW = b'{"n":1,"t":"a row that is long enough to fill pieces soon"}\n'
MESSAGE = (
    b"Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero. (FUNCTION_THROW)"
)
MARKED = b"\r\n__exception__\r\nabcdefgh\r\n" + MESSAGE + b"\n90 abcdefgh\r\n__exception__\r\n"
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Breaks = Exception | None


async def pieces(content: bytes, size: int, breaks: Breaks = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
    if breaks is not None:
        raise breaks


async def read(
    content: bytes,
    size: int = 10_000,
    breaks: Breaks = None,
    reader: Callable[[AsyncIterator[bytes]], AsyncIterator[Chunk]] = clickhouse_stream.rows,
) -> tuple[bytes, int, Problem | None]:
    """What was passed on, how many rows that was, and the problem it ended in."""
    passed, count = b"", 0
    try:
        async for chunk in reader(pieces(content, size, breaks)):
            passed += chunk.whole()
            count += chunk.rows
    except Problem as problem:
        return passed, count, problem
    return passed, count, None


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=st.integers(0, 4000), size=st.integers(1000, 100_000))
async def test_rows_come_out_as_they_went_in(rows: int, size: int) -> None:
    assert await read(ROW * rows, size) == (ROW * rows, rows, None)


@pytest.mark.parametrize("message", [MESSAGE, MARKED], ids=["plain", "marked"])
@pytest.mark.parametrize("rows", [0, 1, 5000], ids=["none", "one", "many"])
@pytest.mark.parametrize("size", [17, 10_000, 1_000_000], ids=["small", "middle", "large"])
async def test_a_message_behind_rows_is_a_problem_and_no_row(
    message: bytes, rows: int, size: int
) -> None:
    passed, count, problem = await read(ROW * rows + message, size)

    assert isinstance(problem, QueryRejected)
    assert (problem.engine_code, "throwIf" in problem.detail) == ("395", True)
    assert passed == ROW * count
    assert count <= rows


@pytest.mark.parametrize("rows", [1, 3000])
async def test_a_message_inside_a_row_takes_the_row_along(rows: int) -> None:
    passed, count, problem = await read(ROW * rows + b'{"n":1,"t":"' + MESSAGE + b"\n")

    assert isinstance(problem, QueryRejected)
    assert passed == ROW * count


@pytest.mark.parametrize("message", [MESSAGE + b"\n", MARKED], ids=["plain", "marked"])
@pytest.mark.parametrize("more", [0, 30_000], ids=["short", "long"])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows=st.integers(1050, 1150), size=st.integers(20, 3000))
async def test_no_line_of_a_message_is_a_row_wherever_it_is_cut(
    message: bytes, more: int, rows: int, size: int
) -> None:
    content = ROW * rows + message + b'{"a line":"of the message"}\n' * more

    passed, count, problem = await read(content, size)

    assert isinstance(problem, QueryRejected)
    assert passed == ROW * count


async def test_a_row_may_tell_of_an_exception() -> None:
    told = b'{"n":1,"t":"Code: 395. DB::Exception: a message (X)"}\n'
    content = (ROW * 100 + told) * 100

    assert await read(content, 3000) == (content, 10_100, None)


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
async def test_parts_of_a_buffer_are_kept_as_they_were(size: int) -> None:
    rows = b"".join(ROW.replace(b"1", b"%d" % n) for n in range(5000))
    buffer = bytearray(size)

    async def parts() -> AsyncIterator[list[Part]]:
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            buffer[: len(piece)] = piece
            half = len(piece) // 2
            yield [Part(buffer, 0, half), Part(buffer, half, len(piece))]
        buffer[:] = bytes(size)

    passed, count = b"", 0
    async for chunk in clickhouse_stream.rows(parts()):
        passed += chunk.whole()
        count += chunk.rows

    assert (passed, count) == (rows, 5000)


async def test_a_row_longer_than_a_piece_is_passed_whole() -> None:
    long = b'{"t":"' + b"x" * 300_000 + b'"}\n'

    assert await read(long * 5, 1000) == (long * 5, 5, None)


async def test_the_servers_own_time_limit_is_a_deadline() -> None:
    message = b"Code: 159. DB::Exception: Timeout exceeded: elapsed 5 seconds. (TIMEOUT_EXCEEDED)\n"

    _, _, problem = await read(ROW * 3000 + message)

    assert isinstance(problem, DeadlineExceeded)


async def test_a_row_that_is_cut_is_a_lost_connection() -> None:
    passed, count, problem = await read(ROW * 3000 + ROW[:20])

    assert isinstance(problem, ConnectionLost)
    assert passed == ROW * count


async def test_a_connection_broken_behind_a_message_tells_the_message() -> None:
    broken = aiohttp.ClientPayloadError("not enough data")

    _, _, problem = await read(ROW * 10 + MARKED, breaks=broken)

    assert isinstance(problem, QueryRejected)


async def test_a_connection_broken_without_a_message_is_told_as_it_is() -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await read(ROW * 10, breaks=aiohttp.ClientPayloadError("not enough data"))


@pytest.mark.parametrize("size", [17, 200_000])
async def test_arrow_passes_when_it_ends_as_arrow_does(size: int) -> None:
    content = b"\xff\xff\xff\xff" + bytes(300_000) + END

    assert await read(content, size, reader=clickhouse_stream.arrow) == (content, 0, None)


async def test_arrow_with_a_message_at_its_end_is_a_problem() -> None:
    content = b"\xff\xff\xff\xff" + bytes(300_000) + MARKED

    passed, _, problem = await read(content, reader=clickhouse_stream.arrow)

    assert isinstance(problem, QueryRejected)
    assert MESSAGE not in passed


async def test_arrow_that_just_stops_is_a_lost_connection() -> None:
    _, _, problem = await read(b"\xff\xff\xff\xff" + bytes(9), reader=clickhouse_stream.arrow)

    assert isinstance(problem, ConnectionLost)
