"""Sessions: kept, read, ended; and what becomes of them while an engine is away."""

import asyncio
import secrets
from urllib.parse import quote

import pytest

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import (
    Connect,
    Reply,
    SidecarClient,
    SidecarProcess,
    Start,
    eventually,
    nobody_there,
)
from fixtures.fix_sidecar_services import where


@pytest.fixture
def client(services: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(services)


@pytest.fixture
def path() -> str:
    return f"/api/v2/sessions/{secrets.token_hex(8)}"


async def put(client: SidecarClient, path: str, data: object, **members: object) -> Reply:
    return await client.call("PUT", path, json={"data": data, **members})


async def delete(client: SidecarClient, path: str) -> Reply:
    return await client.call("DELETE", path)


def provenance(reply: Reply) -> tuple[str | None, str | None, str | None]:
    names = ("Plan2-Source", "Plan2-Degraded", "Plan2-Fallback-From")
    source, degraded, fallback = (reply.headers.get(name) for name in names)
    return source, degraded, fallback


@pytest.mark.parametrize("durable", [True, False])
async def test_a_session_is_read_as_it_was_written(
    client: SidecarClient, path: str, durable: bool
) -> None:
    data = {"user": "ü", "roles": [1, 2.50, None], "big": 12345678901234567890}

    kept = await put(client, path, data, durable=durable)
    first = await client.get(path)
    second = await client.get(path)

    assert (kept.status, kept.body) == (204, "")
    identity = path.rpartition("/")[2]
    for found in (first, second):
        assert found.status == 200
        assert found.body.pop("ttl") in (3599, 3600)
        assert found.body == {"id": identity, "data": data}
        assert "Plan2-Degraded" not in found.headers
    assert provenance(second)[0] in ("dragonflydb", "l1")


@pytest.mark.parametrize("durable", [True, False])
async def test_a_session_is_replaced_and_ended(
    client: SidecarClient, path: str, durable: bool
) -> None:
    await put(client, path, 1, durable=durable)
    await client.get(path)
    await put(client, path, 2, durable=durable)

    replaced = await client.get(path)
    ended = await delete(client, path)
    gone = await client.get(path)
    again = await delete(client, path)

    assert replaced.body["data"] == 2
    assert [ended.status, gone.status, again.status] == [204, 404, 204]
    assert gone.body["code"] == "not_found"


@pytest.mark.parametrize("durable", [True, False])
async def test_a_session_ends_with_its_ttl_and_reading_does_not_extend_it(
    client: SidecarClient, path: str, durable: bool
) -> None:
    await put(client, path, 1, ttl=1, durable=durable)

    found = await client.get(path)

    assert (found.status, found.body["ttl"]) == (200, 1)

    async def gone() -> bool:
        return (await client.get(path)).status == 404

    await eventually(gone)


async def test_a_session_that_was_durable_does_not_come_back_once_it_is_not(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, "durable")
    await put(client, path, "volatile", durable=False)

    rows = await client.query(
        "SELECT count(*) AS n FROM plan2.session WHERE id = $1",
        "postgresql",
        params=[path.rpartition("/")[2]],
    )

    assert (await client.get(path)).body["data"] == "volatile"
    assert rows.body["data"] == [{"n": 0}]


async def test_a_session_that_becomes_durable_is_in_postgresql(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, "volatile", durable=False)
    await put(client, path, "durable")

    rows = await client.query(
        "SELECT data FROM plan2.session WHERE id = $1",
        "postgresql",
        params=[path.rpartition("/")[2]],
    )

    assert (await client.get(path)).body["data"] == "durable"
    assert rows.body["data"] == [{"data": '"durable"'}]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": 1, "ttl": 0},
        {"data": 1, "ttl": 31536001},
        {"data": 1, "ttl": 1.5},
        {"data": 1, "ttl": None},
        {"data": 1, "durable": "yes"},
        {"data": 1, "extra": 2},
    ],
    ids=["no data", "ttl 0", "ttl too long", "fraction", "null", "durable", "unknown"],
)
async def test_a_session_that_cannot_be_kept_so_is_refused(
    client: SidecarClient, path: str, body: dict[str, object]
) -> None:
    reply = await client.call("PUT", path, json=body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_an_id_may_hold_a_slash_and_has_at_most_512_bytes(client: SidecarClient) -> None:
    slash = f"/api/v2/sessions/{quote(f'a/b:{secrets.token_hex(4)}', safe='')}"

    kept = await put(client, slash, 1)
    found = await client.get(slash)
    percent = await client.get(slash.replace("%2F", "%252F"))
    long = await put(client, f"/api/v2/sessions/{'x' * 513}", 1)

    assert percent.status == 404
    assert [kept.status, found.status, long.status] == [204, 200, 400]
    assert found.body["id"].startswith("a/b:")
    assert "{id}" in long.body["detail"]


async def test_other_sidecars_see_what_one_wrote_and_ended(
    client: SidecarClient,
    path: str,
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    dragonflydb: EngineServer,
) -> None:
    other = connect(start_sidecar(**where(postgresql, dragonflydb)))
    await put(client, path, "old")
    assert (await other.get(path)).body["data"] == "old"

    await put(client, path, "new")

    async def new() -> bool:
        return bool((await other.get(path)).body.get("data") == "new")

    await eventually(new, seconds=5)
    await delete(client, path)

    async def gone() -> bool:
        return (await other.get(path)).status == 404

    await eventually(gone, seconds=5)


async def test_writers_at_once_leave_the_store_with_what_postgresql_has(
    client: SidecarClient,
    path: str,
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    dragonflydb: EngineServer,
) -> None:
    other = connect(start_sidecar(**where(postgresql, dragonflydb)))

    for each in range(10):
        writers = [put(client, path, f"a{each}"), put(other, path, f"b{each}")]
        await asyncio.gather(*writers, client.get(path), other.get(path))

    rows = await client.query(
        "SELECT data::json AS data FROM plan2.session WHERE id = $1",
        "postgresql",
        params=[path.rpartition("/")[2]],
    )

    async def agree() -> bool:
        replies = [await client.get(path), await other.get(path)]
        return {reply.body["data"] for reply in replies} == {rows.body["data"][0]["data"]}

    await eventually(agree, seconds=5)


async def test_a_store_that_is_lost_and_back_loses_and_revives_no_durable_session(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer, own_store: EngineServer
) -> None:
    client = connect(start_sidecar(**where(postgresql, own_store)))
    kept, ended, changed = (f"/api/v2/sessions/{secrets.token_hex(8)}" for _ in range(3))
    for path in (kept, ended, changed):
        assert (await put(client, path, "before")).status == 204
        assert (await client.get(path)).status == 200
    own_store.stop()

    while_away = await client.get(kept)
    deletion = await delete(client, ended)
    change = await put(client, changed, "meanwhile")
    away = [await client.get(path) for path in (kept, ended, changed)]

    assert while_away.status == 200
    assert provenance(while_away) == ("postgresql", "true", "dragonflydb")
    assert (deletion.status, provenance(deletion)[:2]) == (204, ("postgresql", "true"))
    assert (change.status, provenance(change)[:2]) == (204, ("postgresql", "true"))
    assert [reply.status for reply in away] == [200, 404, 200]
    assert [away[0].body["data"], away[2].body["data"]] == ["before", "meanwhile"]

    # It comes back with what it had on disk: all three sessions, as they were.
    own_store.start()

    async def well() -> bool:
        return "Plan2-Degraded" not in (await client.get(kept)).headers

    await eventually(well, seconds=20)
    back = [await client.get(path) for path in (kept, ended, changed)]
    assert [reply.status for reply in back] == [200, 404, 200]
    assert [back[0].body["data"], back[2].body["data"]] == ["before", "meanwhile"]


async def test_without_the_store_a_session_that_is_not_durable_is_not_acknowledged(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer, path: str
) -> None:
    dead = {name: text for name, text in nobody_there().items() if name.startswith("DRAGONFLY")}
    client = connect(start_sidecar(**where(postgresql), **dead))

    refused = await put(client, path, 1, durable=False)
    found = await client.get(path)

    assert (refused.status, refused.body["code"]) == (503, "engine_unavailable")
    assert found.status == 404


async def test_without_postgresql_what_the_store_has_is_read_and_nothing_is_acknowledged(
    start_sidecar: Start,
    connect: Connect,
    own_postgresql: EngineServer,
    dragonflydb: EngineServer,
    path: str,
) -> None:
    client = connect(start_sidecar(**where(own_postgresql, dragonflydb)))
    volatile = f"{path}v"
    await put(client, path, "durable")
    await put(client, volatile, "volatile", durable=False)
    assert (await client.get(path)).status == 200
    own_postgresql.stop()

    found = await client.get(path)
    unknown = await client.get(f"{path}x")
    replaced = await put(client, path, "newer")
    ended = await delete(client, path)
    other = await put(client, volatile, "again", durable=False)
    fresh = await put(client, f"{path}f", "fresh", durable=False)
    forgotten = await delete(client, volatile)

    assert (found.status, found.body["data"]) == (200, "durable")
    assert [unknown.status, replaced.status, ended.status] == [503, 503, 503]
    assert [other.status, fresh.status, forgotten.status] == [204, 204, 204]
    own_postgresql.start()

    async def well() -> bool:
        return (await client.get(path)).status == 200

    await eventually(well, seconds=20)
    assert (await client.get(path)).body["data"] == "durable"


async def test_with_both_away_it_is_503(start_sidecar: Start, connect: Connect, path: str) -> None:
    client = connect(start_sidecar(**nobody_there()))

    replies = [
        await put(client, path, 1),
        await put(client, path, 1, durable=False),
        await client.get(path),
        await delete(client, path),
    ]

    assert [reply.status for reply in replies] == [503] * 4
    assert all(reply.headers["Retry-After"] for reply in replies)


async def test_with_postgresql_alone_durable_sessions_work(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer, path: str
) -> None:
    client = connect(start_sidecar(**where(postgresql)))

    kept = await put(client, path, 1)
    volatile = await put(client, path, 1, durable=False)
    found = await client.get(path)
    ended = await delete(client, path)

    assert [kept.status, volatile.status, found.status, ended.status] == [204, 422, 200, 204]
    assert provenance(found) == ("postgresql", None, None)
    assert volatile.body["code"] == "engine_not_configured"
    assert (await client.get(path)).status == 404


async def test_with_the_store_alone_sessions_that_are_not_durable_work(
    start_sidecar: Start, connect: Connect, dragonflydb: EngineServer, path: str
) -> None:
    client = connect(start_sidecar(**where(dragonflydb)))

    durable = await put(client, path, 1)
    kept = await put(client, path, 2, durable=False)
    found = await client.get(path)
    ended = await delete(client, path)

    assert [durable.status, kept.status, found.status, ended.status] == [422, 204, 200, 204]
    assert (await client.get(path)).status == 404


async def test_callers_in_too_much_of_a_hurry_leave_no_broken_connection_behind(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer, path: str
) -> None:
    client = connect(start_sidecar(**where(postgresql)))
    hurried = {"X-Deadline-Ms": "1"}

    for _ in range(20):
        await asyncio.gather(
            *(
                client.call("PUT", f"{path}{number}", json={"data": 1}, headers=hurried)
                for number in range(20)
            )
        )

    async def all_is_well() -> bool:
        replies = await asyncio.gather(*(put(client, f"{path}{n}", 2) for n in range(20)))
        told = {reply.body["code"] for reply in replies if reply.status != 204}
        # Connections that are being made whole again are not free yet.
        assert told <= {"bulkhead_full"}, told
        return not told

    await eventually(all_is_well)
