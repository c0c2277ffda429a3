"""Volumes on a real API server: they grow in place, never shrink, and outlive their engine."""

from typing import Any

import pytest

from fixtures.operator_lab import Lab
from plan2_contract import names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.cluster import Conflict, Manifest
from plan2_operator.kinds import Kind

pytestmark = pytest.mark.cluster

STORAGE_CLASS = Kind("StorageClass", "storage.k8s.io", "v1", "storageclasses")
OTHERS: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not Engine.POSTGRESQL
}


def sized(size: str, storage_class: str | None = None) -> dict[str, Any]:
    storage = {"size": size}
    if storage_class is not None:
        storage["storageClassName"] = storage_class
    return {**OTHERS, "postgresql": {"storage": storage}}


async def storage_class(lab: Lab, name: str, *, expands: bool) -> str:
    body = {
        "apiVersion": STORAGE_CLASS.api_version,
        "kind": STORAGE_CLASS.name,
        "metadata": {"name": name},
        "provisioner": "example.com/none",
        "allowVolumeExpansion": expands,
    }
    path = f"/apis/{STORAGE_CLASS.api_version}/{STORAGE_CLASS.plural}"
    try:
        await lab.cluster._request("post", path, body=body)
    except Conflict:
        return name
    return name


async def bound_volume(lab: Lab, size: str, storage_class: str) -> Manifest:
    claim = await lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": names.volume_claim("prices", Engine.POSTGRESQL),
                "namespace": lab.namespace,
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": storage_class,
                "resources": {"requests": {"storage": size}},
            },
        }
    )
    capacity = {"phase": "Bound", "capacity": {"storage": size}}
    await lab.put_status(kinds.VOLUME_CLAIM, claim, capacity)
    return claim


async def requested(lab: Lab) -> str:
    claim = await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")
    return str(claim["spec"]["resources"]["requests"]["storage"])


def template_size(stateful_set: Manifest) -> str:
    template = stateful_set["spec"]["volumeClaimTemplates"][0]["spec"]
    return str(template["resources"]["requests"]["storage"])


async def test_a_volume_grows_and_its_stateful_set_is_replaced_around_the_pod(lab: Lab) -> None:
    grows = await storage_class(lab, "grows", expands=True)
    key = await lab.create("prices", sized("1Gi", grows))
    await lab.run(key)
    await bound_volume(lab, "1Gi", grows)
    await lab.change(key, {"postgresql": {"storage": {"size": "2Gi"}}})

    await lab.run(key)

    assert await requested(lab) == "2Gi"
    leaving = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert leaving["metadata"]["deletionTimestamp"]
    assert leaving["metadata"]["finalizers"] == ["orphan"], "its pod must not go with it"

    await lab.run(key)
    still = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert still["metadata"]["uid"] == leaving["metadata"]["uid"]
    # What the garbage collector does once the pod is nobody's.
    await lab.cluster.patch(kinds.STATEFUL_SET, still, {"metadata": {"finalizers": None}})
    await lab.run(key)

    assert template_size(await lab.read(kinds.STATEFUL_SET, "prices-postgresql")) == "2Gi"


async def test_a_volume_that_cannot_grow_stalls_its_engine_and_keeps_it_running(lab: Lab) -> None:
    fixed = await storage_class(lab, "fixed", expands=False)
    key = await lab.create("prices", sized("1Gi", fixed))
    await lab.run(key)
    await bound_volume(lab, "1Gi", fixed)
    before = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    await lab.change(key, {"postgresql": {"storage": {"size": "2Gi"}}})

    await lab.run(key)

    after = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "StorageExpansionRefused")


async def test_a_size_below_the_live_volume_is_refused_and_nothing_written(lab: Lab) -> None:
    old = await lab.create("prices", sized("10Gi"))
    await lab.run(old)
    await lab.volume(old, Engine.POSTGRESQL, "10Gi")
    for kind, name in ((kinds.PLATFORM, "prices"), (kinds.STATEFUL_SET, "prices-postgresql")):
        await lab.cluster.delete(kind, await lab.read(kind, name))
    key = await lab.create("prices", sized("5Gi"))

    await lab.run(key)

    assert await requested(lab) == "10Gi"
    live = await lab.cluster.get(kinds.STATEFUL_SET, lab.namespace, "prices-postgresql")
    assert live is None
    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "StorageShrinkRefused")
    assert "spec.postgresql.storage.size" in stalled["message"]
    reasons = [reason for reason, _ in await lab.events("prices")]
    assert reasons.count("StorageShrinkRefused") == 1
    await lab.run(key)
    assert [reason for reason, _ in await lab.events("prices")] == reasons


async def test_turning_an_engine_off_never_costs_its_volume(lab: Lab) -> None:
    key = await lab.create("prices", {**sized("1Gi"), "deletionPolicy": "Delete"})
    await lab.run(key)
    claim = await lab.volume(key, Engine.POSTGRESQL, "1Gi")
    live = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    # What the StatefulSet's controller does under whenDeleted: Delete.
    owner = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": "prices-postgresql",
        "uid": live["metadata"]["uid"],
    }
    claim = await lab.cluster.patch(
        kinds.VOLUME_CLAIM, claim, {"metadata": {"ownerReferences": [owner]}}
    )
    await lab.change(key, {"postgresql": {"enabled": False}, "redis": {"enabled": True}})

    await lab.run(key)
    await lab.run(key)
    kept = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert kept["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"

    await lab.cluster.patch(kinds.VOLUME_CLAIM, claim, {"metadata": {"ownerReferences": None}})
    await lab.run(key)
    assert ("StatefulSet", "prices-postgresql") not in await lab.owned(key)
    await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")


async def test_a_major_version_that_cannot_read_the_volume_is_refused_before_it_starts(
    lab: Lab,
) -> None:
    key = await lab.create("prices", OTHERS)
    await lab.run(key)
    await lab.start(key, Engine.POSTGRESQL)
    await lab.settle(key)
    before = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    document = await lab.secret("prices-connection")
    await lab.change(key, {"postgresql": {"image": "postgres:18.1"}})

    await lab.run(key)

    after = await lab.read(kinds.STATEFUL_SET, "prices-postgresql")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    stalled = await lab.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "UpgradeRefused")
    assert "spec.postgresql.image" in stalled["message"]
    assert await lab.secret("prices-connection") == document

    await lab.change(key, {"postgresql": {"image": "postgres:17.12"}})
    await lab.run(key)
    assert (await lab.condition(key, "Stalled"))["status"] == "False"


async def test_an_image_that_never_ran_does_not_stand_in_the_way_of_the_right_one(
    lab: Lab,
) -> None:
    key = await lab.create("prices", {**OTHERS, "postgresql": {"image": "postgres:99"}})
    await lab.run(key)
    await lab.volume(key, Engine.POSTGRESQL)
    await lab.change(key, {"postgresql": {"image": "postgres:17.11"}})

    await lab.run(key)

    assert (await lab.condition(key, "Stalled"))["status"] == "False"


async def test_the_volume_is_told_its_image_once(lab: Lab) -> None:
    key = await lab.create("prices", OTHERS)
    await lab.run(key)
    await lab.start(key, Engine.POSTGRESQL)
    await lab.settle(key)
    claim = await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")

    await lab.settle(key)

    again = await lab.read(kinds.VOLUME_CLAIM, "data-prices-postgresql-0")
    assert again["metadata"]["resourceVersion"] == claim["metadata"]["resourceVersion"]
    assert again["metadata"]["annotations"]["plan2.io/image"] == "postgres:17.11"
