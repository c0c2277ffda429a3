"""Commands under way without a task: told once, by whichever comes first."""

import asyncio

import hiredis
import pytest

from plan2_contract.connection import KeyValue, Login
from plan2_contract.engines import Engine
from plan2_sidecar.cache.asking import Asking, Replies
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, Problem, QueryRejected
from plan2_sidecar.fleet import Member, open_client
from plan2_sidecar.guard import SHARED_PLACES
from plan2_sidecar.guard.breaker import State as BreakerState

LONG = 60.0


@pytest.fixture
def member() -> Member:
    login = Login(username="u", password="p")
    connection = KeyValue(host="localhost", port=1, rw=login)
    return Member(Engine.DRAGONFLYDB, connection, open_client, lambda: 0.0)


def asking(
    member: Member, heard: list[Replies | Exception], *, count: int = 1, seconds: float = LONG
) -> Asking:
    passage = member.passes()
    assert passage is not None
    return Asking(passage, count, seconds, heard.append, asyncio.get_running_loop())


async def test_it_is_told_when_the_last_reply_is_there(member: Member) -> None:
    heard: list[Replies | Exception] = []
    waiting = asking(member, heard, count=2)

    waiting.set_result(b"v")
    assert heard == []
    waiting.set_result(-1)

    assert heard == [[b"v", -1]]
    assert waiting.done()


async def test_an_error_reply_is_a_problem_of_the_statement(member: Member) -> None:
    heard: list[Replies | Exception] = []

    asking(member, heard).set_result(hiredis.ReplyError("WRONGTYPE no string"))

    assert isinstance(heard[0], QueryRejected)
    assert heard[0].engine_code == "WRONGTYPE"
    assert heard[0].database is Engine.DRAGONFLYDB
    assert member.guard.breaker.state is BreakerState.CLOSED


async def test_a_connection_that_ends_is_told_once_though_it_waits_for_two(member: Member) -> None:
    heard: list[Replies | Exception] = []
    waiting = asking(member, heard, count=2)

    waiting.set_exception(ConnectionLost("gone"))

    assert waiting.done()
    assert [type(each) for each in heard] == [ConnectionLost]


async def test_it_is_given_up_in_its_time(member: Member) -> None:
    heard: asyncio.Queue[Replies | Exception] = asyncio.Queue()
    passage = member.passes()
    assert passage is not None
    waiting = Asking(passage, 1, 0.02, heard.put_nowait, asyncio.get_running_loop())

    async with asyncio.timeout(5):
        outcome = await heard.get()

    assert isinstance(outcome, DeadlineExceeded)
    assert waiting.done()


async def test_engines_that_fail_open_the_breaker_and_leave_no_place_taken(member: Member) -> None:
    heard: list[Replies | Exception] = []

    for _ in range(5):
        asking(member, heard).set_exception(ConnectionLost("gone"))

    assert member.guard.breaker.state is BreakerState.OPEN
    with pytest.raises(Problem, match="has been failing"):
        member.passes()


async def test_without_a_place_nothing_passes(member: Member) -> None:
    heard: list[Replies | Exception] = []
    under_way = [asking(member, heard) for _ in range(SHARED_PLACES)]

    assert member.passes() is None
    under_way[0].set_result(b"v")
    assert member.passes() is not None


async def test_a_listener_that_fails_is_not_the_connections_fault(
    member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Replies | Exception) -> None:
        raise ValueError("the listener's own")

    passage = member.passes()
    assert passage is not None
    waiting = Asking(passage, 1, LONG, fails, asyncio.get_running_loop())

    waiting.set_result(b"v")

    assert "could not be told" in caplog.text
