"""Rate limits as callers see them: members, headers, statuses, and a store that goes away."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.engine_server import EngineServer, run
from fixtures.fix_engines import make_redis
from fixtures.fix_sidecar import (
    Connect,
    Reply,
    SidecarClient,
    SidecarProcess,
    Start,
    eventually,
    nobody_there,
    starting,
)

CHECK = "/api/v2/rate-limit/check"
DAY_MS = 86_400_000
SERVERS = ("dragonflydb", "redis_legacy")


def on(server: EngineServer) -> dict[str, str]:
    return {
        "DRAGONFLY_HOST": server.host,
        "DRAGONFLY_PORT": str(server.port),
        "DRAGONFLY_PASSWORD": server.admin_password,
    }


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> EngineServer:
    found: EngineServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def pair(server: EngineServer) -> Iterator[tuple[SidecarProcess, SidecarProcess]]:
    with starting() as start:
        yield start(**on(server)), start(**on(server))


@pytest.fixture
def sidecar(pair: tuple[SidecarProcess, SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(pair[0])


@pytest.fixture
def other(pair: tuple[SidecarProcess, SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(pair[1])


@pytest.fixture(scope="module")
def storeless() -> Iterator[SidecarProcess]:
    with starting() as start:
        yield start(**nobody_there())


@pytest.fixture
def lonely(storeless: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(storeless)


async def check(sidecar: SidecarClient, client_id: str, path: str = "", **members: Any) -> Reply:
    return await sidecar.call("POST", CHECK + path, json={"clientId": client_id, **members})


async def reset(sidecar: SidecarClient, client_id: str) -> Reply:
    return await sidecar.call("DELETE", f"/api/v2/rate-limit/{client_id}")


async def test_a_check_says_what_is_left_in_members_and_headers(sidecar: SidecarClient) -> None:
    reply = await check(sidecar, "members")

    assert reply.status == 200
    assert reply.body == {
        "allowed": True,
        "limit": 100,
        "remaining": 99,
        "totalHits": 1,
        "resetMs": 900_000,
        "source": "store",
        "degraded": False,
    }
    assert reply.headers["RateLimit-Policy"] == '"default";q=100;w=900'
    assert reply.headers["RateLimit"] == '"default";r=99;t=900'
    assert reply.headers["Plan2-Source"] == "store"
    assert "Retry-After" not in reply.headers
    assert "Plan2-Degraded" not in reply.headers


async def test_a_denial_is_an_answer_unless_it_is_to_be_enforced(sidecar: SidecarClient) -> None:
    members = {"limit": 1, "windowMs": 600_500}
    await check(sidecar, "denied", **members)

    told = await check(sidecar, "denied", **members)
    enforced = await check(sidecar, "denied", "?enforce=1", **members)

    assert told.status == 200
    assert not told.body["allowed"]
    assert told.body["totalHits"] == 2
    assert 590_000 < told.body["retryAfterMs"] <= 600_500
    assert enforced.status == 429
    assert enforced.headers["Content-Type"].startswith("application/problem+json")
    assert enforced.body["code"] == "rate_limited"
    assert enforced.body["retryable"]
    assert set(told.body) <= set(enforced.body)
    assert enforced.body["source"] == "deny_cache"
    for reply in (told, enforced):
        seconds = -(-reply.body["retryAfterMs"] // 1000)
        assert reply.headers["Retry-After"] == str(seconds)
        assert reply.headers["RateLimit"] == f'"default";r=0;t={seconds}'
        assert reply.headers["RateLimit-Policy"] == '"default";q=1;w=601'


async def test_more_than_the_limit_is_not_worth_coming_back_for(sidecar: SidecarClient) -> None:
    reply = await check(sidecar, "greedy", "?enforce=true", limit=5, cost=6)

    assert reply.status == 429
    assert "retryAfterMs" not in reply.body
    assert "Retry-After" not in reply.headers
    assert not reply.body["retryable"]
    assert (await check(sidecar, "greedy", limit=5, cost=5)).body["allowed"]


@pytest.mark.parametrize("algorithm", ["fixed-window", "sliding-window", "gcra"])
async def test_two_sidecars_share_one_limit(
    sidecar: SidecarClient, other: SidecarClient, algorithm: str
) -> None:
    members = {"limit": 40, "windowMs": DAY_MS, "algorithm": algorithm, "exact": True}
    replies = await asyncio.gather(
        *(check(each, f"shared-{algorithm}", **members) for each in [sidecar, other] * 30)
    )
    last = await check(other, f"shared-{algorithm}", **members)

    assert sum(reply.body["allowed"] for reply in replies) == 40
    assert not last.body["allowed"]
    assert last.body["remaining"] == 0
    assert not any(reply.body["degraded"] for reply in replies)


@pytest.mark.parametrize("algorithm", ["fixed-window", "sliding-window", "gcra"])
async def test_a_window_that_is_over_admits_again(sidecar: SidecarClient, algorithm: str) -> None:
    members = {"limit": 2, "windowMs": 300, "algorithm": algorithm}
    first = [await check(sidecar, f"again-{algorithm}", **members) for _ in range(2)]
    await asyncio.sleep(0.35)

    assert all(reply.body["allowed"] for reply in first)
    assert (await check(sidecar, f"again-{algorithm}", **members)).body["allowed"]


async def test_a_reset_client_starts_anew_in_every_sidecar(
    sidecar: SidecarClient, other: SidecarClient
) -> None:
    name, path = "tenant/7 ü", "tenant%2F7%20%C3%BC"
    for algorithm in ("fixed-window", "gcra"):
        await check(sidecar, name, limit=1, algorithm=algorithm)
    assert not (await check(other, name, limit=1)).body["allowed"]

    reply = await reset(sidecar, path)

    assert reply.status == 204
    assert (await check(sidecar, name, limit=1)).body["allowed"]
    assert (await check(sidecar, name, limit=1, algorithm="gcra")).body["allowed"]
    # It is used up again; what the other has to notice is that nobody denies a higher limit.
    await eventually(lambda: _admits(other, name, limit=2))
    assert (await reset(sidecar, "never-seen")).status == 204


async def _admits(sidecar: SidecarClient, name: str, **members: Any) -> bool:
    return bool((await check(sidecar, name, **members)).body["allowed"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"clientId": ""},
        {"clientId": "c" * 513},
        {"clientId": 7},
        {"clientId": "c", "windowMs": 0},
        {"clientId": "c", "windowMs": 40 * DAY_MS},
        {"clientId": "c", "limit": 0},
        {"clientId": "c", "limit": 1.5},
        {"clientId": "c", "cost": -1},
        {"clientId": "c", "algorithm": "leaky-bucket"},
        {"clientId": "c", "onStoreFailure": "panic"},
        {"clientId": "c", "burst": 3},
    ],
    ids=str,
)
async def test_what_is_no_limit_is_refused(lonely: SidecarClient, body: dict[str, Any]) -> None:
    reply = await lonely.call("POST", CHECK, json=body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_what_a_caller_can_get_wrong_besides_is_refused(lonely: SidecarClient) -> None:
    text = {"data": b'{"clientId": "\\ud800"}', "headers": {"Content-Type": "application/json"}}

    assert (await check(lonely, "c", "?enforce=perhaps")).status == 400
    assert (await check(lonely, "c", "?force=1")).status == 400
    assert (await lonely.call("POST", CHECK, **text)).status == 400
    assert (await reset(lonely, "c" * 513)).status == 400
    assert (await reset(lonely, "%ff%fe")).status in (204, 400, 503)
    assert (await lonely.call("GET", CHECK)).status == 405


async def test_without_a_store_the_caller_decides_and_is_told(lonely: SidecarClient) -> None:
    local = [await check(lonely, "c", limit=2) for _ in range(3)]
    opened = [await check(lonely, "c", limit=2, onStoreFailure="open") for _ in range(3)]
    closed = await check(lonely, "c", "?enforce=1", limit=2, onStoreFailure="closed")
    gone = await reset(lonely, "c")

    assert [reply.body["allowed"] for reply in local] == [True, True, False]
    assert all(reply.body["allowed"] for reply in opened)
    assert closed.status == 429
    assert closed.headers["Retry-After"] == "1"
    for reply in [*local, *opened, closed]:
        assert reply.body["source"] == "fallback"
        assert reply.body["degraded"]
        assert reply.headers["Plan2-Degraded"] == "true"
    assert gone.status == 503
    assert gone.body["code"] in ("engine_unavailable", "breaker_open")


async def test_no_store_at_all_is_no_outage(start_sidecar: Start, connect: Connect) -> None:
    sidecar = connect(start_sidecar(POSTGRES_HOST="127.0.0.1", POSTGRES_PORT="1"))

    for reply in (await check(sidecar, "c"), await reset(sidecar, "c")):
        assert (reply.status, reply.body["code"]) == (422, "engine_not_configured")


async def test_a_store_that_is_killed_and_comes_back(
    start_sidecar: Start, connect: Connect
) -> None:
    with run(make_redis()) as store:
        pair = [connect(start_sidecar(**on(store))) for _ in range(2)]
        await asyncio.gather(*(check(sidecar, "warm") for sidecar in pair))
        await eventually(lambda: _beaten(store, since=0.0))
        # Each counts both when it beats again: a share is half of a limit.
        both = time.time()
        await eventually(lambda: _beaten(store, since=both), seconds=60)
        before = await load(pair, "before")

        store.kill()
        during = {
            mode: await load(pair, f"during-{mode}", onStoreFailure=mode)
            for mode in ("local", "open", "closed")
        }
        store.start()
        await eventually(lambda: _healthy(pair), seconds=60)
        after = await load(pair, "after")

    admitted = {mode: sum(r.body["allowed"] for r in replies) for mode, replies in during.items()}
    assert sum(reply.body["allowed"] for reply in before) == 20
    assert admitted == {"local": 20, "open": 80, "closed": 0}
    for replies in during.values():
        assert {(r.body["source"], r.body["degraded"]) for r in replies} == {("fallback", True)}
        assert {r.status for r in replies} == {200}
    assert sum(reply.body["allowed"] for reply in after) == 20
    assert not any(reply.body["degraded"] for reply in [*before, *after])


async def load(pair: list[SidecarClient], client_id: str, **members: Any) -> list[Reply]:
    """Forty calls on each sidecar, at once, of a limit of 20."""
    return await asyncio.gather(
        *(
            check(sidecar, client_id, limit=20, windowMs=DAY_MS, exact=True, **members)
            for sidecar in pair * 40
        )
    )


async def _beaten(store: EngineServer, since: float) -> bool:
    """Whether two sidecars have told the store since then that they are alive."""
    reader, writer = await asyncio.open_connection(store.host, store.port)
    count = f"ZCOUNT p2:sidecars {int(since * 1000)} +inf"
    writer.write(f"AUTH {store.admin_password}\r\n{count}\r\n".encode())
    await reader.readline()
    counted = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return counted == b":2\r\n"


async def _healthy(pair: list[SidecarClient]) -> bool:
    replies = await asyncio.gather(*(check(sidecar, "warm") for sidecar in pair))
    return not any(reply.body["degraded"] for reply in replies)
