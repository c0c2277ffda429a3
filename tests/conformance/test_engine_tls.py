"""TLS to the engines: the given authority is trusted, nobody else, and the host name counts."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from conformance.engine_cases import POSTGRESQL, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from fixtures.tls_certificates import self_signed
from plan2_contract.connection import KeyValue, Login, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import Connection, postgresql_lane
from plan2_sidecar.engines.base import tls_context
from plan2_sidecar.errors import EngineUnavailable
from plan2_sidecar.query import Form, Query

LONG = b"SELECT a FROM t"
LOGIN = Login(username="somebody", password="secret")


@dataclass(frozen=True)
class Secure:
    """A server with a certificate of its own for 127.0.0.1; `pem` is what proves it."""

    port: int
    pem: str


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Secure]:
    pem, key = self_signed()
    (tmp_path / "both.pem").write_text(key + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/graphql":
            return web.json_response({"data": {"Get": {"A": [{"b": 1}]}}})
        if request.path.endswith("/_api/cursor"):
            return web.json_response({"result": [1], "count": 1, "hasMore": False}, status=201)
        if await request.read() != LONG:
            return web.Response(body=b'{"a":1}\n')
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(300):
            await response.write(b'{"a":1}\n' * 1000)
        return response

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield Secure(runner.addresses[0][1], pem)
    await runner.cleanup()


def _connections(secure: Secure, pem: str | None) -> dict[Engine, tuple[Connection, str]]:
    sql = Sql(host="127.0.0.1", port=secure.port, database="d", rw=LOGIN, tls=True, ca_pem=pem)
    graph = Weaviate(host="127.0.0.1", port=secure.port, scheme="https", ca_pem=pem)
    return {
        Engine.CLICKHOUSE: (sql, "SELECT 1"),
        Engine.ARANGODB: (sql, "RETURN 1"),
        Engine.WEAVIATE: (graph, "{ Get { A { b } } }"),
    }


@pytest.mark.parametrize("engine", [Engine.POSTGRESQL, Engine.CLICKHOUSE, Engine.DRAGONFLYDB])
async def test_an_authority_that_is_no_certificate_is_an_unavailable_engine(
    engine: Engine,
) -> None:
    to: Connection = Sql(
        host="127.0.0.1", port=1, database="d", rw=LOGIN, tls=True, ca_pem="no PEM"
    )
    if engine is Engine.DRAGONFLYDB:
        to = KeyValue(host="127.0.0.1", port=1, tls=True, ca_pem="no PEM")
    async with opened(engine, to) as client:
        with pytest.raises(EngineUnavailable, match="certificate"):
            await run(client, Query(query="GET k"))


@pytest.mark.parametrize("engine", [Engine.CLICKHOUSE, Engine.ARANGODB, Engine.WEAVIATE])
async def test_the_given_authority_is_trusted(secure: Secure, engine: Engine) -> None:
    to, text = _connections(secure, secure.pem)[engine]
    async with opened(engine, to) as client:
        assert plain(await run(client, Query(query=text)))


async def test_a_long_stream_comes_over_tls_as_well(secure: Secure) -> None:
    to, _ = _connections(secure, secure.pem)[Engine.CLICKHOUSE]
    query = Query(query=LONG.decode())
    async with opened(Engine.CLICKHOUSE, to) as client:
        rows = [
            chunk.whole()
            async for chunk in engines.opened(client).stream(query, Deadline.after(10), Form.NDJSON)
        ]
        pool = client.pool()

    assert b"".join(rows) == b'{"a":1}\n' * 300_000
    assert (pool["idle"], pool["inUse"]) == (1, 0)


@pytest.mark.parametrize("engine", [Engine.CLICKHOUSE, Engine.ARANGODB, Engine.WEAVIATE])
async def test_an_unknown_authority_is_not(secure: Secure, engine: Engine) -> None:
    to, text = _connections(secure, None)[engine]
    async with opened(engine, to) as client:
        with pytest.raises(EngineUnavailable, match="certificate"):
            await run(client, Query(query=text))


def test_host_names_are_checked_and_without_tls_there_is_no_context() -> None:
    context = tls_context(True, None)

    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert tls_context(False, None) is None


@pytest.fixture
async def secure_postgresql(postgresql: EngineServer, tmp_path: Path) -> AsyncIterator[Secure]:
    """The real one behind what ends TLS for it, in PostgreSQL's own way."""
    pem, key = self_signed()
    (tmp_path / "both.pem").write_text(key + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(8))[4:] == b"\x04\xd2\x16\x2f", "no SSLRequest"
        writer.write(b"S")
        await writer.start_tls(context)
        inside, outside = await asyncio.open_connection(postgresql.host, postgresql.port)
        await asyncio.gather(passed_on(reader, outside), passed_on(inside, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield Secure(server.sockets[0].getsockname()[1], pem)
    server.close()


async def test_short_reads_of_postgresql_share_a_connection_with_tls(
    secure_postgresql: Secure, postgresql: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no stall.
    monkeypatch.setattr(postgresql_lane, "STALL_SECONDS", 10.0)
    to = msgspec.structs.replace(
        connection(POSTGRESQL, postgresql, port=secure_postgresql.port),
        host="127.0.0.1",
        tls=True,
        ca_pem=secure_postgresql.pem,
    )
    async with opened(Engine.POSTGRESQL, to) as client:
        postgresql_client = engines.opened(client)

        async def ask(number: int) -> object:
            told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            query = Query(query="SELECT $1::int AS n", params=[number])
            deadline = Deadline.after(10)
            short = postgresql_client.short
            begin = short.begin if short.takes(query) else postgresql_client.begin
            if begin(query, deadline, told.set_result) is None:
                return plain(await run(client, query))
            return plain(await told)

        for number in range(500):
            assert await ask(number) == [{"n": number}]
            if postgresql_client.short.takes(Query(query="SELECT $1::int AS n")):
                break
            await asyncio.sleep(0.005)
        assert postgresql_client.short.takes(Query(query="SELECT $1::int AS n"))

        answers = await asyncio.gather(*(ask(number) for number in range(60)))

    assert answers == [[{"n": number}] for number in range(60)]
