"""`options.cache` on MongoDB and ArangoDB: answers end with the writes that make them old."""

import secrets
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from fixtures.engine_server import EngineServer
from fixtures.fix_all_engines import variables
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, eventually, starting


@pytest.fixture(scope="module")
def sidecars(
    dragonflydb: EngineServer, mongodb: EngineServer, arangodb: EngineServer
) -> Iterator[list[SidecarProcess]]:
    with starting() as start:
        servers = (dragonflydb, mongodb, arangodb)
        found = {name: value for each in servers for name, value in variables(each).items()}
        yield [start(**found), start(**found)]


@pytest.fixture
def one(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[0])


@pytest.fixture
def other(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[1])


async def answer(client: SidecarClient, query: Any, target: str) -> tuple[Any, str]:
    reply = await client.query(query, target, options={"cache": {"ttlMs": 60_000}})
    assert reply.status == 200, reply
    return reply.body["data"], reply.body["meta"]["cache"]


async def done(client: SidecarClient, query: Any, target: str) -> None:
    reply = await client.query(query, target)
    assert reply.status == 200, reply


async def test_a_collections_answers_end_with_its_writes(
    one: SidecarClient, other: SidecarClient
) -> None:
    mine, theirs = (f"c{secrets.token_hex(4)}" for _ in range(2))
    find = {"collection": mine, "filter": {}, "projection": {"_id": 0}}
    for name in (mine, theirs):
        await done(one, {"collection": name, "documents": [{"n": 1}]}, "mongodb")
    await answer(one, find, "mongodb")
    assert await answer(other, find, "mongodb") == ([{"n": 1}], "hit")

    change = {"filter": {}, "update": {"$set": {"n": 2}}, "many": True}
    await done(one, {"collection": theirs, **change}, "mongodb")
    assert await answer(one, find, "mongodb") == ([{"n": 1}], "hit")
    await done(one, {"collection": mine, **change}, "mongodb")

    assert (await answer(one, find, "mongodb"))[0] == [{"n": 2}]

    async def seen() -> bool:
        return (await answer(other, find, "mongodb"))[0] == [{"n": 2}]

    await eventually(seen, seconds=0.5, every=0.01)


async def test_arangodbs_answers_end_with_any_write(
    one: SidecarClient, other: SidecarClient, arangodb: EngineServer
) -> None:
    read = 'FOR d IN things FILTER d._key == "a" RETURN d.n'
    await _made(arangodb, "things")
    await done(one, 'INSERT {_key: "a", n: 1} INTO things', "arangodb")
    await answer(one, read, "arangodb")
    assert await answer(other, read, "arangodb") == ([1], "hit")

    await done(one, 'UPDATE "a" WITH {n: 2} IN things', "arangodb")

    assert (await answer(one, read, "arangodb"))[0] == [2]

    async def seen() -> bool:
        return (await answer(other, read, "arangodb"))[0] == [2]

    await eventually(seen, seconds=0.5, every=0.01)


async def _made(server: EngineServer, collection: str) -> None:
    login = aiohttp.encode_basic_auth(server.admin_user, server.admin_password)
    async with aiohttp.ClientSession(headers={"Authorization": login}) as session:
        await session.post(f"{server.url}/_api/collection", json={"name": collection})
