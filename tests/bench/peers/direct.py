"""Drivers alone, with no server between: as many workers as connections, one call at a time each.

    direct.py asyncpg-row|asyncpg-rows|redis-get|redis-set URL WORKERS SECONDS

Prints one object of JSON: calls, seconds, p50_us, p99_us, cpu_seconds, memory_mb.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

Call = Callable[[int], Awaitable[Any]]
ROW = "SELECT id, owner, balance FROM accounts WHERE id = $1"
ROWS = "SELECT id, owner, balance FROM accounts WHERE id <= 1000"


async def asyncpg_row(url: str) -> Call:
    import asyncpg

    connection = await asyncpg.connect(url)
    statement = await connection.prepare(ROW)
    return lambda number: statement.fetchrow(number % 1000 + 1)


async def asyncpg_rows(pool: Any) -> Call:
    import orjson

    async def call(number: int) -> bytes:
        async with pool.acquire() as connection:
            rows = await connection.fetch(ROWS)
        return orjson.dumps([dict(row) for row in rows], default=str)

    return call


async def redis_call(client: Any, command: str) -> Call:
    if command == "redis-get":
        return lambda number: client.get(f"bench:{number % 1000 + 1}")
    return lambda number: client.set(f"bench:{number % 1000 + 1}", b"x" * 100)


async def prepare(kind: str, url: str, workers: int) -> list[Call]:
    if kind == "asyncpg-row":
        return [await asyncpg_row(url) for _ in range(workers)]
    if kind == "asyncpg-rows":
        import asyncpg

        pool = await asyncpg.create_pool(url, min_size=workers, max_size=workers)
        return [await asyncpg_rows(pool) for _ in range(workers)]
    import redis.asyncio

    client = redis.asyncio.from_url(url, max_connections=workers)
    return [await redis_call(client, kind) for _ in range(workers)]


async def main(kind: str, url: str, workers: int, seconds: float) -> None:
    latencies: list[float] = []
    calls = await prepare(kind, url, workers)
    for call in calls:
        await call(1)
    clock = time.perf_counter
    used = resource.getrusage(resource.RUSAGE_SELF)
    started = clock()
    until = started + seconds

    async def work(call: Call, first: int) -> None:
        number = first
        while (now := clock()) < until:
            await call(number)
            latencies.append(clock() - now)
            number += workers

    await asyncio.gather(*(work(call, first) for first, call in enumerate(calls)))
    elapsed = clock() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    latencies.sort()
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(
        json.dumps(
            {
                "calls": len(latencies),
                "seconds": elapsed,
                "p50_us": latencies[len(latencies) // 2] * 1e6,
                "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
                "cpu_seconds": cpu,
                "memory_mb": after.ru_maxrss * 1024 / 1_000_000,
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
