"""/api/v2/cache over HTTP: two sidecars, the store, the legacy Redis."""

import re
import secrets
from collections.abc import Iterator

import pytest

from fixtures.engine_server import EngineServer
from fixtures.fix_engines import make_redis, run
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, SidecarProcess, starting
from fixtures.fix_sidecar_services import where


@pytest.fixture(scope="module")
def sidecars(
    postgresql: EngineServer, dragonflydb: EngineServer, redis_legacy: EngineServer
) -> Iterator[list[SidecarProcess]]:
    with starting() as start:
        variables = where(postgresql, dragonflydb, redis_legacy)
        yield [start(**variables), start(**variables)]


@pytest.fixture
def one(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[0])


@pytest.fixture
def other(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[1])


@pytest.fixture
def path() -> str:
    return f"/api/v2/cache/k{secrets.token_hex(6)}"


async def put(client: SidecarClient, path: str, **body: object) -> Reply:
    return await client.call("PUT", path, json=body)


async def name_in_store(client: SidecarClient, key: str) -> str:
    """What the store calls it, in the epoch to which outages have brought the store."""
    epochs = await client.query("SELECT epoch::int4 AS n FROM plan2.store_epoch", "postgresql")
    number = next((row["n"] for row in epochs.body["data"]), 0)
    return f"p2@{number}:c:{key}" if number else f"p2:c:{key}"


async def test_a_value_is_kept_read_and_forgotten(
    one: SidecarClient, other: SidecarClient, path: str
) -> None:
    kept = await put(one, path, value={"a": [1, "ü", None]}, ttl=60)
    found = await other.get(path)
    gone = await other.call("DELETE", path)
    again = await other.call("DELETE", path)
    missing = await one.get(path)

    assert (kept.status, kept.headers["Plan2-Source"]) == (204, "dragonflydb")
    assert (found.status, found.headers["Plan2-Source"]) == (200, "dragonflydb")
    assert found.body in ({"value": {"a": [1, "ü", None]}, "ttl": ttl} for ttl in (59, 60))
    assert "Plan2-Degraded" not in found.headers
    assert (gone.status, again.status) == (204, 204)
    assert (missing.status, missing.body["code"]) == (404, "not_found")


async def test_the_second_read_is_the_sidecars_own(one: SidecarClient, path: str) -> None:
    await put(one, path, value=1)
    await one.get(path)

    found = await one.get(path)

    assert (found.body, found.headers["Plan2-Source"]) == ({"value": 1, "ttl": None}, "l1")


async def test_a_value_is_passed_through_as_it_was_written(one: SidecarClient, path: str) -> None:
    text = '{"z": 1.10, "a": 12345678901234567890.000,  "z": "\\u00fc"}'
    await one.call(
        "PUT",
        path,
        data=f'{{"value": {text}}}',
        headers={"Content-Type": "application/json"},
    )
    name = await name_in_store(one, path.rpartition("/")[2])
    raw = await one.query(["GET", name], "dragonflydb")
    session = await one.get(path)

    assert raw.body["data"] == text
    assert session.status == 200


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "value"),
        ({"value": 1, "ttl": 0}, "ttl"),
        ({"value": 1, "ttl": 31_536_001}, "ttl"),
        ({"value": 1, "ttl": 1.5}, "ttl"),
        ({"value": 1, "ttl": "60"}, "ttl"),
        ({"value": 1, "more": 1}, "more"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(
    one: SidecarClient, path: str, body: dict[str, object], names: str
) -> None:
    reply = await put(one, path, **body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert names in reply.body["detail"]


async def test_a_key_may_hold_anything_that_is_percent_encoded(
    one: SidecarClient, path: str
) -> None:
    key = "%2F%3F%23%20%25%C3%BC%3A"
    await put(one, f"{path}{key}", value="x", ttl=31_536_000)

    found = await one.get(f"{path}{key}")
    name = await name_in_store(one, path.rpartition("/")[2] + "/?# %ü:")
    raw = await one.query(["GET", name], "dragonflydb")

    assert found.body == {"value": "x", "ttl": 31_536_000}
    assert raw.body["data"] == '"x"'


async def test_a_key_has_at_most_512_bytes(one: SidecarClient) -> None:
    longest = "/api/v2/cache/" + secrets.token_hex(256)

    assert (await put(one, longest, value=1, ttl=1)).status == 204
    refused = await put(one, longest + "x", value=1, ttl=1)
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")
    assert "{key}" in refused.body["detail"]


async def test_a_namespace_stands_before_the_key(
    one: SidecarClient, other: SidecarClient, path: str
) -> None:
    name = path.rpartition("/")[2]
    headers = {"Plan2-Namespace": "shop"}
    await one.call("PUT", path, json={"value": 1}, headers=headers)

    assert (await one.get(path)).status == 404
    assert (await other.get(path, headers=headers)).body["value"] == 1
    assert (await other.get(f"/api/v2/cache/shop:{name}")).body["value"] == 1
    refused = await one.get(path, headers={"Plan2-Namespace": "a b"})
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")


async def test_what_others_wrote_and_is_no_json_comes_as_a_string(
    one: SidecarClient, path: str
) -> None:
    name = await name_in_store(one, path.rpartition("/")[2])
    await one.query(["SET", name, 'plain "text"'], "dragonflydb")
    assert (await one.get(path)).body["value"] == 'plain "text"'

    await one.query(["SET", name, {"$base64": "/w=="}], "dragonflydb")
    assert (await one.get(path)).body["value"] == {"$base64": "/w=="}


async def test_a_sidecar_keeps_no_more_bytes_than_it_may(
    dragonflydb: EngineServer, connect: Connect, path: str
) -> None:
    with starting() as start:
        sidecar = start(**where(dragonflydb), PLAN2_CACHE_MAX_BYTES="1000000")
        client = connect(sidecar)
        for number in range(40):
            await put(client, f"{path}{number}", value="x" * 100_000, ttl=60)
            await client.get(f"{path}{number}")
        metrics = await connect(sidecar.metrics_url).get("/metrics")

    found = re.search(r"^plan2_sidecar_cache_bytes (\S+)$", metrics.body, re.M)
    assert found is not None
    assert 500_000 < float(found[1]) <= 1_000_000


async def test_without_a_store_there_is_no_cache(
    redis_legacy: EngineServer, connect: Connect, path: str
) -> None:
    with starting() as start:
        none = connect(start())
        legacy = connect(start(**where(redis_legacy)))
        name = path.rpartition("/")[2]
        await legacy.query(["SET", name, '"old"'], "redis")

        for reply in (
            await put(none, path, value=1),
            await none.get(path),
            await none.call("DELETE", path),
            await put(legacy, path, value=1),
        ):
            assert (reply.status, reply.body["code"]) == (422, "engine_not_configured")
        found = await legacy.get(path)
        assert (found.status, found.body["value"]) == (200, "old")
        assert found.headers["Plan2-Source"] == "redis"


async def test_while_the_store_is_away_answers_say_so(
    postgresql: EngineServer, redis_legacy: EngineServer, connect: Connect, path: str
) -> None:
    with run(make_redis()) as store, starting() as start:
        variables = where(postgresql, redis_legacy)
        variables |= {
            "DRAGONFLY_HOST": store.host,
            "DRAGONFLY_PORT": str(store.port),
            "DRAGONFLY_PASSWORD": store.admin_password,
        }
        client = connect(start(**variables))
        name = path.rpartition("/")[2]
        await client.query(["SET", name, '"legacy"'], "redis")
        await put(client, path, value="old")
        store.stop()

        read = await client.get(path)
        kept = await put(client, path, value="new")
        found = await client.get(path)
        gone = await client.call("DELETE", path)
        missing = await client.get(path)

        assert (read.body["value"], read.headers["Plan2-Source"]) == ("legacy", "redis")
        assert (kept.status, kept.headers["Plan2-Source"]) == (204, "l1")
        assert (found.body["value"], found.headers["Plan2-Source"]) == ("new", "l1")
        assert (gone.status, missing.status) == (204, 404)
        for reply in (read, kept, found, gone, missing):
            assert reply.headers["Plan2-Degraded"] == "true"
            assert reply.headers["Plan2-Fallback-From"] == "dragonflydb"
        store.start()
