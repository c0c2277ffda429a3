"""The sidecar as a process, every engine down: it starts at once and says clearly what is wrong."""

import asyncio
import io
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.fix_sidecar import (
    Connect,
    SidecarClient,
    SidecarProcess,
    Start,
    nobody_there,
    spawn,
    starting,
)
from plan2_contract.engines import Engine

DRIVERS = {
    "arangoasync",
    "asyncpg",
    "bson",
    "clickhouse_connect",
    "grpc",
    "hiredis",
    "pymongo",
    "redis",
    "weaviate",
}
# Of memory, idle with every engine configured: what is measured while coverage is traced, and a
# sixth.
MOST_BYTES = 64_000_000
STATEMENTS = {
    Engine.POSTGRESQL: "SELECT 1",
    Engine.DRAGONFLYDB: ["GET", "k"],
    Engine.CLICKHOUSE: "SELECT 1",
    Engine.WEAVIATE: "{ Get { Trade { symbol } } }",
    Engine.ARANGODB: "RETURN 1",
    Engine.MONGODB: {"collection": "c", "filter": {}},
    Engine.REDIS: ["GET", "k"],
}


@pytest.fixture(scope="module")
def shared() -> Iterator[SidecarProcess]:
    """One for the calls that never reach an engine."""
    with starting() as start:
        yield start(**nobody_there())


@pytest.fixture
def door(shared: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(shared)


@pytest.fixture
def sidecar(start_sidecar: Start) -> SidecarProcess:
    return start_sidecar(**nobody_there())


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar)


def test_it_starts_quickly_and_stays_small_with_every_engine_down(start_sidecar: Start) -> None:
    """0.4 s of CPU and 52 MB on a machine that does nothing else; a slow one gets five times."""
    # It waits for nothing on the way, so its own seconds are what counts.
    sidecar = start_sidecar(**nobody_there())
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))

    assert sidecar.cpu_seconds_to_listen < 2.0
    assert int(resident.split()[1]) * 1024 < MOST_BYTES


def test_importing_aiohttp_reads_no_certificates_and_leaves_the_reading_as_it_was() -> None:
    code = """
import ssl
load, read = ssl.SSLContext.load_default_certs, []
from plan2_sidecar import lean
lean.starting()
import aiohttp.connector
assert ssl.SSLContext.load_default_certs is load
print(len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()))
"""
    assert subprocess.check_output([sys.executable, "-c", code]).split() == [b"0"]


def test_no_driver_is_loaded_before_its_first_use(start_sidecar: Start) -> None:
    # A sidecar looks into its own tables by itself, once a second.
    others = {name: at for name, at in nobody_there().items() if not name.startswith("POSTGRES")}
    sidecar = start_sidecar(**others)
    maps = Path(f"/proc/{sidecar.process.pid}/maps").read_text()
    loaded = {driver for driver in DRIVERS if f"/site-packages/{driver}/" in maps}
    code = "import json, sys, plan2_sidecar.__main__; print(json.dumps(list(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", code]))

    assert loaded == set()
    assert {module.partition(".")[0] for module in modules} & DRIVERS == set()


@pytest.mark.parametrize("engine", list(Engine))
async def test_an_engine_that_is_down_is_named_and_can_be_tried_again(
    client: SidecarClient, engine: Engine
) -> None:
    reply = await client.query(STATEMENTS[engine], engine)

    assert reply.status == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.body["code"] == "engine_unavailable"
    assert reply.body["database"] == engine
    assert reply.body["retryable"] is True
    assert reply.body["retryAfterMs"] > 0


async def test_an_engine_that_stays_down_is_left_alone(client: SidecarClient) -> None:
    codes = [(await client.query("SELECT 1", "postgresql")).body["code"] for _ in range(8)]

    assert codes[0] == "engine_unavailable"
    assert codes[-1] == "breaker_open"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b'{"query": ', 400, "malformed_json"),
        (b'{"query": "SELECT 1", "database": "x"}', 400, "invalid_request"),
        (b'{"query": "SELECT 1", "targetDatabase": "oracle"}', 400, "unknown_engine"),
        (b'{"query": "/* plan2: oracle */ SELECT 1"}', 400, "unknown_engine"),
        (b'{"query": "SELECT 1"}', 422, "ambiguous_route"),
        (b'{"query": "INSERT INTO t (a) VALUES (1)"}', 422, "ambiguous_route"),
    ],
    ids=["empty", "cut", "field", "target", "hint", "read", "write"],
)
async def test_a_request_that_cannot_be_served_is_told_why(
    door: SidecarClient, body: bytes, status: int, code: str
) -> None:
    reply = await door.call(
        "POST", "/api/v2/query", data=body, headers={"Content-Type": "application/json"}
    )

    assert (reply.status, reply.body["code"]) == (status, code)
    assert reply.headers["Content-Type"] == "application/problem+json"


async def test_an_unknown_field_is_named(door: SidecarClient) -> None:
    reply = await door.query("SELECT 1", options={"timeoutMS": 5})

    assert reply.status == 400
    assert "timeoutMS" in reply.body["detail"]


async def test_an_ambiguous_query_lists_its_candidates(door: SidecarClient) -> None:
    reply = await door.query("SELECT 1")

    assert reply.body["candidates"] == ["postgresql", "clickhouse"]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_of_five_mebibytes_is_too_large(door: SidecarClient, chunked: bool) -> None:
    async def pieces() -> object:
        for _ in range(5):
            yield b" " * 1024 * 1024

    body = pieces() if chunked else io.BytesIO(b" " * 5 * 1024 * 1024)
    reply = await door.call(
        "POST", "/api/v2/query", data=body, headers={"Content-Type": "application/json"}
    )

    assert (reply.status, reply.body["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example.com", 421),
        ("127.0.0.1.evil.com:7420", 421),
        ("localhost.", 421),
        ("localhost:9999", 200),
        ("LOCALHOST", 200),
        ("[::1]:7420", 200),
    ],
)
async def test_only_local_hosts_are_served(door: SidecarClient, host: str, status: int) -> None:
    reply = await door.get("/livez", headers={"Host": host})

    assert reply.status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example.com", 403),
        ("null", 403),
        ("http://[", 403),
        ("http://localhost@evil.example.com", 403),
        ("http://localhost:3000", 200),
    ],
)
async def test_pages_of_other_origins_are_refused(
    door: SidecarClient, origin: str, status: int
) -> None:
    reply = await door.get("/livez", headers={"Origin": origin})

    assert reply.status == status


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_of_a_web_page_is_no_query(door: SidecarClient, content_type: str) -> None:
    reply = await door.call(
        "POST",
        "/api/v2/query",
        data=b'{"query": "SELECT 1"}',
        headers={"Content-Type": content_type},
    )

    assert (reply.status, reply.body["code"]) == (415, "unsupported_media_type")


async def test_paths_and_methods_that_do_not_exist_are_problems_too(door: SidecarClient) -> None:
    nowhere = await door.get("/api/v3/query")
    wrong_method = await door.get("/api/v2/query")
    no_metrics = await door.get("/metrics")

    assert (nowhere.status, nowhere.body["code"]) == (404, "not_found")
    assert (wrong_method.status, wrong_method.body["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["Allow"] == "POST"
    assert no_metrics.status == 404


@pytest.mark.parametrize("value", ["0", "60001", "soon", "-5", "1e3", ""])
async def test_a_deadline_out_of_bounds_is_refused(door: SidecarClient, value: str) -> None:
    reply = await door.call(
        "POST",
        "/api/v2/query",
        json={"query": "SELECT 1", "targetDatabase": "postgresql"},
        headers={"X-Deadline-Ms": value},
    )

    assert reply.status == 400
    assert "X-Deadline-Ms" in reply.body["detail"]


async def test_a_form_of_answer_that_is_not_served_is_406(door: SidecarClient) -> None:
    reply = await door.call(
        "POST",
        "/api/v2/query",
        json={"query": "SELECT 1", "targetDatabase": "postgresql"},
        headers={"Accept": "text/csv"},
    )

    assert reply.status == 406


async def test_health_says_down_and_only_strict_callers_get_a_503(client: SidecarClient) -> None:
    plain = await client.get("/api/v2/health/all")
    strict = await client.get("/api/v2/health/all?strict=1")

    assert (plain.status, strict.status) == (200, 503)
    assert plain.body["status"] == "down"
    assert set(plain.body["engines"]) == {engine.value for engine in Engine}
    for engine in plain.body["engines"].values():
        assert engine["state"] == "down"
        assert engine["error"]
        assert "lastOk" not in engine


async def test_the_databases_are_listed_with_what_they_can_do(client: SidecarClient) -> None:
    reply = await client.get("/api/v2/databases")

    sql = reply.body["engines"]["postgresql"]
    assert sql["configured"] is True
    assert sql["status"] == "down"
    assert sql["capabilities"] == ["sql", "transactions"]
    assert sql["pool"]["max"] == 20


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
async def test_the_classic_health_paths_answer(client: SidecarClient, path: str) -> None:
    reply = await client.get(path)

    assert reply.status == 200
    assert reply.body["status"] == "down"


async def test_probes_and_metrics_have_a_listener_of_their_own(
    sidecar: SidecarProcess, connect: Connect
) -> None:
    await connect(sidecar).query("SELECT 1", "postgresql")
    probes = connect(sidecar.metrics_url)

    live = await probes.get("/livez", headers={"Host": "10.0.0.7:7421"})
    ready = await probes.get("/readyz")
    metrics = await probes.get("/metrics")
    nothing_else = await probes.get("/api/v2/databases")

    assert (live.status, ready.status, nothing_else.status) == (200, 200, 404)
    assert (
        'plan2_sidecar_queries_total{code="engine_unavailable",engine="postgresql",'
        'route="target"} 1.0' in metrics.body
    )
    assert 'plan2_sidecar_engine_up{engine="postgresql"} 0.0' in metrics.body


async def test_a_required_engine_that_is_down_keeps_it_unready(
    start_sidecar: Start, connect: Connect
) -> None:
    client = connect(start_sidecar(**nobody_there(), PLAN2_REQUIRED_ENGINES="postgresql"))

    ready = await client.get("/readyz")
    live = await client.get("/livez")

    assert (ready.status, live.status) == (503, 200)
    assert "postgresql" in ready.body["reason"]


async def test_without_a_connection_file_it_serves_and_waits_for_one(
    start_sidecar: Start, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "connection.json"
    client = connect(start_sidecar(PLAN2_CONNECTION_FILE=str(file)))
    before = await client.get("/readyz")
    unconfigured = await client.query("SELECT 1", "postgresql")

    file.write_text('{"version": 99, "engines": {}}')
    await asyncio.sleep(1.5)
    newer = await client.get("/readyz")
    file.write_text('{"version": 1, "engines": {"dragonflydb": {"host": "127.0.0.1", "port": 1}}}')
    await asyncio.sleep(1.5)
    after = await client.get("/readyz")
    configured = await client.query(["GET", "k"], "dragonflydb")

    assert (before.status, newer.status, after.status) == (503, 503, 200)
    assert (unconfigured.status, unconfigured.body["code"]) == (422, "engine_not_configured")
    assert unconfigured.body["database"] == "postgresql"
    assert configured.status == 503


async def test_the_api_needs_the_token_and_the_token_rotates(
    start_sidecar: Start, connect: Connect, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    client = connect(start_sidecar(PLAN2_API_TOKEN_FILE=str(file)))

    async def status(path: str, token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return (await client.get(path, headers=headers)).status

    refused = await client.get("/api/v2/databases")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert await status("/api/v2/databases", "wrong") == 401
    assert await status("/api/v1/query", None) == 401
    assert await status("/api/nowhere", None) == 401
    assert await status("/api/v2/databases", "old") == 200
    for path in ("/health", "/api/v1/health", "/livez"):
        assert await status(path, None) == 200

    file.write_text("new\nold\n")
    assert await status("/api/v2/databases", "new") == 200
    assert await status("/api/v2/databases", "old") == 200

    file.write_text("new\n")
    await asyncio.sleep(1.5)
    assert await status("/api/v2/databases", "old") == 401


async def test_the_annotation_for_old_callers_opens_v1_alone(
    start_sidecar: Start, connect: Connect
) -> None:
    client = connect(start_sidecar(PLAN2_API_TOKEN="secret", PLAN2_V1="open"))

    v1 = await client.call("POST", "/api/v1/query", json={"sql": "SELECT 1"})
    v2 = await client.query("SELECT 1", "postgresql")

    assert (v1.status, v1.body["code"]) == (422, "engine_not_configured")
    assert v2.status == 401


async def test_the_unix_socket_serves_the_same_api_to_every_user_of_the_pod(
    start_sidecar: Start, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "api.sock"
    killed = start_sidecar(PLAN2_SOCKET=str(path))
    killed.process.kill()
    killed.process.wait()
    assert path.is_socket()

    sidecar = start_sidecar(PLAN2_SOCKET=str(path), PLAN2_API_TOKEN="secret")
    client = connect(path, Authorization="Bearer secret")
    reply = await client.query("SELECT 1", "postgresql")

    assert reply.body["code"] == "engine_not_configured"
    assert (await connect(path).get("/api/v2/databases")).status == 401
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert sidecar.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_code_0_when_asked_to(sidecar: SidecarProcess, number: signal.Signals) -> None:
    assert sidecar.stop(number) == 0
    assert "Traceback" not in sidecar.log.read_text()


@pytest.mark.parametrize(
    ("variables", "code", "named"),
    [
        ({"PLAN2_PORT": "http"}, 2, "PLAN2_PORT"),
        ({"POSTGRES_HOST": "h", "POSTGRES_PORT": "x"}, 2, "POSTGRES_PORT"),
        ({"PLAN2_SOCKET": "/nowhere/at/all.sock"}, 1, "/nowhere/at/all.sock"),
        ({"PLAN2_SOCKET": f"/{'a' * 120}.sock"}, 1, "too long"),
        ({"PLAN2_API_TOKEN": ""}, 2, "PLAN2_API_TOKEN"),
    ],
    ids=["number", "engine", "directory", "length", "token"],
)
def test_it_does_not_start_with_a_value_it_cannot_use(
    tmp_path: Path, variables: dict[str, str], code: int, named: str
) -> None:
    sidecar = spawn(tmp_path / "log", variables)

    assert sidecar.process.wait(20) == code
    assert named in sidecar.log.read_text()
    assert "Traceback" not in sidecar.log.read_text()


def test_a_port_that_is_taken_is_said_so(sidecar: SidecarProcess, tmp_path: Path) -> None:
    second = spawn(tmp_path / "log", {"PLAN2_PORT": str(sidecar.port)})

    assert second.process.wait(20) == 1
    assert "address already in use" in second.log.read_text().lower()
