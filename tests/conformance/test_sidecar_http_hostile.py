"""What a hostile or careless caller sends: each gets its own clear 4xx, and no secret."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.fix_sidecar import (
    Connect,
    SidecarClient,
    SidecarProcess,
    Start,
    nobody_there,
    starting,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[SidecarProcess]:
    """One for all, since no call reaches an engine."""
    with starting() as start:
        yield start(**nobody_there())


@pytest.fixture
def door(shared: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(shared)


async def raw(sidecar: SidecarClient, request: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the problem that answer bytes no client library would send."""
    url = urlsplit(sidecar.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(request)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        assert "Content-Type: application/problem+json" in head
        length = int(re.search(r"Content-Length: (\d+)", head)[1])  # type: ignore[index]  # or fail
        return int(head.split()[1]), json.loads(await reader.readexactly(length))
    finally:
        writer.close()


async def test_one_foreign_origin_among_several_is_enough_to_refuse(door: SidecarClient) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"

    status, body = await raw(door, head + b"Origin: http://evil.example.com\r\n\r\n")

    assert (status, body["code"]) == (403, "cross_origin")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Host: \xff", 421),
        (b"Host: localhost\r\nOrigin: http://\xff", 403),
        (b"Host: localhost\r\nContent-Type: \xff/x", 415),
        (b"Host: localhost\r\nContent-Type: application/json\r\nAccept: \xff", 406),
    ],
    ids=["host", "origin", "content-type", "accept"],
)
async def test_a_header_that_is_not_utf_8_is_refused_like_any_other_wrong_one(
    door: SidecarClient, header: bytes, status: int
) -> None:
    head = b"POST /api/v2/query HTTP/1.1\r\n" + header + b"\r\nContent-Length: 2\r\n\r\n{}"

    answered, body = await raw(door, head)

    assert (answered, body["status"]) == (status, status)


@pytest.mark.parametrize(
    "head",
    [
        b"garbage\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v2/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["method", "header", "long", "length", "chunk"],
)
async def test_what_is_no_http_is_told_so_as_a_problem(door: SidecarClient, head: bytes) -> None:
    status, body = await raw(door, head)

    assert (status, body["code"]) == (400, "invalid_request")
    assert "\n" not in body["detail"]


async def test_a_body_that_is_not_compressed_as_it_says_is_the_callers_mistake(
    door: SidecarClient,
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    reply = await door.call("POST", "/api/v2/query", data=b"{}", headers=headers)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("APPLICATION/JSON", 400),
        ("text/html, application/json;q=0.5", 400),
        ("", 400),
        ("application/json-seq", 406),
        ("text/html", 406),
    ],
)
async def test_the_form_of_answer_is_told_by_media_type_alone(
    door: SidecarClient, accept: str, status: int
) -> None:
    reply = await door.call("POST", "/api/v2/query", json={}, headers={"Accept": accept})

    assert reply.status == status


@pytest.mark.parametrize(
    "query",
    [
        {"collection": "c", "filter": {"$oid": "507f1f77bcf86cd799439011"}},
        {"collection": "c", "sort": {"$oid": "507f1f77bcf86cd799439011"}},
        {"collection": "c", "filter": {"a": {"$numberDecimal": "x"}}},
        {"collection": "c", "sort": {"a": True}},
    ],
    ids=["filter", "sort", "decimal", "direction"],
)
async def test_values_that_mongodb_has_no_form_for_are_the_callers_mistake(
    door: SidecarClient, query: dict[str, object]
) -> None:
    reply = await door.query(query, "mongodb")

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert reply.body["database"] == "mongodb"


async def test_values_nested_too_deeply_for_an_engine_are_the_callers_mistake(
    door: SidecarClient,
) -> None:
    deep: object = 1
    for _ in range(480):
        deep = {"a": deep}
    reply = await door.query("SELECT {a:String}", "clickhouse", params={"a": deep})

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("rows", [0, -1, 1.5, 10**9 + 1, 10**30])
async def test_a_number_of_rows_that_no_engine_can_count_to_is_refused(
    door: SidecarClient, rows: float
) -> None:
    reply = await door.query("SELECT 1", "postgresql", options={"maxRows": rows})

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert "maxRows" in reply.body["detail"]


async def test_an_address_that_cannot_be_read_never_shows_its_password(
    start_sidecar: Start, connect: Connect
) -> None:
    for url in ("mongodb://app:geh/eim@db/", "mongodb://app:geheim@db:port/"):
        process = start_sidecar(MONGODB_URL=url)
        client = connect(process)
        reply = await client.query({"collection": "c", "filter": {}}, "mongodb")
        health = await client.get("/api/v2/health/all")

        assert (reply.status, reply.body["code"]) == (503, "engine_unavailable")
        assert reply.body["database"] == "mongodb"
        assert "eim" not in f"{reply.body}{health.body}{process.log.read_text()}"
