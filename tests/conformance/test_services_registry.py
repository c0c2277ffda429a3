"""The registry: who is alive, where routes lead, and what is said while the store is away."""

import asyncio
import secrets
from typing import Any

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

SERVICES = "/api/v2/registry/services"
ROUTES = "/api/v2/registry/routes"


@pytest.fixture
def client(services: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(services)


@pytest.fixture
def name() -> str:
    return f"s{secrets.token_hex(6)}"


async def beat(client: SidecarClient, name: str, instance: str, **members: Any) -> Reply:
    body = {"url": f"http://{instance}:80", **members}
    return await client.call("PUT", f"{SERVICES}/{name}/{instance}", json=body)


async def alive(client: SidecarClient, name: str) -> list[str]:
    reply = await client.get(f"{SERVICES}/{name}")
    assert reply.status in (200, 404), reply
    found = [] if reply.status == 404 else reply.body["instances"]
    return [instance["instance"] for instance in found]


async def test_instances_that_beat_are_listed(client: SidecarClient, name: str) -> None:
    first = await beat(client, name, "b", metadata={"zone": "ü", "weight": 2.50})
    await beat(client, name, "a", ttl=60)
    await beat(client, name, "a", ttl=60)

    reply = await client.get(f"{SERVICES}/{name}")

    assert (first.status, first.body) == (204, "")
    assert [one.pop("ttl") for one in reply.body["instances"]] == [60, 30]
    assert reply.body == {
        "name": name,
        "instances": [
            {"instance": "a", "url": "http://a:80", "metadata": {}},
            {"instance": "b", "url": "http://b:80", "metadata": {"zone": "ü", "weight": 2.5}},
        ],
    }
    assert "Plan2-Degraded" not in reply.headers


async def test_a_service_without_instances_is_not_found(client: SidecarClient, name: str) -> None:
    reply = await client.get(f"{SERVICES}/{name}")

    assert (reply.status, reply.body["code"]) == (404, "not_found")


async def test_an_instance_that_stops_beating_disappears_and_the_others_stay(
    client: SidecarClient, name: str
) -> None:
    await beat(client, name, "stays", ttl=60)
    await beat(client, name, "goes", ttl=1)
    assert await alive(client, name) == ["goes", "stays"]

    async def gone() -> bool:
        return await alive(client, name) == ["stays"]

    await eventually(gone, seconds=10)


async def test_an_instance_that_says_good_bye_is_gone_at_once(
    client: SidecarClient, name: str
) -> None:
    await beat(client, name, "a")
    await beat(client, name, "b")

    gone = await client.call("DELETE", f"{SERVICES}/{name}/a")
    again = await client.call("DELETE", f"{SERVICES}/{name}/a")

    assert [gone.status, again.status] == [204, 204]
    assert await alive(client, name) == ["b"]


async def test_services_are_listed_in_pages(client: SidecarClient) -> None:
    mark = secrets.token_hex(4)
    names = [f"list-{mark}-{number}" for number in range(5)]
    await asyncio.gather(*(beat(client, name, "one") for name in names))
    seen: list[str] = []
    cursor = ""

    while True:
        reply = await client.get(f"{SERVICES}?limit=2{cursor}")
        assert len(reply.body["items"]) <= 2
        assert all(item["instances"] for item in reply.body["items"])
        seen += [item["name"] for item in reply.body["items"]]
        if reply.body["next"] is None:
            break
        cursor = f"&cursor={reply.body['next']}"

    assert seen == sorted(set(seen))
    assert [name for name in seen if mark in name] == names


async def test_a_route_leads_somewhere_until_its_ttl_is_over(
    client: SidecarClient, name: str
) -> None:
    path = f"{ROUTES}/{name}%2Forders"

    missing = await client.get(path)
    put = await client.call("PUT", path, json={"target": {"service": "shop", "port": 80}})
    found = await client.get(path)
    replaced = await client.call("PUT", path, json={"target": "http://shop", "ttl": 1})
    short = await client.get(path)

    assert [missing.status, put.status, replaced.status] == [404, 204, 204]
    assert found.body == {"target": {"service": "shop", "port": 80}, "ttl": 30}
    assert short.body == {"target": "http://shop", "ttl": 1}

    async def gone() -> bool:
        return (await client.get(path)).status == 404

    await eventually(gone)


async def test_a_route_can_be_taken_back(client: SidecarClient, name: str) -> None:
    path = f"{ROUTES}/{name}"
    await client.call("PUT", path, json={"target": 1})
    await client.get(path)

    deleted = await client.call("DELETE", path)

    assert deleted.status == 204
    assert (await client.get(path)).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "x", "ttl": 0},
        {"url": "x", "metadata": []},
        {"url": "x", "other": 1},
    ],
    ids=["nothing", "no url", "ttl", "metadata", "unknown"],
)
async def test_a_heartbeat_that_says_nothing_is_refused(
    client: SidecarClient, name: str, body: dict[str, Any]
) -> None:
    reply = await client.call("PUT", f"{SERVICES}/{name}/a", json=body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_other_sidecars_see_a_change(
    client: SidecarClient,
    name: str,
    start_sidecar: Start,
    connect: Connect,
    dragonflydb: EngineServer,
    postgresql: EngineServer,
) -> None:
    other = connect(start_sidecar(**where(dragonflydb, postgresql)))
    await beat(client, name, "a")
    assert await alive(other, name) == ["a"]

    await beat(client, name, "b")

    async def both() -> bool:
        return await alive(other, name) == ["a", "b"]

    await eventually(both, seconds=5)


async def test_while_the_store_is_away_heartbeats_hold_and_it_is_said(
    name: str,
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    own_store: EngineServer,
) -> None:
    one, other = (connect(start_sidecar(**where(postgresql, own_store))) for _ in range(2))
    for instance in ("beats", "leaves", "silent"):
        await beat(one, name, instance, ttl=3 if instance == "silent" else 60)
    assert await alive(one, name) == await alive(other, name) == ["beats", "leaves", "silent"]
    own_store.stop()

    noted = await beat(other, name, "beats", ttl=60)
    await beat(other, name, "new", ttl=60)
    left = await other.call("DELETE", f"{SERVICES}/{name}/leaves")

    async def notes_are_read() -> bool:
        # What others noted is read again after half a second.
        return "new" in await alive(one, name)

    await eventually(notes_are_read)
    told = await one.get(f"{SERVICES}/{name}")

    assert [noted.status, left.status] == [204, 204]
    assert noted.headers["Plan2-Degraded"] == "true"
    assert told.headers["Plan2-Source"] == "postgresql"
    assert told.headers["Plan2-Fallback-From"] == "dragonflydb"
    found = [instance["instance"] for instance in told.body["instances"]]
    assert [each for each in found if each != "silent"] == ["beats", "new"]

    async def silent_is_gone() -> bool:
        return await alive(one, name) == ["beats", "new"]

    await eventually(silent_is_gone)
    # Back with what it had on disk: "leaves" among it.
    own_store.start()

    async def well() -> bool:
        return "Plan2-Degraded" not in (await other.get(f"{SERVICES}/{name}")).headers

    await eventually(well, seconds=20)
    assert await alive(other, name) == ["beats", "new"]
    await beat(one, name, "beats", ttl=60)
    assert await alive(one, name) == ["beats", "new"]


async def test_without_store_and_postgresql_a_sidecar_tells_what_it_remembers(
    name: str, start_sidecar: Start, connect: Connect, own_store: EngineServer
) -> None:
    client = connect(start_sidecar(**where(own_store)))
    await beat(client, name, "a", ttl=1)
    assert await alive(client, name) == ["a"]
    own_store.stop()
    await asyncio.sleep(1.1)

    stale = await client.get(f"{SERVICES}/{name}")
    unknown = await client.get(f"{SERVICES}/{name}x")
    refused = await beat(client, name, "a")

    assert [one["instance"] for one in stale.body["instances"]] == ["a"]
    assert stale.headers["Plan2-Source"] == "l1"
    assert stale.headers["Plan2-Degraded"] == "true"
    assert [unknown.status, refused.status] == [503, 503]


async def test_with_both_away_it_is_503(name: str, start_sidecar: Start, connect: Connect) -> None:
    client = connect(start_sidecar(**nobody_there()))

    replies = [
        await beat(client, name, "a"),
        await client.get(f"{SERVICES}/{name}"),
        await client.get(SERVICES),
        await client.call("DELETE", f"{SERVICES}/{name}/a"),
        await client.get(f"{ROUTES}/{name}"),
    ]

    assert [reply.status for reply in replies] == [503] * 5


async def test_with_postgresql_alone_the_registry_is_kept_there(
    name: str, start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    client = connect(start_sidecar(**where(postgresql)))
    missing = await client.get(f"{SERVICES}/{name}")

    await beat(client, name, "a")
    found = await client.get(f"{SERVICES}/{name}")
    await client.call("DELETE", f"{SERVICES}/{name}/a")

    assert missing.status == 404
    assert [one["instance"] for one in found.body["instances"]] == ["a"]
    assert found.headers["Plan2-Source"] == "postgresql"
    assert "Plan2-Degraded" not in found.headers
    assert await alive(client, name) == []
