"""The operations this sidecar runs, and their leases, which are renewed while it works.

A lease that cannot be renewed in time ends the work here before another may begin it: by the
sidecar's own clock, counted from before the lease was asked for.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from plan2_sidecar.deadline import Clock
from plan2_sidecar.errors import Problem
from plan2_sidecar.sagas.log import Claim, Log

LOG = logging.getLogger(__name__)

_RENEWALS: Final = 4
_AGAIN_SECONDS: Final = 0.25


@dataclass
class Held:
    """A claim and the task that works on it."""

    claim: Claim
    task: asyncio.Task[None]


class Leases:
    """Claims under way. `beat` runs while there are any."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._beating: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def start(self, claim: Claim, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` under the claim; it is cancelled when the lease is lost."""
        task = asyncio.get_running_loop().create_task(work)
        self._held[claim.id] = Held(claim, task)
        task.add_done_callback(lambda _: self._drop(claim.id, task))
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat())
        return task

    def task(self, identity: str) -> asyncio.Task[None] | None:
        """The work on that operation, where it is done here."""
        held = self._held.get(identity)
        return None if held is None else held.task

    async def close(self) -> list[Claim]:
        """Stop all work; the claims that are still ours, to be let go of."""
        held = list(self._held.values())
        tasks = [each.task for each in held] + ([self._beating] if self._beating else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [each.claim for each in held]

    def _drop(self, identity: str, task: asyncio.Task[None]) -> None:
        held = self._held.get(identity)
        if held is not None and held.task is task:
            del self._held[identity]

    async def _beat(self) -> None:
        often = pause = self._log.lease_ms / 1000 / _RENEWALS
        while self._held:
            await asyncio.sleep(pause)
            claims = [held.claim for held in self._held.values()]
            if not claims:
                return
            lost: set[str] = set()
            pause = often
            try:
                async with asyncio.timeout(self._log.lease_ms / 1000 / 2):
                    lost = {claim.id for claim in claims} - await self._log.renew(claims)
            except (Problem, TimeoutError) as error:
                # Perhaps there was no place among many slow queries: soon there may be one.
                pause = min(often, _AGAIN_SECONDS)
                LOG.info("leases could not be renewed just now: %s", error)
            for claim in claims:
                # One that has ended meanwhile is no longer held.
                held = self._held.get(claim.id)
                if held is None or held.claim is not claim:
                    continue
                if claim.id in lost or self._clock() >= claim.until:
                    LOG.warning("lost the lease of %s; another sidecar goes on", claim.id)
                    held.task.cancel()
