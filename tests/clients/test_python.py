"""Both Python clients against a fake sidecar: what is sent, how answers and failures read."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

import plan2_client
from fixtures.fake_sidecar import META, ROWS, Asked, Fake, faking, lines, problem, says
from fixtures.fix_clients import MakeClient
from fixtures.fix_sidecar import eventually
from plan2_client import (
    Client,
    Meta,
    Plan2Error,
    QueryResult,
    StreamEnd,
)

NOBODY = "http://127.0.0.1:1"
RESULT = QueryResult(data=[{"id": 1}], row_count=1, meta=Meta("postgresql", "target", took_us=9))


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    async with faking(says(ROWS)) as running:
        yield running


async def test_a_query_is_sent_as_the_api_takes_it(make_client: MakeClient, fake: Fake) -> None:
    client = make_client(url=fake.url, token="secret")

    result = await client(
        lambda c: c.query(
            "SELECT $1",
            params=[42],
            target_database="postgresql",
            read_only=True,
            cache_ttl_ms=50,
            max_rows=5,
            timeout_ms=1200,
        )
    )

    assert result == RESULT
    [asked] = fake.asked
    assert asked.line == "POST /api/v2/query"
    assert asked.body == {
        "query": "SELECT $1",
        "params": [42],
        "targetDatabase": "postgresql",
        "options": {"readOnly": True, "cache": {"ttlMs": 50}, "maxRows": 5},
    }
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.headers["X-Deadline-Ms"] == "1200"
    assert asked.headers["Content-Type"] == "application/json"


async def test_a_call_without_a_deadline_of_its_own_has_five_seconds(
    make_client: MakeClient, fake: Fake
) -> None:
    await make_client(url=fake.url)(lambda c: c.query("SELECT 1"))

    assert fake.asked[0].headers["X-Deadline-Ms"] == "5000"
    assert fake.asked[0].body == {"query": "SELECT 1"}
    assert "Authorization" not in fake.asked[0].headers


async def test_calls_one_after_another_share_a_connection(
    make_client: MakeClient, fake: Fake
) -> None:
    client = make_client(url=fake.url)

    for _ in range(5):
        await client(lambda c: c.query("SELECT 1"))

    assert len(fake.connections) == 1


async def test_a_connection_that_the_sidecar_closed_meanwhile_is_not_used(
    make_client: MakeClient, fake: Fake
) -> None:
    client = make_client(url=fake.url)
    await client(lambda c: c.query("SELECT 1"))

    for connection in fake.connections:
        connection.close()
    await asyncio.sleep(0.05)
    await client(lambda c: c.query("INSERT"))

    assert len(fake.asked) == 2


async def test_the_socket_of_the_environment_goes_before_its_url(
    make_client: MakeClient, tmp_path: Path
) -> None:
    path = tmp_path / "api.sock"
    async with faking(says(ROWS), socket=path) as fake:
        client = make_client(environ={"PLAN2_SOCKET": str(path), "PLAN2_URL": NOBODY})

        await client(lambda c: c.query("SELECT 1"))

        assert fake.asked[0].headers["Host"] == "localhost"
        await client.close()


async def test_the_url_is_taken_while_nothing_is_at_the_socket(
    make_client: MakeClient, fake: Fake
) -> None:
    client = make_client(environ={"PLAN2_SOCKET": "/nowhere/api.sock", "PLAN2_URL": fake.url})

    assert await client(lambda c: c.query("SELECT 1")) == RESULT


@pytest.mark.parametrize("url", ["https://127.0.0.1", "http://", "127.0.0.1:7420", "http://a/api"])
def test_a_url_of_no_use_is_refused_at_once(make_client: MakeClient, url: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        make_client(url=url)


async def test_a_token_that_rotated_is_read_again_and_the_call_sent_once_more(
    make_client: MakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    valid = "old"

    async def guarded(asked: Asked) -> web.StreamResponse:
        fits = asked.headers["Authorization"] == f"Bearer {valid}"
        return await (says(ROWS) if fits else problem(401, "unauthorized"))(asked)

    async with faking(guarded) as fake:
        client = make_client(url=fake.url, environ={"PLAN2_API_TOKEN_FILE": str(file)})
        await client(lambda c: c.query("SELECT 1"))
        valid = "new"
        file.write_text("\nnew\nold\n")

        await client(lambda c: c.query("SELECT 2"))

        sent = [asked.headers["Authorization"] for asked in fake.asked]
        assert sent == ["Bearer old", "Bearer old", "Bearer new"]
        valid = "other"
        with pytest.raises(plan2_client.Unauthorized):
            await client(lambda c: c.query("SELECT 3"))
        assert len(fake.asked) == 4


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        pytest.param(status, code, kind, id=f"{status}-{code}")
        for status, code, kind in [
            (422, "ambiguous_route", plan2_client.AmbiguousRoute),
            (409, "conflict", plan2_client.Conflict),
            (412, "version_mismatch", plan2_client.VersionMismatch),
            (429, "rate_limited", plan2_client.RateLimited),
            (503, "engine_unavailable", plan2_client.EngineUnavailable),
            (504, "deadline_exceeded", plan2_client.DeadlineExceeded),
            (424, "something_new", plan2_client.OperationFailed),
            (503, "something_new", plan2_client.Unavailable),
            (418, "something_new", plan2_client.InvalidRequest),
            (599, "something_new", Plan2Error),
        ]
    ],
)
async def test_a_problem_is_an_error_of_its_class(
    make_client: MakeClient, status: int, code: str, kind: type[Plan2Error]
) -> None:
    members = {
        "database": "postgresql",
        "retryable": True,
        "retryAfterMs": 70,
        "engineCode": "40001",
    }
    async with faking(problem(status, code, **members)) as fake:
        with pytest.raises(Plan2Error) as refusal:
            await make_client(url=fake.url)(lambda c: c.query("SELECT 1"))

        error = refusal.value
        assert type(error) is kind
        assert str(error) == f"{code} on postgresql: said {code}"
        assert (error.status, error.code, error.retryable) == (status, code, True)
        assert (error.retry_after_ms, error.engine_code) == (70, "40001")
        assert len(fake.asked) == 1


async def test_an_error_that_is_not_json_is_still_an_error(make_client: MakeClient) -> None:
    async with faking(says("Bad Gateway", 502)) as fake:
        with pytest.raises(Plan2Error, match="Bad Gateway") as refusal:
            await make_client(url=fake.url)(lambda c: c.query("SELECT 1"))

    assert refusal.value.status == 502


async def test_nobody_listening_is_told_apart_from_an_answer_that_broke_off(
    make_client: MakeClient,
) -> None:
    async def hang_up(asked: Asked) -> web.StreamResponse:
        assert asked.request.transport is not None
        asked.request.transport.abort()
        return web.Response()

    with pytest.raises(plan2_client.SidecarUnreachable) as nobody:
        await make_client(url=NOBODY)(lambda c: c.query("SELECT 1"))
    async with faking(hang_up) as fake:
        with pytest.raises(plan2_client.ConnectionLost) as write:
            await make_client(url=fake.url)(lambda c: c.query("INSERT"))
        assert len(fake.asked) == 1
        with pytest.raises(plan2_client.ConnectionLost) as read:
            await make_client(url=fake.url)(lambda c: c.health())

    assert [nobody.value.retryable, write.value.retryable, read.value.retryable] == [
        True,
        False,
        True,
    ]


async def test_a_socket_that_is_not_there_is_unreachable(
    make_client: MakeClient, tmp_path: Path
) -> None:
    with pytest.raises(plan2_client.SidecarUnreachable):
        await make_client(socket=str(tmp_path / "none.sock"))(lambda c: c.query("SELECT 1"))


async def never(_: Asked) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def test_an_answer_that_does_not_come_in_time_is_deadline_exceeded(
    make_client: MakeClient,
) -> None:
    async with faking(never) as fake:
        with pytest.raises(plan2_client.DeadlineExceeded) as late:
            await make_client(url=fake.url)(lambda c: c.query("SELECT 1", timeout_ms=50))

    assert late.value.status == 0


async def test_an_answer_that_comes_drop_by_drop_has_the_same_deadline(
    make_client: MakeClient,
) -> None:
    async def drip(asked: Asked) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked.request)
        for _ in range(600):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    async with faking(drip) as fake:
        with pytest.raises(plan2_client.DeadlineExceeded):
            await asyncio.wait_for(
                make_client(url=fake.url)(lambda c: c.query("SELECT 1", timeout_ms=50)), timeout=20
            )


@pytest.mark.parametrize("timeout_ms", [0, -1, 60_001])
async def test_a_deadline_out_of_range_is_refused_before_anything_is_sent(
    make_client: MakeClient, fake: Fake, timeout_ms: int
) -> None:
    with pytest.raises(ValueError, match="timeout_ms"):
        await make_client(url=fake.url)(lambda c: c.query("SELECT 1", timeout_ms=timeout_ms))

    assert fake.asked == []


async def is_true(value: object) -> bool:
    return bool(value)


async def test_a_task_that_is_cancelled_hangs_up() -> None:
    async with faking(never, says(ROWS)) as fake, Client(fake.url, environ={}) as client:
        call = asyncio.create_task(client.query("SELECT pg_sleep(9)"))
        await eventually(lambda: is_true(fake.asked))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: is_true(fake.cancelled))

        assert (await client.query("SELECT 1")) == RESULT


async def test_many_calls_at_once_are_answered(make_client: MakeClient, fake: Fake) -> None:
    client = make_client(url=fake.url)

    results = await asyncio.gather(*(client(lambda c: c.query("SELECT 1")) for _ in range(50)))

    assert results == [RESULT] * 50


async def test_values_of_python_travel_as_text_and_digits_are_kept(make_client: MakeClient) -> None:
    answer = '{"data": [9007199254740993, 12345678901234567.89], "rowCount": 1, "meta": {}}'
    async with faking(says(answer)) as fake:
        params = [
            Decimal("12345678901234567.89"),
            datetime(2026, 11, 23, tzinfo=UTC),
            UUID(int=1),
            2**63,
        ]

        exact = await make_client(url=fake.url, parse_float=Decimal)(
            lambda c: c.query("SELECT", params=params)
        )
        floats = await make_client(url=fake.url)(lambda c: c.query("SELECT"))

        assert fake.asked[0].body["params"] == [
            "12345678901234567.89",
            "2026-11-23T00:00:00+00:00",
            "00000000-0000-0000-0000-000000000001",
            2**63,
        ]
        assert exact.data == [9007199254740993, Decimal("12345678901234567.89")]
        assert floats.data == [9007199254740993, 12345678901234567.89]
        with pytest.raises(TypeError):
            await make_client(url=fake.url)(lambda c: c.query("SELECT", params=[object()]))


async def test_a_stream_gives_its_rows_and_then_how_it_ended(make_client: MakeClient) -> None:
    body = '{"name":"é"}\n{"$end":1}\n' + json.dumps({"$end": {"rowCount": 2, "meta": META}})

    async def in_pieces(asked: Asked) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked.request)
        whole = body.encode()
        for at in range(0, len(whole), 7):
            await response.write(whole[at : at + 7])
            await asyncio.sleep(0)
        return response

    async with faking(in_pieces) as fake:
        rows, end = await make_client(url=fake.url).rows(lambda c: c.stream("SELECT 1"))

        assert rows == [{"name": "é"}, {"$end": 1}]
        assert end == StreamEnd(row_count=2, meta=RESULT.meta)
        assert fake.asked[0].headers["Accept"] == "application/x-ndjson"
        assert fake.asked[0].headers["X-Deadline-Ms"] == "60000"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(
            lines({"id": 1}, {"$error": {"status": 503, "code": "engine_unavailable"}}),
            plan2_client.EngineUnavailable,
            id="$error",
        ),
        pytest.param(lines({"id": 1}), plan2_client.StreamCut, id="no-last-line"),
        pytest.param(says(""), plan2_client.StreamCut, id="nothing"),
        pytest.param(says('{"id": 1}\n{"id"'), plan2_client.StreamCut, id="half-a-row"),
        pytest.param(says('{"id"\n{}'), plan2_client.StreamCut, id="no-json"),
        pytest.param(problem(422, "query_rejected"), plan2_client.QueryRejected, id="refused"),
    ],
)
async def test_a_stream_that_does_not_end_well_is_an_error(
    make_client: MakeClient, answer: Any, kind: type[Plan2Error]
) -> None:
    async with faking(answer) as fake:
        with pytest.raises(kind):
            await make_client(url=fake.url).rows(lambda c: c.stream("SELECT 1"))


async def test_a_connection_that_breaks_within_a_stream_is_stream_cut(
    make_client: MakeClient,
) -> None:
    async def break_off(asked: Asked) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked.request)
        await response.write(b'{"id":1}\n')
        assert asked.request.transport is not None
        asked.request.transport.close()
        return response

    async with faking(break_off) as fake:
        with pytest.raises(plan2_client.StreamCut):
            await make_client(url=fake.url).rows(lambda c: c.stream("SELECT 1"))


async def test_leaving_a_stream_early_hangs_up_and_the_client_goes_on(
    make_client: MakeClient,
) -> None:
    async def endless(asked: Asked) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked.request)
        while True:
            await response.write(b'{"id":1}\n' * 1000)

    async with faking(endless, says(ROWS)) as fake:
        client = make_client(url=fake.url)

        rows, end = await client.rows(lambda c: c.stream("SELECT 1"), most=3)

        assert (rows, end) == ([{"id": 1}] * 3, None)
        assert await client(lambda c: c.query("SELECT 1")) == RESULT


def test_the_standard_library_is_enough_for_the_synchronous_client() -> None:
    script = """
import plan2_client
plan2_client.SyncClient(environ={}).close()
try:
    plan2_client.Client(environ={})
except ImportError as error:
    assert "plan2-client[async]" in str(error), error
else:
    raise SystemExit("aiohttp was there")
"""
    # -S: no site-packages, so neither aiohttp nor this project's other packages.
    subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(Path(plan2_client.__file__).parents[1])},
        check=True,
    )
