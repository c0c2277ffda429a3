"""examples/03-api-gateway: sessions, one limit over two replicas, routes to live services."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web

from fixtures.example_programs import Service, serving
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, SidecarProcess, eventually

LIMIT = 20


@pytest.fixture(scope="module")
def replicas(laptop: SidecarProcess) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serving("03-api-gateway", "server.js", laptop, RATE_LIMIT=str(LIMIT))
            )
            for _ in range(2)
        ]


@pytest.fixture
def gateways(replicas: list[Service], connect: Connect) -> list[SidecarClient]:
    return [connect(replica.url) for replica in replicas]


@pytest.fixture
async def quotes(laptop: SidecarProcess, connect: Connect) -> Any:
    """A service behind the gateway, which says who it was asked by."""

    async def quote(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "user": request.headers["X-User"]})

    app = web.Application()
    app.router.add_get("/{anything:.*}", quote)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    path = "/api/v2/registry/services/quotes/one"
    try:
        heartbeat = await connect(laptop).call("PUT", path, json={"url": address, "ttl": 60})
        assert heartbeat.status == 204
        yield
        await connect(laptop).call("DELETE", path)
    finally:
        await runner.cleanup()


async def login(gateway: SidecarClient, user: str) -> dict[str, str]:
    answer = await gateway.call("POST", "/sessions", json={"user": user})
    assert answer.status == 201, answer.body
    return {"Authorization": f"Bearer {answer.body['token']}"}


async def test_a_session_made_at_one_replica_opens_the_other_and_ends_at_both(
    gateways: list[SidecarClient], quotes: None, unique: str
) -> None:
    first, second = gateways
    session = await login(first, unique)

    answer = await second.get("/quotes/ACME", headers=session)
    ended = await second.call("DELETE", "/sessions", headers=session)
    await forgotten(first, session)

    assert answer.status == 200
    assert answer.body == {"path": "/ACME", "user": unique}
    assert ended.status == 204


async def forgotten(gateway: SidecarClient, session: dict[str, str]) -> None:
    async def refused() -> bool:
        return (await gateway.get("/quotes/ACME", headers=session)).status == 401

    await eventually(refused, every=0.2)


async def test_two_replicas_together_admit_no_more_than_the_limit(
    gateways: list[SidecarClient], quotes: None, unique: str
) -> None:
    session = await login(gateways[0], unique)

    answers: list[Reply] = [
        await gateways[number % 2].get("/quotes/ACME", headers=session)
        for number in range(LIMIT + 10)
    ]

    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == LIMIT
    assert statuses.count(429) == 10
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert "r=0" in answers[-1].headers["RateLimit"]


async def test_a_service_without_a_live_instance_is_503(
    gateways: list[SidecarClient], unique: str
) -> None:
    session = await login(gateways[0], unique)

    answer = await gateways[0].get(f"/nobody-{unique}/x", headers=session)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_what_was_served_can_be_counted_afterwards(
    gateways: list[SidecarClient], laptop: SidecarProcess, connect: Connect, unique: str
) -> None:
    session = await login(gateways[0], unique)
    for _ in range(3):
        await gateways[0].get(f"/nobody-{unique}/x", headers=session)
    sidecar = connect(laptop)

    async def counted() -> bool:
        answer = await sidecar.get("/api/v2/analytics/requests?since=15m&groupBy=path&limit=1000")
        found = [one for one in answer.body["items"] if one["path"] == f"/nobody-{unique}/x"]
        return bool(found) and (found[0]["count"], found[0]["errors"]) == (3, 3)

    await eventually(counted, seconds=30, every=0.5)


async def test_without_a_session_nothing_is_forwarded(gateways: list[SidecarClient]) -> None:
    assert (await gateways[0].get("/quotes/ACME")).status == 401
    assert (await gateways[0].call("POST", "/sessions", data=b"{")).status == 400
