"""A reply that is still to come: told once, heard once, and by nobody who has gone."""

import asyncio

import pytest

from plan2_sidecar.api.reply import Reply
from plan2_sidecar.server.later import Later, Outcome

REPLY = Reply(204)


@pytest.mark.parametrize("first", ["told", "asked for"])
async def test_it_is_heard_whichever_came_first(first: str) -> None:
    heard: list[Outcome] = []
    later = Later()

    if first == "told":
        later.tell(REPLY)
        later.then(heard.append)
    else:
        later.then(heard.append)
        later.tell(REPLY)

    assert heard == [REPLY]


async def test_who_has_gone_hears_nothing() -> None:
    heard: list[Outcome] = []
    later = Later()
    later.then(heard.append)

    later.cancel()
    later.tell(REPLY)

    assert heard == []


async def test_a_task_tells_its_result_or_what_it_raised() -> None:
    async def fine() -> Reply:
        return REPLY

    async def wrong() -> Reply:
        raise ValueError("wrong")

    heard: list[Outcome] = []
    for work in (fine, wrong):
        later = Later()
        later.then(heard.append)
        later.become(work())
        await later.over()

    assert heard[0] == REPLY
    assert isinstance(heard[1], ValueError)


async def test_a_task_ends_when_the_caller_has_gone() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> Reply:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return REPLY

    later = Later()
    later.become(work())
    await began.wait()

    later.cancel()

    async with asyncio.timeout(1):
        await ended.wait()


@pytest.mark.parametrize("told", [False, True], ids=["waiting", "told"])
async def test_what_was_begun_ends_when_the_caller_has_gone_before(told: bool) -> None:
    ended: list[bool] = []
    later = Later()
    later.ends_by(lambda: ended.append(True))
    if told:
        later.tell(REPLY)

    later.cancel()

    assert ended == ([] if told else [True])
