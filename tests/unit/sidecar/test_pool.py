"""The pool the engines share: what is dropped when one connection broke."""

from plan2_sidecar.engines.pool import Pool


async def test_idle_connections_are_closed_when_one_broke_and_those_in_use_stay() -> None:
    made: list[int] = []
    ended: list[int] = []

    async def connect(kind: str) -> int:
        made.append(len(made))
        return made[-1]

    async def disconnect(connection: int) -> None:
        ended.append(connection)

    pool = Pool(connect, disconnect, 3)
    connections = [await pool.acquire("rw") for _ in range(3)]
    for connection in connections[1:]:
        pool.release(connection, "rw")

    pool.drop_idle()

    assert pool.counts() == {"size": 1, "idle": 0, "inUse": 1, "max": 3}
    assert await pool.acquire("rw") == 3
    await pool.close(1)
    assert sorted(ended) == [1, 2]
