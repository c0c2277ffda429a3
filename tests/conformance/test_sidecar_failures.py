"""Each engine taken away under load and brought back: what its callers and the others see."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from conformance.engine_cases import CASES, Case
from conformance.under_load import (
    LONGEST_SECONDS,
    PATIENT_MS,
    Gauges,
    Load,
    all_servers,
    prepare,
    read,
    sockets,
    write_document,
)
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, eventually, starting
from plan2_contract.engines import Engine

WORKERS = 3
BACK_SECONDS = 60.0
# What an engine that is away may come to; never a 4xx, a 500, or a hang.
AWAY = {
    (200, ""),
    (503, "engine_unavailable"),
    (503, "breaker_open"),
    (503, "bulkhead_full"),
    (504, "deadline_exceeded"),
}


@dataclass(frozen=True)
class House:
    """One sidecar with all engines behind it."""

    sidecar: SidecarProcess
    servers: dict[Engine, EngineServer]


@pytest.fixture(scope="module")
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    servers = all_servers(request)
    file = tmp_path_factory.mktemp("house") / "connection.json"
    write_document(file, servers)

    async def prepare_all() -> None:
        for case in CASES:
            await prepare(case, servers[case.engine])

    asyncio.run(prepare_all())
    with starting() as start:
        yield House(start(PLAN2_CONNECTION_FILE=str(file)), servers)


@pytest.fixture
def client(house: House, connect: Connect) -> SidecarClient:
    return connect(house.sidecar)


@pytest.fixture
def gauges(house: House, connect: Connect) -> Gauges:
    return Gauges(connect(house.sidecar.metrics_url))


@pytest.fixture
async def load(house: House, client: SidecarClient) -> AsyncIterator[Load]:
    for case in CASES:
        assert (await read(client, case, PATIENT_MS)).status == 200
    load = Load(client)
    yield load
    await load.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.engine.value)
async def test_an_engine_stopped_under_load_bounds_its_callers_and_spares_the_others(
    case: Case, house: House, client: SidecarClient, gauges: Gauges, load: Load
) -> None:
    server, engine = house.servers[case.engine], case.engine
    sockets_before = sockets(house.sidecar)
    for each in CASES:
        if each.engine is engine:
            load.on(engine, WORKERS)
        else:
            load.on(each.engine, 1, PATIENT_MS)
    await asyncio.sleep(0.3)

    try:
        await asyncio.to_thread(server.stop)
        load.outcomes[engine].clear()
        await eventually(lambda: _is(gauges, engine, "open"), 15)
        await asyncio.sleep(0.3)
    finally:
        await asyncio.to_thread(server.start)
    away = load.outcomes[engine]
    kinds, slowest = away.kinds(), away.slowest()
    back_at = time.monotonic()
    await eventually(lambda: _answers(client, case), BACK_SECONDS)
    back = time.monotonic() - back_at
    await eventually(lambda: _is(gauges, engine, "closed"), 15)
    await eventually(lambda: _all_answers(load, engine), 30)
    await load.stop()

    print(f"{engine}: {dict(kinds)}, slowest {slowest:.2f} s, back in {back:.1f} s")
    assert set(kinds) <= AWAY
    assert (503, "breaker_open") in kinds
    assert slowest < LONGEST_SECONDS
    others = {
        other: outcomes.kinds() for other, outcomes in load.outcomes.items() if other is not engine
    }
    assert {other: kinds for other, kinds in others.items() if set(kinds) != {(200, "")}} == {}
    await eventually(lambda: _nobody_holds_any(gauges), 15)
    # Idle connections of the workers stay: some for each engine, and none more.
    assert sockets(house.sidecar) <= sockets_before + 2 * len(CASES) + WORKERS


async def _is(gauges: Gauges, engine: Engine, state: str) -> bool:
    return await gauges.breaker(engine) == state


async def _answers(client: SidecarClient, case: Case) -> bool:
    return (await read(client, case)).status == 200


async def _all_answers(load: Load, engine: Engine) -> bool:
    load.outcomes[engine].clear()
    await asyncio.sleep(0.3)
    return set(load.outcomes[engine].kinds()) == {(200, "")}


async def _nobody_holds_any(gauges: Gauges) -> bool:
    return not await gauges.in_use()
