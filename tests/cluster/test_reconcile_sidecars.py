"""The pods that want a sidecar: they share the connections, and those without one are told."""

from typing import Any

import pytest

from fixtures.operator_lab import Lab
from plan2_contract import connection, names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.work_queue import Key

pytestmark = pytest.mark.cluster

ONLY: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not Engine.POSTGRESQL
}
INJECTED = ("app", names.SIDECAR_CONTAINER)
LABELS = {names.LABEL_INJECT: "prices"}


async def document(lab: Lab) -> connection.Document:
    data = await lab.secret("prices-connection")
    return connection.decode(data[connection.KEY].encode())


async def pool_max(lab: Lab) -> int:
    postgresql = (await document(lab)).engines.postgresql
    assert postgresql is not None
    return postgresql.pool_max


async def sidecars(lab: Lab, key: Key) -> dict[str, int]:
    return dict((await lab.status(key))["sidecars"])


async def test_the_pools_shrink_as_sidecars_come(lab: Lab) -> None:
    few = {"configuration": {"max_connections": "55"}, "pool": {"max": 20}}
    key = await lab.create("prices", {**ONLY, "postgresql": few})
    await lab.run(key)
    assert await pool_max(lab) == 20

    for number in range(4):
        await lab.pod(f"app-{number}", labels=LABELS, containers=INJECTED)
    await lab.run(key)

    assert (await document(lab)).sidecars == 4
    assert await pool_max(lab) == (55 - 15) // 4


async def test_the_smallest_pool_is_two_and_the_shortage_is_a_condition(lab: Lab) -> None:
    few = {"configuration": {"max_connections": "18"}}
    key = await lab.create("prices", {**ONLY, "postgresql": few})
    for number in range(3):
        await lab.pod(f"app-{number}", labels=LABELS, containers=INJECTED)

    await lab.run(key)

    assert await pool_max(lab) == 2
    assert (await lab.condition(key, "ConnectionBudgetLow"))["status"] == "True"


async def test_a_pod_that_missed_its_sidecar_is_told_once_and_counted(lab: Lab) -> None:
    key = await lab.create("prices", ONLY)
    await lab.pod("with", labels=LABELS, containers=INJECTED)
    await lab.pod("without", labels=LABELS)

    await lab.run(key)
    await lab.restarted().run(key)

    counted = await sidecars(lab, key)
    assert (counted["injected"], counted["missed"]) == (1, 1)
    assert (await lab.condition(key, "SidecarMissed"))["status"] == "True"
    assert [reason for reason, _ in await lab.events("without")] == ["SidecarMissed"]
    assert await lab.events("with") == []


async def test_an_older_sidecar_is_outdated(lab: Lab) -> None:
    key = await lab.create("prices", ONLY)
    body = await lab.read(kinds.PLATFORM, "prices")
    current = lab.reconciler._sidecar_fingerprint(body)
    for name, stamp in (("new", current), ("old", "0000")):
        await lab.pod(
            name,
            labels=LABELS,
            annotations={names.ANNOTATION_INJECTED: stamp},
            containers=INJECTED,
        )

    await lab.run(key)

    assert await sidecars(lab, key) == {"injected": 2, "outdated": 1, "missed": 0}
