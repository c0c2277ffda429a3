"""Provisioning beside the reconcile: a slow engine keeps its own task and nobody else waiting.

One attempt at a time for each engine, a backoff with jitter between attempts, and the outcome
kept until the next reconcile asks for it. What is done inside an engine is `provision`'s.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from plan2_contract.engines import Engine
from plan2_operator.provision import ProvisionError, Reason
from plan2_operator.work_queue import Key

FIRST_BACKOFF_SECONDS: Final = 1.0
LAST_BACKOFF_SECONDS: Final = 60.0
REFUSED_BACKOFF_SECONDS: Final = 5.0
"""After a refusal that waiting should not mend, tripled each time up to the last backoff.

The user may have mended it without telling us; and an engine in its first seconds may refuse a
login that it will take a moment later.
"""
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """`done`, or not yet: then `error` is that of the last attempt, if there was one."""

    done: bool
    error: ProvisionError | None = None


@dataclass
class _Attempts:
    fingerprint: str
    task: asyncio.Task[None] | None = None
    error: ProvisionError | None = None
    failures: int = 0
    next_at: float = 0.0


@dataclass
class Provisioning:
    """The attempts under way. `wake` is called with the key when one has ended."""

    clock: Callable[[], float]
    random: Random
    wake: Callable[[Key], None] = lambda _: None
    _attempts: dict[tuple[Key, Engine], _Attempts] = field(default_factory=dict)

    def look(
        self, key: Key, engine: Engine, fingerprint: str, attempt: Callable[[], Awaitable[None]]
    ) -> Outcome:
        """How provisioning to `fingerprint` stands; starts `attempt` when it is due."""
        attempts = self._attempts.setdefault((key, engine), _Attempts(fingerprint))
        if attempts.task is not None:
            if not attempts.task.done():
                return Outcome(done=False, error=attempts.error)
            self._settle(attempts)
        if attempts.fingerprint != fingerprint:
            attempts = self._attempts[key, engine] = _Attempts(fingerprint)
        elif attempts.failures == 0 and attempts.next_at:
            return Outcome(done=True)
        if self.clock() >= attempts.next_at:
            attempts.task = asyncio.create_task(
                self._run(key, attempt), name=f"provision {engine} of {key}"
            )
            attempts.task.add_done_callback(_taken)
        return Outcome(done=False, error=attempts.error)

    def busy(self, key: Key) -> bool:
        """Whether an attempt for an engine of the resource is under way or to be made again."""
        found = (self._attempts.get((key, engine)) for engine in Engine)
        return any(each is not None and (each.task or each.failures) for each in found)

    def forget(self, key: Key, engine: Engine) -> None:
        """Cancel what is under way for an engine and forget it."""
        attempts = self._attempts.pop((key, engine), None)
        if attempts is not None and attempts.task is not None:
            attempts.task.cancel()

    async def close(self) -> None:
        tasks = [attempts.task for attempts in self._attempts.values() if attempts.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._attempts.clear()

    async def _run(self, key: Key, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await attempt()
        finally:
            self.wake(key)

    def _settle(self, attempts: _Attempts) -> None:
        task, attempts.task = attempts.task, None
        if task is None or task.cancelled():
            return
        error = task.exception()
        if error is None:
            attempts.failures, attempts.error, attempts.next_at = 0, None, self.clock() or 1.0
            return
        if not isinstance(error, ProvisionError):
            _LOG.error("provisioning failed", exc_info=error)
            error = ProvisionError(
                f"provisioning failed: {type(error).__name__}",
                reason=Reason.PROVISIONING_FAILED,
                retry=True,
            )
        attempts.failures += 1
        attempts.error = error
        attempts.next_at = self.clock() + self._pause(attempts)

    def _pause(self, attempts: _Attempts) -> float:
        # More would overflow, and is past the last backoff anyway.
        tries = min(attempts.failures - 1, 10)
        if attempts.error is not None and not attempts.error.retry:
            return min(LAST_BACKOFF_SECONDS, REFUSED_BACKOFF_SECONDS * 3.0**tries)
        ceiling = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**tries)
        return ceiling * self.random.uniform(0.5, 1.0)


def _taken(task: asyncio.Task[None]) -> None:
    """Mark the exception as seen: an engine may be forgotten before anyone asks for it."""
    if not task.cancelled():
        task.exception()
