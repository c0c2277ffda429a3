"""What the injector knows of the cluster's Plan2Databases: their `spec.sidecar`, in memory.

Kept current by a watch, so that a request never waits for the API server. While a list or
watch fails, what was known last stays in use; a resource that is not known gets the defaults.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from plan2_contract import names
from plan2_operator.injector import sidecar
from plan2_operator.injector.kube import ApiError, Kube
from plan2_operator.injector.sidecar import Options

logger = logging.getLogger(__name__)

PAGE: Final = 200
WATCH_SECONDS: Final = 240
LONGEST_PAUSE_SECONDS: Final = 30.0
# An old resourceVersion: only a new list helps.
GONE: Final = 410
FAILURES: Final = (ApiError, aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError)


class Cache:
    """`lookup` answers from memory; `run` keeps the memory current until it is cancelled."""

    def __init__(
        self,
        kube: Kube,
        namespaces: tuple[str, ...] = (),
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kube = kube
        self._scopes: tuple[str | None, ...] = namespaces or (None,)
        self._jitter = jitter
        self._options: dict[str | None, dict[tuple[str, str], Options]] = {}
        self._tried: set[str | None] = set()

    def lookup(self, namespace: str, name: str) -> Options | None:
        """The resource's options, or None while it is unknown."""
        for scope in (namespace, None):
            found = self._options.get(scope, {}).get((namespace, name))
            if found is not None:
                return found
        return None

    def tried(self) -> bool:
        """Whether every list was asked for at least once, answered or not."""
        return len(self._tried) == len(self._scopes)

    def __len__(self) -> int:
        return sum(len(known) for known in self._options.values())

    async def run(self) -> None:
        """Follow every scope: the cluster, or each watched namespace."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._follow(scope))

    async def _follow(self, scope: str | None) -> None:
        pause = 1.0
        while True:
            try:
                version = await self._list(scope)
                self._tried.add(scope)
                pause = 1.0
                while True:
                    version = await self._watch(scope, version)
            except FAILURES as error:
                self._tried.add(scope)
                if isinstance(error, ApiError) and error.status == GONE:
                    continue
                logger.warning("%s in %s: %s", names.PLURAL, scope or "the cluster", error)
            await asyncio.sleep(pause * (0.5 + self._jitter()))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _list(self, scope: str | None) -> str:
        known: dict[tuple[str, str], Options] = {}
        query = {"limit": str(PAGE)}
        while True:
            page = await self._kube.get(_path(scope), query)
            known.update((_key(item), sidecar.options(item)) for item in page["items"])
            following = page["metadata"].get("continue")
            if not following:
                self._options[scope] = known
                return str(page["metadata"]["resourceVersion"])
            query["continue"] = following

    async def _watch(self, scope: str | None, version: str) -> str:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        events = self._kube.watch(_path(scope), query, timeout_seconds=WATCH_SECONDS + 30)
        async for event in events:
            body = event["object"]
            version = body["metadata"]["resourceVersion"]
            self._apply(scope, event["type"], body)
        return version

    def _apply(self, scope: str | None, kind: str, body: dict[str, Any]) -> None:
        if kind in ("ADDED", "MODIFIED"):
            self._options[scope][_key(body)] = sidecar.options(body)
        elif kind == "DELETED":
            self._options[scope].pop(_key(body), None)


def _path(scope: str | None) -> str:
    group = f"/apis/{names.GROUP}/{names.API_VERSION}"
    return (
        f"{group}/{names.PLURAL}"
        if scope is None
        else (f"{group}/namespaces/{scope}/{names.PLURAL}")
    )


def _key(body: dict[str, Any]) -> tuple[str, str]:
    metadata = body["metadata"]
    return metadata["namespace"], metadata["name"]
