"""How many sidecars share the limits: each that was asked for one tells the store it is alive."""

import asyncio
import secrets
from typing import Final, Protocol

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.store import CounterStore

KEY: Final = "p2:sidecars"
BEAT_SECONDS: Final = 5.0
GONE_MS: Final = 15_000
DEADLINE_SECONDS: Final = 1.0


class Sharing(Protocol):
    """Who knows how many share a limit."""

    @property
    def sidecars(self) -> int:
        """At least 1."""
        ...

    def join(self) -> None:
        """Be one of them."""
        ...


class Presence:
    """A part of the sidecar. It says nothing to the store before the first limit is checked."""

    def __init__(self, store: CounterStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._count = 1
        self._joined = False
        self._beat_at: float | None = None

    @property
    def sidecars(self) -> int:
        """By the last count that the store gave."""
        return self._count

    def join(self) -> None:
        """From the next look on we are counted."""
        self._joined = True

    async def look(self) -> None:
        """Beat when it is time."""
        now = self._clock()
        if not self._joined or (self._beat_at is not None and now - self._beat_at < BEAT_SECONDS):
            return
        deadline = Deadline.after(DEADLINE_SECONDS, self._clock)
        try:
            count = await self._store.run(scripts.PRESENT, KEY, [self._name, GONE_MS], deadline)
        except Problem:
            # The last count stands; health says what is wrong with the store.
            return
        self._count = max(1, count)
        self._beat_at = now

    async def close(self) -> None:
        """Leave at once, so that the others' shares grow."""
        if self._beat_at is None:
            return
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._store.ask(
                    "ZREM", KEY, self._name, deadline=Deadline.after(DEADLINE_SECONDS, self._clock)
                )
        except (Problem, TimeoutError):
            # It expires by itself.
            return
