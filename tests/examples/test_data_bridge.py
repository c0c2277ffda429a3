"""examples/04-data-bridge: carts move from the legacy Redis while the shop is open."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from fixtures.example_programs import Service, run, serving
from fixtures.fix_engines import EngineServer, make_dragonflydb
from fixtures.fix_engines import run as running
from fixtures.fix_sidecar import (
    Connect,
    SidecarClient,
    SidecarProcess,
    eventually,
    starting,
)

NAME = "04-data-bridge"


@pytest.fixture(scope="module")
def dragonfly() -> Iterator[EngineServer]:
    """One that may be stopped without anybody else noticing."""
    with running(make_dragonflydb()) as server:
        yield server


@pytest.fixture(scope="module")
def sidecar(dragonfly: EngineServer, redis_legacy: EngineServer) -> Iterator[SidecarProcess]:
    with starting() as start:
        yield start(
            DRAGONFLY_HOST=dragonfly.host,
            DRAGONFLY_PORT=str(dragonfly.port),
            DRAGONFLY_PASSWORD=dragonfly.admin_password,
            REDIS_HOST=redis_legacy.host,
            REDIS_PORT=str(redis_legacy.port),
            REDIS_PASSWORD=redis_legacy.admin_password,
        )


@pytest.fixture(scope="module")
def service(sidecar: SidecarProcess) -> Iterator[Service]:
    with serving(NAME, "service.py", sidecar) as started:
        yield started


@pytest.fixture
def carts(service: Service, connect: Connect) -> SidecarClient:
    return connect(service.url)


@pytest.fixture
async def stores(sidecar: SidecarProcess, connect: Connect) -> AsyncIterator[SidecarClient]:
    """Both, by their own commands; empty of carts before and after."""
    client = connect(sidecar)
    await empty(client)
    yield client
    await empty(client)


async def empty(client: SidecarClient) -> None:
    for store in ("redis", "dragonflydb"):
        for key in (await client.query(["KEYS", "cart:*"], store)).body["data"]:
            await client.query(["DEL", key], store)


async def legacy(stores: SidecarClient, user: str, items: list[str], *more: object) -> None:
    answer = await stores.query(["SET", f"cart:{user}", json.dumps(items), *more], "redis")
    assert answer.status == 200


async def test_a_cart_that_has_not_moved_is_read_where_it_is_and_brought_over(
    carts: SidecarClient, stores: SidecarClient
) -> None:
    await legacy(stores, "ada", ["book"], "EX", 600)

    first, second = await carts.get("/carts/ada"), await carts.get("/carts/ada")

    left = (await stores.query(["PTTL", "cart:ada"], "dragonflydb")).body["data"]
    assert (first.body, first.headers["X-Source"]) == (["book"], "redis")
    assert (second.body, second.headers["X-Source"]) == (["book"], "dragonflydb")
    assert 300_000 < left <= 600_000


async def test_what_was_written_or_deleted_here_never_comes_back_from_there(
    carts: SidecarClient, stores: SidecarClient, sidecar: SidecarProcess
) -> None:
    await legacy(stores, "ada", ["old"])
    await legacy(stores, "bob", ["old"])
    assert (await carts.call("PUT", "/carts/ada", json=["new"])).status == 204
    assert (await carts.call("DELETE", "/carts/bob")).status == 204

    done = await asyncio.to_thread(run, NAME, "bridge.py", "--match", "cart:*", sidecar=sidecar)

    assert done.returncode == 0, done.stderr
    assert (await carts.get("/carts/ada")).body == ["new"]
    assert (await carts.get("/carts/bob")).status == 404


async def test_the_job_copies_every_type_with_its_time_and_may_be_run_again(
    stores: SidecarClient, sidecar: SidecarProcess
) -> None:
    await legacy(stores, "text", ["a"], "EX", 600)
    await stores.query(["HSET", "cart:hash", "book", 1, "pen", 2], "redis")
    await stores.query(["ZADD", "cart:set", 1.5, "book"], "redis")
    await stores.query(["SET", "cart:bytes", {"$base64": "/wD+"}], "redis")
    await stores.query(["SET", "elsewhere", "x"], "redis")

    first = await asyncio.to_thread(run, NAME, "bridge.py", "--match", "cart:*", sidecar=sidecar)
    again = await asyncio.to_thread(run, NAME, "bridge.py", "--match", "cart:*", sidecar=sidecar)

    assert first.stdout.split() == ["4", "copied"], first.stderr
    assert again.stdout.split() == ["4", "already", "there"], again.stderr
    copied = {
        "text": (["GET", "cart:text"], '["a"]'),
        "hash": (["HGET", "cart:hash", "pen"], "2"),
        "set": (["ZRANGE", "cart:set", 0, -1], ["book"]),
        "bytes": (["GET", "cart:bytes"], {"$base64": "/wD+"}),
        "elsewhere": (["EXISTS", "elsewhere"], 0),
    }
    for command, expected in copied.values():
        assert (await stores.query(command, "dragonflydb")).body["data"] == expected
    left = (await stores.query(["TTL", "cart:text"], "dragonflydb")).body["data"]
    assert 300 < left <= 600


async def test_while_dragonfly_is_away_carts_are_read_where_they_were_and_not_changed(
    carts: SidecarClient, stores: SidecarClient, dragonfly: EngineServer
) -> None:
    await legacy(stores, "ada", ["book"])
    dragonfly.stop()
    try:
        read = await carts.get("/carts/ada")
        written = await carts.call("PUT", "/carts/ada", json=["pen"])
    finally:
        dragonfly.start()

    async def writable() -> bool:
        return (await carts.call("PUT", "/carts/ada", json=["pen"])).status == 204

    assert (read.status, read.body, read.headers["X-Source"]) == (200, ["book"], "redis")
    assert written.status == 503
    assert written.headers["Retry-After"] == "1"
    await eventually(writable, seconds=60, every=0.5)


async def test_a_body_that_is_no_json_is_refused(carts: SidecarClient) -> None:
    assert (await carts.call("PUT", "/carts/ada", data=b"{")).status == 400
