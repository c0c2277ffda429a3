"""One task for each resource, woken by anything that happens to it.

Wake-ups that come close together are one run; a run that fails is tried again after a backoff
with jitter; a run that succeeds says when it wants to look again. What a run does is the
caller's business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from plan2_operator import metrics
from plan2_operator.cluster import ClusterError

GATHER_SECONDS: Final = 0.15
"""A write of ours comes back as several events: wait for the rest of them."""
FIRST_BACKOFF_SECONDS: Final = 1.0
LAST_BACKOFF_SECONDS: Final = 60.0

_LOG: Final = logging.getLogger(__name__)


class Key(NamedTuple):
    """A resource by its namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Run = Callable[[Key], Awaitable[float | None]]
"""Brings a resource on; returns the seconds until the next look, or None when it is gone."""


@dataclass
class _Worker:
    task: asyncio.Task[None] | None = None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    running_since: float | None = None


class WorkQueue:
    """Runs `run` for each added key, never twice at a time for the same key."""

    def __init__(
        self,
        run: Run,
        *,
        random: Random,
        concurrency: int = 8,
        gather_seconds: float = GATHER_SECONDS,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        last_backoff_seconds: float = LAST_BACKOFF_SECONDS,
        on_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._run = run
        self._random = random
        self._slots = asyncio.Semaphore(concurrency)
        self._gather = gather_seconds
        self._first = first_backoff_seconds
        self._last = last_backoff_seconds
        self._on_run = on_run
        self._workers: dict[Key, _Worker] = {}

    def add(self, key: Key) -> None:
        """Run `key` soon; adding it again before it runs changes nothing."""
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker()
            worker.task = asyncio.create_task(self._work(key, worker), name=f"reconcile {key}")
        worker.wanted.set()

    def keys(self) -> list[Key]:
        return list(self._workers)

    def depth(self) -> int:
        """How many keys wait for their run."""
        return sum(worker.wanted.is_set() for worker in self._workers.values())

    def longest_run_seconds(self) -> float:
        """How long the oldest run that has not ended is at it."""
        now = asyncio.get_running_loop().time()
        started = [w.running_since for w in self._workers.values() if w.running_since is not None]
        return now - min(started) if started else 0.0

    async def close(self) -> None:
        """Cancel every task and wait for them."""
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.clear()

    async def _work(self, key: Key, worker: _Worker) -> None:
        pause: float | None = 0.0
        while pause is not None:
            await self._wait(worker, pause)
            pause = await self._attempt(key, worker)
        # An event that came during the last run belongs to a new resource of the same name.
        del self._workers[key]
        if worker.wanted.is_set():
            self.add(key)

    async def _wait(self, worker: _Worker, pause: float) -> None:
        if worker.failures:
            # Events must not turn a failing resource into a busy loop: its own writes make them.
            await asyncio.sleep(min(pause, self._first))
            pause = max(0.0, pause - self._first)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await worker.wanted.wait()
        if worker.wanted.is_set():
            await asyncio.sleep(self._gather)

    async def _attempt(self, key: Key, worker: _Worker) -> float | None:
        async with self._slots:
            worker.wanted.clear()
            worker.running_since = asyncio.get_running_loop().time()
            try:
                with metrics.reconcile_seconds.time():
                    pause = await self._run(key)
            except Exception as error:  # noqa: BLE001  a failing resource must not stop the others
                worker.failures += 1
                metrics.reconcile_errors.inc()
                pause = self._backoff(worker.failures)
                message = "%s: reconcile failed, again in %.1f s: %s"
                # What the API server refused is said by its message; only surprises need a trace.
                surprise = not isinstance(error, ClusterError)
                _LOG.error(message, key, pause, error, exc_info=surprise)
            else:
                worker.failures = 0
            finally:
                worker.running_since = None
                self._on_run()
        return pause

    def _backoff(self, failures: int) -> float:
        ceiling = min(self._last, self._first * 2.0 ** min(failures - 1, 10))
        return ceiling * self._random.uniform(0.5, 1.0)
