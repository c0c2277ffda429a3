"""What was seen is kept while nothing happens, and never past what happened meanwhile."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator import kinds
from plan2_operator.cluster import Manifest
from plan2_operator.kinds import Kind
from plan2_operator.sight import Sight
from plan2_operator.work_queue import Key

KEY = Key("trading", "prices")
OTHER = Key("trading", "orders")


class Cluster:
    """One StatefulSet and its pod; counts the lists, and holds them up while `gate` is shut."""

    def __init__(self) -> None:
        self.lists = 0
        self.optional: tuple[Kind, ...] = ()
        self.gate = asyncio.Event()
        self.gate.set()
        self.replicas = 1

    def served(self) -> Sequence[Kind]:
        return (*kinds.OWNED, *self.optional)

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> list[Manifest]:
        self.lists += 1
        meta: dict[str, Any] = {
            "name": f"{labels.get(names.LABEL_INSTANCE, 'app')}-{kind.plural}",
            "namespace": namespace,
            "labels": names.labels(KEY.name, Engine.POSTGRESQL),
            "managedFields": [{"manager": "plan2-operator"}],
        }
        found = {"kind": kind.name, "metadata": meta, "spec": {"replicas": self.replicas}}
        await self.gate.wait()
        return [found]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def sight() -> Sight:
    return Sight(keep_seconds=300.0, clock=lambda: 0.0)


async def look(sight: Sight, cluster: Cluster, key: Key = KEY) -> int:
    """The replicas that were seen."""
    seen = await sight.resource(cluster, key)  # type: ignore[arg-type]  # as much of a Cluster as is asked
    return int(seen.objects["StatefulSet", f"{key.name}-statefulsets"]["spec"]["replicas"])


async def test_a_resource_at_rest_is_listed_once(sight: Sight, cluster: Cluster) -> None:
    await look(sight, cluster)
    listed = cluster.lists

    for _ in range(3):
        assert await look(sight, cluster) == 1

    assert cluster.lists == listed


async def test_what_is_kept_says_the_same_as_the_lists(sight: Sight, cluster: Cluster) -> None:
    first = await sight.resource(cluster, KEY)  # type: ignore[arg-type]  # as above

    again = await sight.resource(cluster, KEY)  # type: ignore[arg-type]  # as above

    assert first.objects.keys() == again.objects.keys()
    assert first.pods.keys() == again.pods.keys() == {Engine.POSTGRESQL}
    assert len(first.applications) == len(again.applications) == 1


async def test_an_event_makes_it_look_again_at_that_resource_alone(
    sight: Sight, cluster: Cluster
) -> None:
    await look(sight, cluster)
    await look(sight, cluster, OTHER)
    cluster.replicas = 3

    sight.lose(KEY)

    assert await look(sight, cluster) == 3
    assert await look(sight, cluster, OTHER) == 1


async def test_an_event_during_the_lists_is_not_lost(sight: Sight, cluster: Cluster) -> None:
    cluster.gate.clear()
    looking = asyncio.create_task(look(sight, cluster))
    await asyncio.sleep(0)
    while not cluster.lists:  # noqa: ASYNC110  the lists set no event
        await asyncio.sleep(0)
    cluster.replicas = 3
    sight.lose(KEY)
    cluster.gate.set()
    assert await looking == 1

    assert await look(sight, cluster) == 3


async def test_a_deletion_that_a_watch_missed_is_seen_after_a_while(cluster: Cluster) -> None:
    now = 0.0
    sight = Sight(keep_seconds=300.0, clock=lambda: now)
    await look(sight, cluster)
    cluster.replicas = 3

    now = 299.0
    assert await look(sight, cluster) == 1
    now = 301.0
    assert await look(sight, cluster) == 3


async def test_what_is_not_watched_is_never_kept(sight: Sight, cluster: Cluster) -> None:
    cluster.optional = (kinds.SERVICE_MONITOR,)
    await look(sight, cluster)
    listed = cluster.lists

    await look(sight, cluster)

    assert cluster.lists == listed + 1


async def test_without_watches_nothing_is_kept(cluster: Cluster) -> None:
    sight = Sight()
    await look(sight, cluster)
    cluster.replicas = 3

    assert await look(sight, cluster) == 3
