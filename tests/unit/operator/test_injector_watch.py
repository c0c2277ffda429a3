"""The cache of resources: filled by a list, kept by a watch, kept through failures."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from plan2_operator.injector import watch
from plan2_operator.injector.kube import ApiError
from plan2_operator.injector.watch import Cache


def resource(name: str, image: str, version: str = "1", namespace: str = "trading") -> Any:
    return {
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
        "spec": {"sidecar": {"image": image}},
    }


class FakeKube:
    """Lists and watches played from a script; the last watch never ends."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        self.asked.append((path, dict(query or {})))
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(
        self, path: str, query: Mapping[str, str], *, timeout_seconds: float
    ) -> AsyncIterator[Any]:
        self.asked.append((path, dict(query)))
        if not self.watches:
            await asyncio.Event().wait()
        for event in self.watches.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def page(*items: Any, version: str = "10", following: str = "") -> Any:
    return {"metadata": {"resourceVersion": version, "continue": following}, "items": list(items)}


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until it holds; fails after more turns than any of them needs."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to that")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LONGEST_PAUSE_SECONDS", 0.0)


async def followed(kube: FakeKube, condition: Callable[[Cache], bool], *scopes: str) -> Cache:
    # A jitter of -0.5 makes every pause nought.
    cache = Cache(kube, scopes, jitter=lambda: -0.5)  # type: ignore[arg-type]  # a fake by shape
    task = asyncio.create_task(cache.run())
    try:
        await until(lambda: condition(cache) or task.done())
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return cache


def image(cache: Cache, name: str, namespace: str = "trading") -> str | None:
    found = cache.lookup(namespace, name)
    return found.image if found else None


async def test_a_list_in_pages_fills_it() -> None:
    kube = FakeKube([page(resource("a", "1"), following="more"), page(resource("b", "2"))], [])

    cache = await followed(kube, lambda cache: len(cache) == 2)

    assert (image(cache, "a"), image(cache, "b"), image(cache, "c")) == ("1", "2", None)
    assert kube.asked[1][1]["continue"] == "more"


async def test_a_watch_keeps_it_current() -> None:
    events = [
        {"type": "ADDED", "object": resource("b", "1", "11")},
        {"type": "MODIFIED", "object": resource("b", "2", "12")},
        {"type": "DELETED", "object": resource("a", "1", "13")},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}},
    ]
    kube = FakeKube([page(resource("a", "1"))], [events])

    cache = await followed(kube, lambda _: len(kube.asked) == 3)

    assert (image(cache, "a"), image(cache, "b")) == (None, "2")
    assert kube.asked[1][1]["resourceVersion"] == "10"
    assert kube.asked[2][1]["resourceVersion"] == "20"


async def test_a_version_too_old_is_a_new_list() -> None:
    lists = [page(resource("a", "1")), page(resource("a", "2"), version="50")]
    kube = FakeKube(lists, [[ApiError(410, "too old")]])

    cache = await followed(kube, lambda _: len(kube.asked) == 4)

    assert image(cache, "a") == "2"
    assert kube.asked[3][1]["resourceVersion"] == "50"


async def test_what_was_known_stays_while_the_api_server_is_away() -> None:
    lists = [page(resource("a", "1")), OSError("away"), OSError("away"), page(resource("a", "2"))]
    kube = FakeKube(lists, [[OSError("cut")]])
    seen: list[str | None] = []

    def recovered(cache: Cache) -> bool:
        seen.append(image(cache, "a"))
        return seen[-1] == "2"

    await followed(kube, recovered)

    assert None not in seen[seen.index("1") :]


async def test_a_failed_list_counts_as_tried_so_that_pods_are_still_injected() -> None:
    kube = FakeKube([ApiError(404, "no such kind")] * 50, [])

    cache = await followed(kube, Cache.tried)

    assert cache.lookup("trading", "a") is None


async def test_watched_namespaces_are_each_listed() -> None:
    one = page(resource("a", "1", namespace="one"))
    two = page(resource("a", "2", namespace="two"))
    kube = FakeKube([one, two], [])

    cache = await followed(kube, lambda cache: len(cache) == 2, "one", "two")

    assert (image(cache, "a", "one"), image(cache, "a", "two")) == ("1", "2")
    assert {path for path, _ in kube.asked} == {
        "/apis/plan2.io/v1alpha1/namespaces/one/plan2databases",
        "/apis/plan2.io/v1alpha1/namespaces/two/plan2databases",
    }
