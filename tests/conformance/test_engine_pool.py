"""The pool of connections: one limit for all kinds, closed when idle."""

import asyncio

from plan2_sidecar.engines.pool import Pool


async def test_idle_connections_are_closed_after_a_while() -> None:
    ended: list[str] = []

    async def connect(kind: str) -> str:
        return kind

    async def disconnect(connection: str) -> None:
        ended.append(connection)

    pool = Pool(connect, disconnect, 2, idle_seconds=0.02)
    pool.release(await pool.acquire("rw"), "rw")
    assert pool.counts() == {"size": 1, "idle": 1, "inUse": 0, "max": 2}

    await asyncio.sleep(0.2)

    assert ended == ["rw"]
    assert pool.counts()["size"] == 0


async def test_kinds_share_one_limit() -> None:
    made: list[str] = []
    ended: list[str] = []

    async def connect(kind: str) -> str:
        made.append(kind)
        return kind

    async def disconnect(connection: str) -> None:
        ended.append(connection)

    pool = Pool(connect, disconnect, 1)
    pool.release(await pool.acquire("rw"), "rw")
    await pool.acquire("ro")
    await asyncio.sleep(0)
    waiting = asyncio.create_task(pool.acquire("rw"))
    await asyncio.sleep(0)

    assert (made, ended) == (["rw", "ro"], ["rw"])
    assert not waiting.done()
    pool.release("ro", "ro")
    assert await waiting == "rw"
    pool.discard("rw")
    await pool.close(1)
    assert pool.counts()["size"] == 0
