"""The operator's cost with a handful of resources: what a change must not make dearer.

`make bench-operator` measures the same with hundreds. The bounds here are per resource, with
room for the runs that events of the API server make more or fewer of.
"""

import asyncio

import pytest

from bench import operator_growth
from bench.operator_growth import CountingCluster, Meter
from cluster.control_plane import ControlPlane
from fixtures.operator_lab import Lab
from plan2_contract import names
from plan2_contract.engines import SIX
from plan2_operator import kinds
from plan2_operator.sight import Sight

pytestmark = pytest.mark.cluster

COUNT = 15
ENGINES = {engine.value: {"enabled": engine in SIX[:2]} for engine in SIX}
REQUESTS_EACH = 70
"""For two engines: 22 writes, and a look costs 15 reads."""
MEMORY_MB = 150.0


async def test_many_resources_converge_in_few_requests_and_rest_without_a_write(
    control_plane: ControlPlane,
) -> None:
    async with operator_growth.growing(control_plane) as (lab, operator):
        assert isinstance(lab.cluster, CountingCluster)
        keys = [await lab.create(f"db-{number}", ENGINES) for number in range(COUNT)]
        async with operator(PLAN2_RESYNC_SECONDS="4") as process:
            meter = Meter(lab.cluster, process.pid)
            await meter.start()
            await operator_growth.phases(lab, COUNT, bool, patience=90)
            converged = await meter.stop()
            for key in keys:
                await lab.start(key, *SIX[:2])
            await operator_growth.phases(lab, COUNT, lambda phase: phase == "Ready", patience=90)
            await asyncio.sleep(3)

            await meter.start()
            await asyncio.sleep(6)
            rest = await meter.stop()
            memory = meter.memory_mb("VmRSS")

    assert converged.total / COUNT <= REQUESTS_EACH
    assert rest.writes == 0
    assert rest.total >= COUNT, "nobody looked: the window was too short to show anything"
    lists = sum(rest.requests["LIST", kind.plural] for kind in (*kinds.OWNED, kinds.POD))
    assert lists <= 2 * len(kinds.OWNED), "what is watched was listed again"
    assert memory <= MEMORY_MB


async def test_whoever_waits_looks_for_itself_and_whoever_rests_trusts_the_watches(
    lab: Lab,
) -> None:
    lab.reconciler.sight = Sight(keep_seconds=300.0)
    key = await lab.create("prices", ENGINES)
    await lab.run(key)
    await lab.run(key)

    await lab.start(key, *SIX[:2])
    await lab.settle(key)

    assert (await lab.status(key))["phase"] == "Ready", "a watch that hangs held it up"
    name = names.engine_object("prices", SIX[0])
    service = await lab.read(kinds.SERVICE, name)
    await lab.cluster.delete(kinds.SERVICE, service)
    await lab.run(key)
    assert await lab.cluster.get(kinds.SERVICE, lab.namespace, name) is None

    lab.reconciler.sight.lose(key)
    await lab.run(key)
    await lab.read(kinds.SERVICE, name)
