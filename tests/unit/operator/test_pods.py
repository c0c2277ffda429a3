"""The watch of the databases' pods: who is woken, where it goes on, and what a cut does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from plan2_contract import names
from plan2_operator import kinds, pods
from plan2_operator.cluster import Event, Live, Meta, Missing
from plan2_operator.work_queue import Key


def event(version: str, cr: str | None = "prices", kind: str = "MODIFIED") -> Event:
    labels = {} if cr is None else {names.LABEL_INSTANCE: cr}
    return Event(kind, Live(Meta(resourceVersion=version, namespace="trading", labels=labels)))


class Cluster:
    """Gives one prepared watch after the other, then one that never ends."""

    def __init__(self, *watches: list[Event | Exception]) -> None:
        self._watches = list(watches)
        self.begun: list[tuple[str | None, str]] = []
        self.done = asyncio.Event()

    async def watch(
        self, kind: kinds.Kind, namespace: str | None, labels: dict[str, str], version: str
    ) -> AsyncIterator[Event]:
        assert kind is kinds.POD
        assert labels == pods.LABELS
        self.begun.append((namespace, version))
        if not self._watches:
            self.done.set()
            await asyncio.Event().wait()
        for each in self._watches.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each


async def followed(cluster: Cluster, *namespaces: str) -> list[Key]:
    touched: list[Key] = []
    task = asyncio.create_task(
        pods.follow(cluster, namespaces, touched.append)  # type: ignore[arg-type]  # as much of a Cluster as is asked
    )
    async with asyncio.timeout(5):
        await cluster.done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return touched


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "PAUSE_SECONDS", 0.0)


async def test_each_event_wakes_the_resource_of_its_pod() -> None:
    cluster = Cluster([event("1"), event("2", "orders"), event("3", "prices", "DELETED")])

    woken = await followed(cluster)

    assert woken == [Key("trading", "prices"), Key("trading", "orders"), Key("trading", "prices")]


async def test_a_bookmark_wakes_nobody_and_is_where_the_next_watch_begins() -> None:
    cluster = Cluster([event("1"), event("7", None, "BOOKMARK")])

    woken = await followed(cluster)

    assert woken == [Key("trading", "prices")]
    assert cluster.begun == [(None, ""), (None, "7")]


async def test_a_watch_that_fails_begins_anew_with_every_pod() -> None:
    cluster = Cluster([event("1"), Missing("too old")], [event("1", kind="ADDED")])

    woken = await followed(cluster)

    assert len(woken) == 2
    assert [version for _, version in cluster.begun] == ["", "", "1"]


async def test_only_the_named_namespaces_are_followed() -> None:
    cluster = Cluster()

    await followed(cluster, "trading", "billing")

    assert set(cluster.begun) <= {("trading", ""), ("billing", "")}
