"""Provisioning in the reconcile: when an engine runs, once for each change, never in the way."""

from typing import Any

import pytest

from fixtures.operator_lab import Lab
from plan2_contract import names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.provision import ProvisionError, Reason
from plan2_operator.work_queue import Key

pytestmark = pytest.mark.cluster

POSTGRESQL = Engine.POSTGRESQL
ONLY: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not POSTGRESQL
}


async def created(lab: Lab, postgresql: dict[str, Any] | None = None) -> Key:
    key = await lab.create("prices", {**ONLY, "postgresql": postgresql or {}})
    await lab.run(key)
    return key


async def phase(lab: Lab, key: Key) -> str:
    return str((await lab.status(key))["engines"]["postgresql"]["phase"])


async def test_an_engine_is_provisioned_by_its_pods_own_name_once_it_runs(lab: Lab) -> None:
    key = await created(lab)
    await lab.settle(key)
    assert lab.provisioner.calls == []

    await lab.start(key, POSTGRESQL)
    await lab.settle(key)

    [(engine, host, port, admin, _)] = lab.provisioner.calls
    assert (engine, port) == (POSTGRESQL, 5432)
    assert host == names.pod_host("prices", POSTGRESQL, lab.namespace)
    assert admin == await lab.secret("prices-postgresql-admin")
    assert await phase(lab, key) == "Ready"


async def test_what_is_provisioned_is_not_done_again_by_a_restarted_operator(lab: Lab) -> None:
    key = await created(lab)
    await lab.start(key, POSTGRESQL)
    await lab.settle(key)

    restarted = lab.restarted()
    for _ in range(3):
        await restarted.run(key)

    assert len(lab.provisioner.calls) == 1
    assert await phase(lab, key) == "Ready"


async def test_bootstrap_is_applied_again_when_it_changes(lab: Lab) -> None:
    key = await created(lab, {"bootstrap": {"sql": ["CREATE TABLE a (id int)"]}})
    await lab.start(key, POSTGRESQL)
    await lab.settle(key)

    await lab.change(key, {"postgresql": {"bootstrap": {"sql": ["CREATE TABLE b (id int)"]}}})
    await lab.settle(key)

    scripts = [bootstrap.sql for *_, bootstrap in lab.provisioner.calls]
    assert scripts == [("CREATE TABLE a (id int)",), ("CREATE TABLE b (id int)",)]


async def test_bootstrap_of_a_config_map_waits_for_it_and_names_it(lab: Lab) -> None:
    key = await created(lab, {"bootstrap": {"configMapRef": {"name": "schema"}}})
    await lab.start(key, POSTGRESQL)
    await lab.settle(key)
    block = (await lab.status(key))["engines"]["postgresql"]
    assert block["phase"] == "Failed"
    assert "schema" in block["message"]

    await lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "schema", "namespace": lab.namespace},
            "data": {"2.sql": "two", "1.sql": "one"},
        }
    )
    await lab.settle(key)

    [(*_, bootstrap)] = lab.provisioner.calls
    assert bootstrap.sql == ("one", "two")
    assert await phase(lab, key) == "Ready"


async def test_an_engine_that_does_not_answer_yet_is_provisioning_and_says_so(lab: Lab) -> None:
    lab.provisioner.error = ProvisionError(
        "the engine did not answer", reason=Reason.ENGINE_UNAVAILABLE, retry=True
    )
    key = await created(lab)
    await lab.start(key, POSTGRESQL)

    await lab.settle(key)

    block = (await lab.status(key))["engines"]["postgresql"]
    assert (block["phase"], block["message"]) == ("Provisioning", "the engine did not answer")


async def test_a_bootstrap_the_engine_refuses_stalls_with_its_message(lab: Lab) -> None:
    lab.provisioner.error = ProvisionError(
        'syntax error at "SELEC"', reason=Reason.BOOTSTRAP_FAILED, retry=False
    )
    key = await created(lab, {"bootstrap": {"sql": ["SELEC 1"]}})
    await lab.start(key, POSTGRESQL)

    await lab.settle(key)

    block = (await lab.status(key))["engines"]["postgresql"]
    assert block["phase"] == "Failed"
    assert "SELEC" in block["message"]
    assert (await lab.condition(key, "Stalled"))["reason"] == "BootstrapFailed"


async def test_an_empty_volume_in_place_of_the_old_one_is_provisioned_again(lab: Lab) -> None:
    key = await created(lab)
    await lab.start(key, POSTGRESQL)
    await lab.settle(key)
    volume = await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")
    await lab.cluster.patch(kinds.VOLUME_CLAIM, volume, {"metadata": {"finalizers": None}})
    volume = await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")
    await lab.cluster.delete(kinds.VOLUME_CLAIM, volume)
    await lab.volume(key, POSTGRESQL)

    await lab.settle(key)

    assert len(lab.provisioner.calls) == 2


async def test_a_changed_password_of_the_application_is_provisioned(lab: Lab) -> None:
    key = await created(lab)
    await lab.start(key, POSTGRESQL)
    await lab.settle(key)
    live = await lab.read(kinds.SECRET, "prices-postgresql-admin")
    await lab.cluster.patch(kinds.SECRET, live, {"stringData": {"app-password": "changed"}})

    await lab.settle(key)

    assert lab.provisioner.calls[-1][3]["app-password"] == "changed"
    assert (await lab.secret("prices-postgresql-app"))["password"] == "changed"
    assert "changed" in (await lab.secret("prices-connection"))["connection.json"]
    assert (await lab.secret("prices-recovery"))["postgresql.app-password"] == "changed"
