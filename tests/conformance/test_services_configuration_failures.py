"""Configuration while an engine is away: what is said, what waits, what is never lost."""

import asyncio
import json
import secrets
from typing import Any

import pytest

from fixtures.fix_engines import (
    EngineServer,
)
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, Start, eventually
from fixtures.fix_sidecar_services import where


@pytest.fixture
def path() -> str:
    return f"/api/v2/config/u{secrets.token_hex(6)}/theme"


async def put(client: SidecarClient, path: str, value: object) -> Reply:
    return await client.call("PUT", path, json={"value": value})


async def copied(client: SidecarClient, path: str) -> list[Any]:
    """The new values that ClickHouse has of a key, each copy by itself, oldest first."""
    reply = await client.query(
        "SELECT new_value FROM plan2_config_changes WHERE user_id = {user:String} ORDER BY id",
        "clickhouse",
        params={"user": path.split("/")[-2]},
    )
    if reply.status != 200:
        return []
    return [json.loads(row["new_value"]) for row in reply.body["data"]]


async def test_changes_wait_in_postgresql_while_clickhouse_is_away(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    own_clickhouse: EngineServer,
    path: str,
) -> None:
    own_clickhouse.stop()
    client = connect(start_sidecar(**where(postgresql, own_clickhouse)))

    stored = [await put(client, path, number) for number in range(5)]
    items = (await client.get(f"{path}/history")).body["items"]

    assert {reply.status for reply in stored} == {200}
    assert [item["newValue"] for item in items] == [4, 3, 2, 1, 0]
    own_clickhouse.start()

    async def all_there() -> bool:
        return await copied(client, path) == [0, 1, 2, 3, 4]

    await eventually(all_there, seconds=60, every=0.5)


async def test_changes_of_a_sidecar_that_was_killed_are_copied_by_another(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    clickhouse: EngineServer,
    path: str,
) -> None:
    killed = start_sidecar(**where(postgresql))
    assert (await put(connect(killed), path, "orphan")).status == 200
    killed.process.kill()
    killed.process.wait()
    client = connect(start_sidecar(**where(postgresql, clickhouse)))

    # Its own change makes it look, and what it then finds it copies too.
    await put(client, path, "own")

    async def both_there() -> bool:
        return await copied(client, path) == ["orphan", "own"]

    await eventually(both_there, seconds=20, every=0.3)


async def test_without_postgresql_a_copy_is_read_and_said_to_be_one_and_nothing_is_written(
    start_sidecar: Start,
    connect: Connect,
    own_postgresql: EngineServer,
    dragonflydb: EngineServer,
    path: str,
) -> None:
    client = connect(start_sidecar(**where(own_postgresql, dragonflydb)))
    await put(client, path, "stored")
    assert (await client.get(path)).status == 200
    own_postgresql.stop()

    found = await client.get(path)
    other = await client.get(f"{path}x")
    refused = await put(client, path, "newer")
    listed = await client.get(f"{path}/history")

    assert (found.status, found.body["value"]) == (200, "stored")
    assert found.headers["Plan2-Source"] in ("l1", "dragonflydb")
    assert [other.status, refused.status, listed.status] == [503, 503, 503]
    own_postgresql.start()

    async def well() -> bool:
        return (await put(client, path, "newer")).status == 200

    await eventually(well, seconds=20)
    assert (await client.get(path)).body["value"] == "newer"


async def test_a_store_that_was_away_never_brings_an_old_value_back(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    own_store: EngineServer,
    path: str,
) -> None:
    one, other = (connect(start_sidecar(**where(postgresql, own_store))) for _ in range(2))
    in_front, deleted = f"{path}front", f"{path}deleted"
    for each in (path, in_front, deleted):
        await put(one, each, "old")
        assert (await other.get(each)).body["value"] == "old"
    await one.call("PUT", f"{in_front}/cache", json={"value": "cached"})
    own_store.stop()

    changed = await put(one, path, "new")
    uncovered = await put(one, in_front, "new")
    removed = await one.call("DELETE", deleted)
    told = await other.get(path)

    assert [changed.status, uncovered.status, removed.status] == [200, 200, 204]
    assert changed.headers["Plan2-Degraded"] == "true"
    assert told.headers["Plan2-Degraded"] == "true"
    assert told.headers["Plan2-Fallback-From"] == "dragonflydb"

    async def new_everywhere() -> bool:
        replies = [await client.get(each) for client in (one, other) for each in (path, in_front)]
        return [reply.body.get("value") for reply in replies] == ["new"] * 4

    await eventually(new_everywhere, seconds=5)
    # Back with what it had on disk.
    own_store.start()

    async def well() -> bool:
        replies = [await client.get(path) for client in (one, other)]
        assert [reply.body["value"] for reply in replies] == ["new", "new"]
        return not any("Plan2-Degraded" in reply.headers for reply in replies)

    await eventually(well, seconds=20)
    assert await new_everywhere()
    assert [(await client.get(deleted)).status for client in (one, other)] == [404, 404]


async def test_a_caller_who_goes_away_leaves_no_old_copy_behind(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    dragonflydb: EngineServer,
    path: str,
) -> None:
    one, other = (connect(start_sidecar(**where(postgresql, dragonflydb))) for _ in range(2))
    await put(one, path, 0)

    for number in range(1, 15):
        await other.get(path)
        writing = asyncio.create_task(put(one, path, number))
        await asyncio.sleep(number / 2500)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    async def stored() -> Any:
        query = "SELECT value FROM plan2.config WHERE user_id = $1"
        reply = await one.query(query, "postgresql", params=[path.split("/")[-2]])
        return reply.body["data"][0]["value"]

    async def agree() -> bool:
        return bool((await other.get(path)).body["value"] == await stored())

    await eventually(agree, seconds=5)
    assert (await one.get(path)).body["value"] == await stored()
