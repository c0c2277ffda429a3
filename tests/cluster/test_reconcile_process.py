"""The operator as its own process: killed, restarted, watching, and not there at all."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from cluster.control_plane import ControlPlane
from fixtures import operator_lab
from fixtures.operator_lab import NAMESPACE, Lab, operator
from plan2_contract import names
from plan2_contract.engines import SIX, Engine
from plan2_operator import kinds
from plan2_operator.cluster import Cluster, Missing
from plan2_operator.work_queue import Key

pytestmark = pytest.mark.cluster

ONLY: dict[str, Any] = {
    engine.value: {"enabled": False} for engine in SIX if engine is not Engine.POSTGRESQL
}
KILLS = 10


@pytest.fixture(scope="module")
async def controlled(
    control_plane_with_controllers: ControlPlane,
) -> AsyncIterator[Cluster]:
    """A cluster whose garbage collector and StatefulSet controller run."""
    async with operator_lab.connected(control_plane_with_controllers) as cluster:
        yield cluster


@pytest.fixture
async def lab(controlled: Cluster) -> AsyncIterator[Lab]:
    async with operator_lab.laboratory(controlled) as made:
        yield made


class Watcher:
    """Every value that ever stood under a key of a Secret of passwords."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.values: dict[tuple[str, str], set[str]] = {}

    async def keep_looking(self) -> None:
        while True:
            for secret in await self._lab.cluster.list(kinds.SECRET, self._lab.namespace, {}):
                name = secret["metadata"]["name"]
                if name.endswith(("-admin", "-recovery")):
                    for key, value in secret["data"].items():
                        self.values.setdefault((name, key), set()).add(value)
            await asyncio.sleep(0.05)


async def test_killed_ten_times_each_password_is_generated_once(
    lab: Lab, control_plane_with_controllers: ControlPlane
) -> None:
    random = Random(20261123)
    watcher = Watcher(lab)
    watching = asyncio.create_task(watcher.keep_looking())
    cut_short = 0
    for number in range(KILLS):
        key = await lab.create(f"killed-{number}", {})
        async with operator(control_plane_with_controllers.kubeconfig) as process:
            await asyncio.sleep(random.uniform(0.0, 1.2))
            process.kill()
        secrets = [name for kind, name in await lab.owned(key) if kind == "Secret"]
        cut_short += len(secrets) < len(SIX) * 2 + 3
    assert cut_short >= 2, "the kills came after the first reconciles: nothing was shown"

    async def complete() -> bool:
        owned = [await lab.owned(Key(lab.namespace, f"killed-{n}")) for n in range(KILLS)]
        return all(
            sum(kind == "Secret" for kind, _ in each) == len(SIX) * 2 + 3
            and sum(kind == "StatefulSet" for kind, _ in each) == len(SIX)
            for each in owned
        )

    async with operator(control_plane_with_controllers.kubeconfig):
        await operator_lab.until(complete, seconds=60)
    watching.cancel()

    changed = {identity for identity, values in watcher.values.items() if len(values) > 1}
    assert changed == set()
    for number in range(KILLS):
        recovery = await lab.secret(f"killed-{number}-recovery")
        for engine in SIX:
            admin = await lab.secret(names.admin_secret(f"killed-{number}", engine))
            generated = admin.keys() - {"username", "users.acl", "users.xml"}
            assert generated
            for part in generated:
                assert recovery[f"{engine}.{part}"] == admin[part]


async def test_what_is_deleted_or_edited_comes_back_within_seconds(
    lab: Lab, control_plane_with_controllers: ControlPlane
) -> None:
    async with operator(control_plane_with_controllers.kubeconfig) as process:
        key = await lab.create("prices", ONLY)
        await operator_lab.until(lambda: is_made(lab, key), seconds=60)
        before = await lab.owned(key)
        for kind in kinds.OWNED:
            live = await lab.read(kind, "prices-postgresql")
            await lab.cluster.delete(kind, live)

        async def all_back() -> bool:
            now = await lab.owned(key)
            return set(now) == set(before) and all(
                now[identity]["metadata"]["uid"] != before[identity]["metadata"]["uid"]
                for identity in before
                if identity[1] == "prices-postgresql"
            )

        await operator_lab.until(all_back, seconds=40)
        live = await lab.read(kinds.SERVICE, "prices-postgresql")
        await lab.cluster.patch(
            kinds.SERVICE, live, {"spec": {"selector": {names.LABEL_NAME: "else"}}}
        )

        async def undone() -> bool:
            service = await lab.read(kinds.SERVICE, "prices-postgresql")
            return bool(service["spec"]["selector"][names.LABEL_NAME] == "postgresql")

        await operator_lab.until(undone, seconds=40)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_an_idle_operator_writes_nothing(
    lab: Lab, control_plane_with_controllers: ControlPlane
) -> None:
    async with operator(control_plane_with_controllers.kubeconfig):
        key = await lab.create("prices", ONLY)
        await operator_lab.until(lambda: is_made(lab, key), seconds=60)
        await asyncio.sleep(2)
        before = await lab.versions(key)

        await asyncio.sleep(6)

        assert await lab.versions(key) == before
    meta = (await lab.read(kinds.PLATFORM, "prices"))["metadata"]
    assert "finalizers" not in meta
    assert "annotations" not in meta


async def test_only_the_named_namespaces_are_looked_after(
    lab: Lab, control_plane_with_controllers: ControlPlane
) -> None:
    async with operator_lab.laboratory(lab.cluster) as other:
        elsewhere = await other.create("prices", ONLY)
        key = await lab.create("prices", ONLY)
        async with operator(
            control_plane_with_controllers.kubeconfig, PLAN2_WATCH_NAMESPACES=lab.namespace
        ):
            await operator_lab.until(lambda: is_made(lab, key), seconds=60)
            await asyncio.sleep(1)

        assert await other.owned(elsewhere) == {}


async def test_a_namespace_is_deleted_while_the_operator_is_down(lab: Lab) -> None:
    key = await lab.create("prices", ONLY)
    await lab.run(key)
    await lab.cluster._request(
        "delete", f"/api/v1/{NAMESPACE.plural}/{lab.namespace}", body={"gracePeriodSeconds": 0}
    )

    async def gone() -> bool:
        # Nobody plays the kubelet here: a pod without a node ends at once all the same.
        try:
            await lab.cluster._request("get", f"/api/v1/{NAMESPACE.plural}/{lab.namespace}")
        except Missing:
            return True
        return False

    await operator_lab.until(gone, seconds=60)


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_what_becomes_of_secrets_and_volumes_is_the_deletion_policys(
    lab: Lab, policy: str
) -> None:
    key = await lab.create("prices", {**ONLY, "deletionPolicy": policy})
    await lab.run(key)
    claim = "data-prices-postgresql-0"

    async def volume() -> bool:
        return await lab.cluster.get(kinds.VOLUME_CLAIM, lab.namespace, claim) is not None

    await operator_lab.until(volume, seconds=60)
    if policy == "Delete":
        await operator_lab.until(lambda: is_owned_volume(lab, claim), seconds=60)
    await lab.cluster.delete(kinds.PLATFORM, await lab.read(kinds.PLATFORM, "prices"))

    async def collected() -> bool:
        kept = {kind for kind, _ in await lab.owned(key)}
        return kept == ({"Secret"} if policy == "Retain" else set())

    await operator_lab.until(collected, seconds=60)
    if policy == "Retain":
        assert await volume()
    else:
        await operator_lab.until(lambda: is_gone(lab, claim), seconds=60)


async def is_made(lab: Lab, key: Key) -> bool:
    """The first reconcile has come to its end."""
    return bool(await lab.status(key))


async def is_owned_volume(lab: Lab, name: str) -> bool:
    claim = await lab.read(kinds.VOLUME_CLAIM, name)
    return bool(claim["metadata"].get("ownerReferences"))


async def is_gone(lab: Lab, name: str) -> bool:
    claim = await lab.cluster.get(kinds.VOLUME_CLAIM, lab.namespace, name)
    # The protection of a claim in use is lifted by the kubelet's report that its pod has ended.
    return claim is None or claim["metadata"].get("deletionTimestamp") is not None
