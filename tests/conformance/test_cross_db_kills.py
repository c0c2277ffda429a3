"""`kill -9` before and after every write to the log and every call of an engine.

A sidecar kills itself at the n-th of these points, for every n there is; another sidecar, which
nobody asks for anything, finishes or compensates what the first left. Every effect is a row (a
document, an object, a member of a set), so that what was done twice would be seen twice.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from conformance.cross_db_lab import PATH, ask, environment, query, sql
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import SidecarClient, eventually, free_port, starting

PROGRAM = Path(__file__).with_name("saga_victims.py")
COLLECTION = "KillEffect"
FINISHED_SECONDS = 60.0


@dataclass(frozen=True)
class Lab:
    """The victims' program, the sidecar that takes over, and what both are configured with."""

    victims: "subprocess.Popen[str]"
    rescuer: SidecarClient
    variables: dict[str, str]
    directory: Path
    log: Path


@dataclass(frozen=True)
class Case:
    """What became of one operation."""

    point: str
    state: str
    attempt: int


def effect(engine: str, key: str, what: str) -> dict[str, Any]:
    """A statement that leaves one more trace of (key, what) each time it is applied."""
    match engine:
        case "postgresql":
            return {"query": "INSERT INTO effect VALUES ($1, $2)", "params": [key, what]}
        case "mongodb":
            return {"query": {"collection": "effect", "documents": [{"key": key, "what": what}]}}
        case "arangodb":
            return {
                "query": "INSERT {key: @key, what: @what} INTO effect",
                "params": {"key": key, "what": what},
            }
        case "clickhouse":
            text = "INSERT INTO effect VALUES ({key:String}, {what:String})"
            return {"query": text, "params": {"key": key, "what": what}}
        case "weaviate":
            return {"query": {"collection": COLLECTION, "objects": [{"key": key, "what": what}]}}
    return {"query": ["SADD", f"effect:{key}", what]}


def step(engine: str, key: str, **members: Any) -> dict[str, Any]:
    return {
        "id": engine,
        "targetDatabase": engine,
        **effect(engine, key, "do"),
        **members,
    }


def saga(key: str) -> dict[str, Any]:
    """Five steps that all succeed; ClickHouse, which cannot undo, comes last."""
    undone = ("postgresql", "mongodb", "arangodb", "dragonflydb")
    steps = [step(engine, key, compensate=effect(engine, key, "undo")) for engine in undone]
    return {"mode": "saga", "operations": [*steps, step("clickhouse", key)]}


def failing(key: str) -> dict[str, Any]:
    """Four steps that succeed, and a fifth that is refused."""
    steps = saga(key)["operations"][:4]
    return {"mode": "saga", "operations": [*steps, sql("refused", "SELECT 1/0")]}


def outbox(key: str) -> dict[str, Any]:
    """PostgreSQL's row with the outbox, and four deliveries."""
    engines = ("weaviate", "mongodb", "postgresql", "clickhouse", "dragonflydb")
    return {"mode": "outbox", "operations": [step(engine, key) for engine in engines]}


SCENARIOS = {"saga": saga, "failing": failing, "outbox": outbox}


@pytest.fixture(scope="module")
def variables(
    postgresql: EngineServer,
    dragonflydb: EngineServer,
    clickhouse: EngineServer,
    weaviate: EngineServer,
    arangodb: EngineServer,
    mongodb: EngineServer,
) -> dict[str, str]:
    servers = (postgresql, dragonflydb, clickhouse, weaviate, arangodb, mongodb)
    # A lease that a loaded machine keeps: what the dead held is taken over after it.
    return environment(**{each.engine: each for each in servers}) | {"PLAN2_SAGA_LEASE_MS": "4000"}


@pytest.fixture
def victims() -> Iterator["subprocess.Popen[str]"]:
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
        assert program.stdin is not None
        program.stdin.close()
        program.wait(10)


@pytest.fixture
async def lab(
    victims: "subprocess.Popen[str]",
    variables: dict[str, str],
    weaviate: EngineServer,
    arangodb: EngineServer,
    tmp_path: Path,
) -> AsyncIterator[Lab]:
    with starting() as start:
        process = start(**variables)
        rescuer = SidecarClient(process.url, None, {})
        await make_tables(rescuer, weaviate, arangodb)
        yield Lab(victims, rescuer, variables, tmp_path, process.log)
        await rescuer.close()


async def make_tables(
    client: SidecarClient, weaviate: EngineServer, arangodb: EngineServer
) -> None:
    await query(client, "postgresql", "DROP TABLE IF EXISTS effect")
    await query(client, "postgresql", "CREATE TABLE effect (key text, what text)")
    await query(client, "clickhouse", "DROP TABLE IF EXISTS effect")
    await query(
        client,
        "clickhouse",
        "CREATE TABLE effect (key String, what String) ENGINE = MergeTree ORDER BY key "
        "SETTINGS non_replicated_deduplication_window = 10000",
    )
    await query(client, "mongodb", {"collection": "effect", "filter": {}, "delete": "many"})
    secret = aiohttp.encode_basic_auth(arangodb.admin_user, arangodb.admin_password)
    async with aiohttp.ClientSession(arangodb.url, headers={"Authorization": secret}) as session:
        assert (await session.post("/_api/collection", json={"name": "effect"})).status in (
            200,
            409,
        )
        await session.put("/_api/collection/effect/truncate")
    properties = [{"name": name, "dataType": ["text"]} for name in ("key", "what")]
    headers = {"Authorization": f"Bearer {weaviate.admin_password}"}
    async with aiohttp.ClientSession(weaviate.url, headers=headers) as session:
        await session.delete(f"/v1/schema/{COLLECTION}")
        made = {"class": COLLECTION, "properties": properties}
        assert (await session.post("/v1/schema", json=made)).status == 200


async def attack(lab: Lab, scenario: str, number: int) -> list[str]:
    """Let a sidecar die at that point of the scenario; the points it came by."""
    key, port = f"{scenario}-{number}", free_port()
    points = lab.directory / key
    listening = {"PLAN2_PORT": str(port), "PLAN2_METRICS_PORT": str(free_port())}
    order = {
        # Its own lease is short too: nobody waits long for what it held.
        "environment": lab.variables | listening,
        "kill_at": number,
        "points": str(points),
    }
    assert lab.victims.stdin is not None
    lab.victims.stdin.write(json.dumps(order) + "\n")
    lab.victims.stdin.flush()
    client = SidecarClient(f"http://127.0.0.1:{port}", None, {})
    try:
        await eventually(lambda: _listens(port), seconds=20, every=0.01)
        body = SCENARIOS[scenario](key)
        if number == 0:
            reply = await ask(client, key, timeoutMs=20_000, **body)
            assert reply.status == {"failing": 424}.get(scenario, 200), reply.body
        else:
            with pytest.raises(aiohttp.ClientError):
                await ask(client, key, timeoutMs=20_000, **body)
    finally:
        await client.close()
    return points.read_text().splitlines()


async def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


async def outcome(lab: Lab, key: str, point: str) -> Case:
    """How the operation stands once nobody has anything to do with it any more."""
    found: list[Any] = []

    async def ended() -> bool:
        reply = await lab.rescuer.get(f"{PATH}/{key}")
        state = reply.body["state"] if reply.status == 200 else "never begun"
        found[:] = [state]
        return state not in ("running", "compensating")

    try:
        await eventually(ended, seconds=FINISHED_SECONDS)
    except TimeoutError:
        reply = await lab.rescuer.get(f"{PATH}/{key}")
        log = lab.log.read_text()[-4000:]
        raise AssertionError(f"{key}, {point}: {reply.body}\n{log}") from None
    attempt = 0
    if found[0] != "never begun":
        text = "SELECT attempt FROM plan2.operation WHERE idempotency_key = $1"
        attempt = (await query(lab.rescuer, "postgresql", text, [key]))[0]["attempt"]
    return Case(point, found[0], attempt)


async def count_effects(client: SidecarClient) -> dict[str, dict[str, int]]:
    """By key, how often each effect of each engine is there."""
    rows: list[tuple[str, str, str]] = []
    for engine in ("postgresql", "clickhouse"):
        found = await query(client, engine, "SELECT key, what FROM effect")
        rows += [(engine, row["key"], row["what"]) for row in found]
    found = await query(client, "mongodb", {"collection": "effect", "filter": {}})
    rows += [("mongodb", row["key"], row["what"]) for row in found]
    found = await query(client, "arangodb", "FOR e IN effect RETURN e")
    rows += [("arangodb", row["key"], row["what"]) for row in found]
    asked = {"collection": COLLECTION, "properties": ["key", "what"], "limit": 1000}
    found = await query(client, "weaviate", asked)
    rows += [("weaviate", row["properties"]["key"], row["properties"]["what"]) for row in found]
    for name in await query(client, "dragonflydb", ["KEYS", "effect:*"]):
        members = await query(client, "dragonflydb", ["SMEMBERS", name])
        rows += [("dragonflydb", name.removeprefix("effect:"), what) for what in members]
    counted: dict[str, dict[str, int]] = {}
    for engine, key, what in rows:
        of_key = counted.setdefault(key, {})
        of_key[f"{engine} {what}"] = of_key.get(f"{engine} {what}", 0) + 1
    return counted


def wanted(scenario: str, state: str) -> dict[str, int]:
    """Each effect that must be there, once."""
    if state == "never begun":
        return {}
    engines = [each["id"] for each in SCENARIOS[scenario]("")["operations"]]
    does = [f"{engine} do" for engine in engines if engine != "refused"]
    undoes = [f"{engine} undo" for engine in engines if engine != "refused"]
    return dict.fromkeys(does + (undoes if scenario == "failing" else []), 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_whoever_dies_wherever_each_effect_is_there_once(
    lab: Lab, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = await attack(lab, scenario, 0)

    # On its way to the step that is refused it goes by the same points as a saga that succeeds.
    first = next((at for at, point in enumerate(points) if "refused" in point), 0)
    died: dict[str, str] = {}
    for number in range(first + 1, len(points) + 1):
        seen = await attack(lab, scenario, number)
        assert len(seen) == number
        died[f"{scenario}-{number}"] = seen[-1]
    cases = {key: await outcome(lab, key, point) for key, point in died.items()}

    effects = await count_effects(lab.rescuer)
    with capsys.disabled():
        print(f"\n{scenario}: killed at {len(cases)} points, finished by another")
        for key, case in cases.items():
            there = effects.get(key, {})
            more = {name: times for name, times in there.items() if times != 1}
            said = f"{len(there)} effects, each once" if not more else f"TWICE: {more}"
            print(f"  {case.point:44} {case.state:11} attempt {case.attempt}  {said}")
    final = {"failing": "compensated"}.get(scenario, "committed")
    for key, case in cases.items():
        assert case.state in (final, "never begun"), case
        assert effects.get(key, {}) == wanted(scenario, case.state), case
    never = [case.point for case in cases.values() if case.state == "never begun"]
    assert all("logged" in point or "before its commit" in point for point in never)
    assert len(points) > 20
    assert max(case.attempt for case in cases.values()) >= 2
