"""What services tell of their requests: taken at once, written soon, summed up."""

import datetime
import json
import secrets
import time
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

PATH = "/api/v2/analytics/requests"
DROPPED = "plan2_sidecar_analytics_dropped_total"


@pytest.fixture
def client(services: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(services)


def told(path: str, **members: Any) -> dict[str, Any]:
    return {"method": "GET", "path": path, "status": 200, "durationMs": 5, **members}


async def tell(client: SidecarClient, body: Any) -> Reply:
    return await client.call("POST", PATH, json=body)


async def summary(client: SidecarClient, group: str, query: str = "") -> dict[str, dict[str, Any]]:
    reply = await client.get(f"{PATH}?groupBy={group}&limit=1000{query}")
    assert reply.status == 200, reply
    return {item[group]: item for item in reply.body["items"]}


async def rows(client: SidecarClient, path: str) -> list[dict[str, Any]]:
    reply = await client.query(
        "SELECT * FROM plan2_api_requests WHERE path = {path:String} ORDER BY status",
        "clickhouse",
        params={"path": path},
    )
    return list(reply.body["data"]) if reply.status == 200 else []


async def test_requests_are_summed_up_by_path(client: SidecarClient) -> None:
    path = f"/orders/{secrets.token_hex(4)}"
    requests = [told(path, durationMs=ms) for ms in range(1, 99)]
    requests += [told(path, status=404, durationMs=500), told(path, status=503, durationMs=900)]

    one = await tell(client, told(f"{path}/one"))
    many = await tell(client, requests)
    found = await summary(client, "path")

    assert (one.status, one.body, many.status, many.body) == (
        202,
        {"accepted": 1},
        202,
        {"accepted": 100},
    )
    assert found[f"{path}/one"]["count"] == 1
    item = found[path]
    assert list(item) == ["path", "count", "errors", "p50Ms", "p99Ms"]
    assert (item["count"], item["errors"]) == (100, 2)
    assert 45 <= item["p50Ms"] <= 55
    assert 98 <= item["p99Ms"] <= 900


@pytest.mark.parametrize(
    ("group", "members"),
    [
        ("method", {"method": "PURGE"}),
        ("status", {"status": 418}),
        ("clientId", {"clientId": "somebody-else"}),
    ],
)
async def test_requests_are_summed_up_by_what_is_asked_for(
    client: SidecarClient, group: str, members: dict[str, Any]
) -> None:
    await tell(client, told("/grouped", **members))

    found = await summary(client, group)

    assert found[members[group]]["count"] >= 1


async def test_a_request_without_duration_or_client_is_taken(client: SidecarClient) -> None:
    path = f"/bare/{secrets.token_hex(4)}"

    await tell(client, {"method": "GET", "path": path, "status": 200})

    item = (await summary(client, "path"))[path]
    assert (item["count"], item["p50Ms"], item["p99Ms"]) == (1, None, None)


async def test_other_members_are_kept_as_json(client: SidecarClient) -> None:
    path = f"/extra/{secrets.token_hex(4)}"
    extra = {"service": "gateway", "nested": {"ü": [1, None]}, "big": 12345678901234567890}

    await tell(client, told(path, clientId="c1", **extra))

    async def written() -> bool:
        return len(await rows(client, path)) == 1

    await eventually(written, seconds=10)
    [row] = await rows(client, path)
    assert json.loads(row.pop("extra")) == extra
    assert row.pop("at")
    assert row == {
        "method": "GET",
        "path": path,
        "status": 200,
        "duration_ms": 5,
        "client_id": "c1",
    }


async def test_only_what_came_since_the_moment_asked_for_is_counted(client: SidecarClient) -> None:
    path = f"/old/{secrets.token_hex(4)}"
    await tell(client, told(path))
    await summary(client, "path")
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=20)
    await client.query(
        "INSERT INTO plan2_api_requests SELECT {at:DateTime64(3)}, 'GET', {path:String}, 200, "
        "1.5, NULL, '{{}}'".replace("{{}}", "{}"),
        "clickhouse",
        params={"at": old.strftime("%Y-%m-%d %H:%M:%S"), "path": path},
    )
    long_ago = (old - datetime.timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    assert (await summary(client, "path"))[path]["count"] == 1
    assert (await summary(client, "path", "&since=30m"))[path]["count"] == 2
    assert (await summary(client, "path", f"&since={long_ago}"))[path]["count"] == 2


async def test_a_long_summary_comes_in_pages(client: SidecarClient) -> None:
    mark = secrets.token_hex(4)
    await tell(client, [told(f"/page/{mark}/{number}") for number in range(30)])
    seen: list[str] = []
    cursor = ""

    while True:
        reply = await client.get(f"{PATH}?limit=7{cursor}")
        assert len(reply.body["items"]) <= 7
        seen += [item["path"] for item in reply.body["items"]]
        if reply.body["next"] is None:
            break
        cursor = f"&cursor={reply.body['next']}"

    assert len(seen) == len(set(seen))
    assert len([path for path in seen if path.startswith(f"/page/{mark}/")]) == 30


@pytest.mark.parametrize(
    "query",
    [
        "since=x",
        "since=0m",
        "since=15",
        "since=2026-01-01",
        "since=2026-01-01T00:00:00",
        "groupBy=extra",
        "limit=0",
        "cursor=x",
        "until=now",
    ],
)
async def test_a_summary_that_cannot_be_is_refused(client: SidecarClient, query: str) -> None:
    reply = await client.get(f"{PATH}?{query}")

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        {},
        "x",
        {"method": "GET", "path": "/", "status": "200"},
        told("/", status=99),
        told("/", durationMs=-1),
        [told("/"), {"method": "GET"}],
    ],
    ids=["nothing", "text", "status as text", "status 99", "negative", "one of two"],
)
async def test_what_tells_of_no_request_is_refused(client: SidecarClient, body: Any) -> None:
    reply = await tell(client, body)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_requests_wait_while_clickhouse_is_away(
    start_sidecar: Start, connect: Connect, own_clickhouse: EngineServer
) -> None:
    client = connect(start_sidecar(**where(own_clickhouse)))
    path = f"/waits/{secrets.token_hex(4)}"
    await tell(client, told(path))
    await summary(client, "path")
    own_clickhouse.stop()

    replies = [await tell(client, told(path)) for _ in range(50)]
    down = await client.get(PATH)

    assert {reply.status for reply in replies} == {202}
    assert (down.status, down.body["code"]) in [
        (503, "engine_unavailable"),
        (503, "breaker_open"),
    ]
    own_clickhouse.start()

    async def written() -> bool:
        return len(await rows(client, path)) == 51

    await eventually(written, seconds=60, every=0.5)


async def test_a_clean_stop_loses_nothing(
    start_sidecar: Start, connect: Connect, clickhouse: EngineServer, client: SidecarClient
) -> None:
    stopping = start_sidecar(**where(clickhouse))
    path = f"/stop/{secrets.token_hex(4)}"

    await tell(connect(stopping), [told(path) for _ in range(2500)])
    code = stopping.stop()

    assert code == 0
    assert len(await rows(client, path)) == 2500


async def test_of_too_many_the_oldest_are_dropped_and_counted(
    start_sidecar: Start, connect: Connect
) -> None:
    sidecar = start_sidecar(**nobody_there())
    client = connect(sidecar)

    full = await tell(client, [told("/") for _ in range(10_000)])
    over = await tell(client, [told("/") for _ in range(7)])
    metrics = connect(sidecar.metrics_url)

    async def counted() -> bool:
        return f"{DROPPED} 7.0" in (await metrics.get("/metrics")).body

    assert [full.status, over.status] == [202, 202]
    # Those that are being written just now come back first.
    await eventually(counted)


async def test_a_stop_without_clickhouse_ends_in_time(
    start_sidecar: Start, connect: Connect
) -> None:
    sidecar = start_sidecar(**nobody_there())
    await tell(connect(sidecar), told("/"))
    started = time.monotonic()

    code = sidecar.stop()

    assert code == 0
    assert time.monotonic() - started < 25
    assert "1 requests were not written" in sidecar.log.read_text()


async def test_without_clickhouse_configured_it_is_422(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    client = connect(start_sidecar(**where(postgresql)))

    replies = [await tell(client, told("/")), await client.get(PATH)]

    assert [reply.status for reply in replies] == [422, 422]
    assert {reply.body["code"] for reply in replies} == {"engine_not_configured"}
