"""Configuration by user and key: versions, conditions, history, and the value in the cache."""

import asyncio
import json
import secrets
from urllib.parse import quote

import pytest
from aiohttp import hdrs

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, SidecarProcess, Start, eventually
from fixtures.fix_sidecar_services import where


@pytest.fixture
def client(services: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(services)


@pytest.fixture
def path() -> str:
    return f"/api/v2/config/u{secrets.token_hex(6)}/theme"


async def put(client: SidecarClient, path: str, value: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await client.call("PUT", path, json={"value": value}, headers=named)


async def history(client: SidecarClient, path: str) -> list[dict[str, object]]:
    reply = await client.get(f"{path}/history")
    assert reply.status == 200, reply
    items: list[dict[str, object]] = reply.body["items"]
    return items


async def test_a_value_is_stored_with_a_version_that_counts(
    client: SidecarClient, path: str
) -> None:
    first = await put(client, path, {"dark": True})
    second = await put(client, path, [1, "ü", None, 2.50])
    found = await client.get(path)

    assert (first.status, first.body, first.headers[hdrs.ETAG]) == (200, {"version": 1}, '"1"')
    assert (second.body, second.headers[hdrs.ETAG]) == ({"version": 2}, '"2"')
    assert (found.status, found.headers[hdrs.ETAG]) == (200, '"2"')
    assert found.body == {"value": [1, "ü", None, 2.5], "version": 2, "source": "postgresql"}
    assert "Plan2-Source" in found.headers
    assert "Plan2-Degraded" not in found.headers


async def test_a_value_that_was_never_stored_is_not_found(client: SidecarClient, path: str) -> None:
    reply = await client.get(path)

    assert (reply.status, reply.body["code"]) == (404, "not_found")


@pytest.mark.parametrize("value", [None, False, 0, "", {}, 12345678901234567890])
async def test_any_json_is_a_value(client: SidecarClient, path: str, value: object) -> None:
    await put(client, path, value)

    assert (await client.get(path)).body["value"] == value


async def test_a_write_on_another_version_than_the_one_meant_changes_nothing(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, 1)

    refused = await put(client, path, 2, If_Match='"7"')
    taken = await put(client, path, 3, If_Match='"9", "1"')

    assert (refused.status, refused.body["code"]) == (412, "version_mismatch")
    assert "the version is 1" in refused.body["detail"]
    assert (taken.status, taken.body) == (200, {"version": 2})
    assert (await client.get(path)).body["value"] == 3


async def test_a_value_can_be_asked_to_be_there_or_not(client: SidecarClient, path: str) -> None:
    missing = await put(client, path, 1, If_Match="*")
    created = await put(client, path, 1, If_None_Match="*")
    again = await put(client, path, 2, If_None_Match="*")
    there = await put(client, path, 3, If_Match="*")

    assert [missing.status, created.status, again.status, there.status] == [412, 200, 412, 200]
    assert [len(await history(client, path)), there.body["version"]] == [2, 2]


@pytest.mark.parametrize(
    "headers",
    [
        {"If_Match": 'W/"1"'},
        {"If_Match": "1"},
        {"If_Match": ""},
        {"If_Match": '"1", x'},
        {"If_None_Match": '"1"'},
        {"If_Match": "*", "If_None_Match": "*"},
    ],
    ids=["weak", "bare", "empty", "half", "tag", "both"],
)
async def test_a_condition_that_cannot_be_meant_is_refused(
    client: SidecarClient, path: str, headers: dict[str, str]
) -> None:
    reply = await put(client, path, 1, **headers)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert (await client.get(path)).status == 404


async def test_of_writers_who_mean_the_same_version_exactly_one_wins(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, "start")

    replies = await asyncio.gather(
        *(put(client, path, number, If_Match='"1"') for number in range(20))
    )

    winners = [number for number, reply in enumerate(replies) if reply.status == 200]
    assert len(winners) == 1
    assert {reply.status for reply in replies} == {200, 412}
    assert (await client.get(path)).body["value"] == winners[0]
    assert len(await history(client, path)) == 2


async def test_of_many_who_create_at_once_exactly_one_does(
    client: SidecarClient, path: str
) -> None:
    replies = await asyncio.gather(
        *(put(client, path, number, If_None_Match="*") for number in range(20))
    )

    assert sorted(reply.status for reply in replies) == [200] + [412] * 19


async def test_what_is_deleted_is_gone_and_its_versions_are_not_given_again(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, 1)
    await client.get(path)

    refused = await client.call("DELETE", path, headers={"If-Match": '"4"'})
    deleted = await client.call("DELETE", path)
    gone = await client.get(path)
    again = await client.call("DELETE", path)
    created = await put(client, path, 2)

    assert [refused.status, deleted.status, gone.status, again.status] == [412, 204, 404, 204]
    assert created.body == {"version": 3}
    assert [item["newValue"] for item in await history(client, path)] == [2, None, 1]


async def test_the_history_says_who_changed_what_newest_first(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, {"a": 1}, Plan2_Actor="ada@example.com")
    await put(client, path, {"a": 2})
    await client.call("POST", f"{path}/changes", json={"oldValue": 1, "newValue": [2]})

    items = await history(client, path)

    assert [item.pop("at") is not None for item in items] == [True] * 3
    assert items == [
        {"version": None, "oldValue": 1, "newValue": [2], "actor": "shop"},
        {"version": 2, "oldValue": {"a": 1}, "newValue": {"a": 2}, "actor": "shop"},
        {"version": 1, "oldValue": None, "newValue": {"a": 1}, "actor": "ada@example.com"},
    ]


async def test_a_long_history_comes_in_pages(client: SidecarClient, path: str) -> None:
    for number in range(5):
        await put(client, path, number)

    first = await client.get(f"{path}/history?limit=2")
    second = await client.get(f"{path}/history?limit=2&cursor={first.body['next']}")
    third = await client.get(f"{path}/history?limit=2&cursor={second.body['next']}")

    pages = [[item["newValue"] for item in page.body["items"]] for page in (first, second, third)]
    assert pages == [[4, 3], [2, 1], [0]]
    assert third.body["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=W10", "page=2"]
)
async def test_a_page_that_cannot_be_is_refused(
    client: SidecarClient, path: str, query: str
) -> None:
    reply = await client.get(f"{path}/history?{query}")

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_a_reported_change_changes_no_value(client: SidecarClient, path: str) -> None:
    await put(client, path, "kept")

    reported = await client.call("POST", f"{path}/changes", json={"newValue": "other"})

    assert reported.status == 202
    assert (await client.get(path)).body == {
        "value": "kept",
        "version": 1,
        "source": "postgresql",
    }


async def test_a_value_in_the_cache_stands_before_the_stored_one_until_that_changes(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, "stored")

    cached = await client.call("PUT", f"{path}/cache", json={"value": "cached", "ttl": 60})
    in_front = await client.get(path)
    stored = await put(client, path, "newer", If_Match='"1"')
    after = await client.get(path)

    assert cached.status == 204
    assert in_front.body == {"value": "cached", "version": None, "source": "cache"}
    assert hdrs.ETAG not in in_front.headers
    assert stored.body == {"version": 2}
    assert after.body == {"value": "newer", "version": 2, "source": "postgresql"}


async def test_a_value_in_the_cache_needs_no_stored_one_and_ends_with_its_ttl(
    client: SidecarClient, path: str
) -> None:
    await client.call("PUT", f"{path}/cache", json={"value": 1, "ttl": 1})

    found = await client.get(path)

    assert found.body == {"value": 1, "version": None, "source": "cache"}

    async def gone() -> bool:
        return (await client.get(path)).status == 404

    await eventually(gone)
    assert await history(client, path) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"value": 1, "extra": 2}', 400),
        (b"{}", 400),
        (b'{"value": "\xff"}', 400),
        (b'{"value": tru}', 400),
    ],
    ids=["unknown", "missing", "not utf-8", "no json"],
)
async def test_a_body_that_is_no_value_is_refused(
    client: SidecarClient, path: str, body: bytes, status: int
) -> None:
    reply = await client.call("PUT", path, data=body, headers={"Content-Type": "application/json"})

    assert reply.status == status


async def test_names_may_hold_anything_but_a_nul_up_to_512_bytes(
    client: SidecarClient, connect: Connect, services: SidecarProcess
) -> None:
    user = quote(f"a/b {secrets.token_hex(4)}ü", safe="")

    stored = await put(client, f"/api/v2/config/{user}/{'k' * 512}", 1)
    other = await client.get(f"/api/v2/config/{user}/other")
    long = await put(client, f"/api/v2/config/{user}/{'k' * 513}", 1)
    nul = await put(client, f"/api/v2/config/{user}/a%00b", 1)

    assert [stored.status, other.status, long.status, nul.status] == [200, 404, 400, 400]
    assert "{key}" in long.body["detail"]
    assert "513" in long.body["detail"]


async def test_other_sidecars_see_a_change_within_a_second(
    client: SidecarClient,
    path: str,
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    dragonflydb: EngineServer,
) -> None:
    other = connect(start_sidecar(**where(postgresql, dragonflydb)))
    await put(client, path, "old")
    assert (await other.get(path)).body["value"] == "old"

    await put(client, path, "new")

    async def seen() -> bool:
        return bool((await other.get(path)).body["value"] == "new")

    await eventually(seen, seconds=5)


async def test_every_change_is_in_clickhouse_once_with_who_made_it(
    client: SidecarClient, path: str
) -> None:
    await put(client, path, {"a": 1}, Plan2_Actor="ada")
    await put(client, path, None)
    user, key = path.split("/")[-2:]

    async def copied() -> bool:
        return len(await changes(client, user)) == 2

    await eventually(copied, seconds=20, every=0.3)
    assert await changes(client, user) == [
        {"key": key, "version": 1, "old_value": None, "new_value": {"a": 1}, "actor": "ada"},
        {"key": key, "version": 2, "old_value": {"a": 1}, "new_value": None, "actor": "shop"},
    ]


async def changes(client: SidecarClient, user: str) -> list[dict[str, object]]:
    reply = await client.query(
        "SELECT key, version, old_value, new_value, actor FROM plan2_config_changes FINAL "
        "WHERE user_id = {user:String} ORDER BY id",
        "clickhouse",
        params={"user": user},
    )
    if reply.status != 200:
        return []
    return [
        {
            name: json.loads(value) if name.endswith("_value") and value else value
            for name, value in row.items()
        }
        for row in reply.body["data"]
    ]


async def test_other_sidecars_see_a_value_in_the_cache_come_and_go(
    client: SidecarClient,
    path: str,
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    dragonflydb: EngineServer,
) -> None:
    other = connect(start_sidecar(**where(postgresql, dragonflydb)))
    await put(client, path, "stored")

    async def seen(value: str) -> bool:
        return bool((await other.get(path)).body["value"] == value)

    await eventually(lambda: seen("stored"), seconds=5)
    await client.call("PUT", f"{path}/cache", json={"value": "cached"})
    await eventually(lambda: seen("cached"), seconds=5)
    await put(client, path, "newer")
    await eventually(lambda: seen("newer"), seconds=5)
