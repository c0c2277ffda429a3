"""Engines made slow on the wire: one fills its own bulkhead, silent ones hold nobody for long."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conformance.engine_cases import CASES, Case
from conformance.under_load import (
    LONGEST_SECONDS,
    PATIENT_MS,
    POOL,
    Gauges,
    Load,
    all_servers,
    prepare,
    read,
    write_document,
)
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, eventually, starting
from fixtures.slow_proxy import SlowProxy, slow_proxies
from plan2_contract.engines import Engine

DELAY_SECONDS = 0.4
SILENCE_SECONDS = 120.0
SLOW = {
    (200, ""),
    (503, "bulkhead_full"),
    (503, "breaker_open"),
    (503, "engine_unavailable"),
    (504, "deadline_exceeded"),
}


@dataclass(frozen=True)
class Behind:
    """A sidecar that reaches every engine through a proxy of its own."""

    sidecar: SidecarProcess
    proxies: dict[Engine, SlowProxy]


@dataclass(frozen=True)
class House:
    """The same, and who calls it."""

    client: SidecarClient
    gauges: Gauges
    proxies: dict[Engine, SlowProxy]


@pytest.fixture(scope="module")
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    servers = all_servers(request)
    file = tmp_path_factory.mktemp("slow") / "connection.json"
    places = {engine: (server.host, server.port) for engine, server in servers.items()}

    async def prepare_all() -> None:
        for case in CASES:
            await prepare(case, servers[case.engine])

    asyncio.run(prepare_all())
    with slow_proxies(places) as proxies, starting() as start:
        write_document(file, servers, {engine: each.port for engine, each in proxies.items()})
        yield Behind(start(PLAN2_CONNECTION_FILE=str(file)), proxies)


@pytest.fixture
async def house(behind: Behind, connect: Connect) -> House:
    gauges = Gauges(connect(behind.sidecar.metrics_url))
    house = House(connect(behind.sidecar), gauges, behind.proxies)
    for case in CASES:
        assert (await read(house.client, case, PATIENT_MS)).status == 200
    return house


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.engine.value)
async def test_a_slow_engine_fills_only_its_own_bulkhead(case: Case, house: House) -> None:
    load = Load(house.client)
    for each in CASES:
        if each.engine is case.engine:
            load.on(each.engine, 3 * POOL)
        else:
            load.on(each.engine, 1, PATIENT_MS)
    await asyncio.sleep(0.2)
    for outcomes in load.outcomes.values():
        outcomes.clear()

    house.proxies[case.engine].delay_seconds = DELAY_SECONDS
    await asyncio.sleep(1.5)
    await load.stop()
    house.proxies[case.engine].delay_seconds = 0.0

    slow = load.outcomes[case.engine]
    print(f"{case.engine}: {dict(slow.kinds())}, slowest {slow.slowest():.2f} s")
    assert set(slow.kinds()) <= SLOW
    assert (503, "bulkhead_full") in slow.kinds()
    assert slow.slowest() < LONGEST_SECONDS
    others = {
        engine: outcomes.kinds()
        for engine, outcomes in load.outcomes.items()
        if engine is not case.engine and outcomes.answers
    }
    assert len(others) == len(CASES) - 1
    assert {engine: kinds for engine, kinds in others.items() if set(kinds) != {(200, "")}} == {}
    await eventually(lambda: _is_well(house, case), 30)


async def test_engines_that_fall_silent_let_go_of_every_caller_at_its_deadline(
    house: House,
) -> None:
    for proxy in house.proxies.values():
        proxy.delay_seconds = SILENCE_SECONDS

    began = time.monotonic()
    replies = await asyncio.gather(
        *(read(house.client, case) for case in CASES for _ in range(POOL))
    )
    seconds = time.monotonic() - began
    for proxy in house.proxies.values():
        proxy.delay_seconds = 0.0

    seen = {(reply.status, reply.body["code"]) for reply in replies}
    print(f"{seen} within {seconds:.2f} s")
    assert seen <= {(504, "deadline_exceeded"), (503, "engine_unavailable"), (503, "breaker_open")}
    assert (504, "deadline_exceeded") in seen
    assert all(reply.body["retryable"] is True for reply in replies)
    assert seconds < LONGEST_SECONDS
    for case in CASES:
        await eventually(lambda case=case: _is_well(house, case), 30)


async def _is_well(house: House, case: Case) -> bool:
    reply = await read(house.client, case)
    return (
        reply.status == 200
        and await house.gauges.breaker(case.engine) == "closed"
        and not await house.gauges.in_use()
    )
