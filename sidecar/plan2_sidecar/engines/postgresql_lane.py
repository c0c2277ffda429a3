"""One connection that many short reads share: each is sent before those ahead of it are answered.

What leaves in one turn of the loop is one write, and what came by the next is one read; a
connection for each costs both for each. The server runs them one after the other, so a slow one
would hold up those behind it. Such a one ends the lane: whoever waits is told Unanswered and
asks on a connection of its own. That is safe, for the session can only read.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar import deadline
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.engines import postgresql_wire as wire
from plan2_sidecar.engines.base import IDLE_SECONDS, Unanswered
from plan2_sidecar.errors import DeadlineExceeded

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql_internals import Connection

# How its session is opened. The time is for what is left behind when a lane ends; a statement
# under way is waited for less long.
SETTINGS: Final = MappingProxyType(
    {"default_transaction_read_only": "on", "statement_timeout": "250ms"}
)
STALL_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.025
# A loop that is so late has not read what came meanwhile.
_LATE_SECONDS: Final = 0.01
MOST: Final = 64
# No answer of the lane takes longer than this, so only who has less is watched.
_HURRIED_SECONDS: Final = 0.2
_LONGEST_ANSWER: Final = 256 * 1024

Rows = Callable[["list[bytes] | BaseException"], None]


class Prepared:
    """A statement as a lane runs it: `name` is its own, `kinds` is what its values may be."""

    __slots__ = ("bound", "kinds", "lane", "name", "text")

    def __init__(self, name: str, text: str, kinds: tuple[frozenset[type], ...]) -> None:
        self.name = name.encode()
        self.text = text
        self.kinds = kinds
        self.bound = wire.bound(self.name, len(kinds))
        # The one that has it.
        self.lane: Lane | None = None


class Asked(msgspec.Struct, eq=False):
    """One statement under way. `over` is told once: rows, or what was raised instead."""

    prepared: Prepared
    over: Rows | None
    at: float = 0.0

    def tell(self, outcome: list[bytes] | BaseException) -> None:
        """Unless it was told before."""
        over, self.over = self.over, None
        if over is None:
            return
        if self.at:
            deadline.unwatch(self)
        over(outcome)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.tell(asyncio.CancelledError())

    def expire(self) -> None:
        """The time is over."""
        over = "the time given for this call is over"
        self.tell(DeadlineExceeded(over, database=Engine.POSTGRESQL))


class Watcher(Protocol):
    """Who is told what goes on on a lane; `quickest` is a round trip, in seconds."""

    quickest: float

    def took(self, answered: list[Asked], seconds: float) -> None:
        """The server took so long for these, one after the other."""
        ...

    def failed(self, prepared: Prepared, sqlstate: str) -> None:
        """The server refused it."""
        ...

    def ended(self, lane: Lane, held_up_by: Prepared | None) -> None:
        """It takes no more; `held_up_by` was too slow or too long."""
        ...


class Lane(asyncio.Protocol):
    """Speaks on `connection`, which asyncpg opened with SETTINGS."""

    def __init__(
        self, connection: Connection, watcher: Watcher, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.connection = connection
        self.closed = False
        self._watcher = watcher
        self._loop = loop
        self._asked: deque[Asked] = deque()
        self._unsent: list[bytes] = []
        self._rest = b""
        # When the server began with the first of `_asked`, as far as can be known here.
        self._since = time.monotonic()
        self._due = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._leaving = False
        self._idle = loop.call_later(IDLE_SECONDS, self._idled)
        self._transport = internals.take_over(connection, self)

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._asked)

    def ask(
        self, prepared: Prepared, values: list[Any], seconds: float, over: Rows
    ) -> Callable[[], None] | None:
        """Send it; None where it cannot be, else what cancels it, which is told as well."""
        asked = self._asked
        if self.closed or self._leaving or len(asked) >= MOST:
            return None
        sent = wire.run(prepared.bound, values, prepared.kinds)
        if sent is None:
            return None
        if prepared.lane is not self:
            sent = wire.parse(prepared.name, prepared.text) + sent
            prepared.lane = self
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(sent)
        if not asked:
            self._since = time.monotonic()
            if self._look is None:
                self._look_in(_LOOK_SECONDS)
        one = Asked(prepared, over)
        asked.append(one)
        if seconds < _HURRIED_SECONDS:
            one.at = self._loop.time() + seconds
            deadline.watch(one, self._loop)
        return one.cancel

    def forget(self, prepared: Prepared) -> None:
        """It will not be asked again."""
        if prepared.lane is self and not self.closed:
            # Sent with the next one.
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(wire.close(prepared.name))
        prepared.lane = None

    def leave(self) -> None:
        """End as soon as what is under way is answered."""
        self._leaving = True
        if not self._asked:
            self.end()

    def end(self, held_up_by: Prepared | None = None) -> None:
        """At once; those who wait are told Unanswered."""
        if self.closed:
            return
        self.closed = True
        self._idle.cancel()
        if self._look is not None:
            self._look.cancel()
        self.connection.terminate()
        self._watcher.ended(self, held_up_by)
        while self._asked:
            self._tell(self._asked.popleft(), Unanswered())

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        if self._rest:
            data = self._rest + data
        asked, at, size = self._asked, 0, len(data)
        answered: list[Asked] = []
        outcomes: list[tuple[list[bytes], str | None]] = []
        try:
            while at < size:
                found = wire.read(data, at)
                if found is None:
                    break
                rows, error, at = found
                outcomes.append((rows, error))
                answered.append(asked.popleft())
        except (wire.ProtocolBroken, IndexError):
            # What came before is not to be trusted either.
            asked.extendleft(reversed(answered))
            self.end()
            return
        self._rest = data[at:]
        if answered:
            self._watcher.took(answered, seconds)
        for one, (rows, error) in zip(answered, outcomes, strict=True):
            if error is not None:
                self._watcher.failed(one.prepared, error)
            self._tell(one, rows if error is None else Unanswered())
        if len(self._rest) > _LONGEST_ANSWER:
            self.end(asked[0].prepared if asked else None)
        elif self._leaving and not asked:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def _tell(self, one: Asked, outcome: list[bytes] | BaseException) -> None:
        try:
            one.tell(outcome)
        except Exception as error:  # noqa: BLE001 - the others are to be told all the same
            self._loop.call_exception_handler(
                {"message": "an answer of PostgreSQL was not taken", "exception": error}
            )

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self.closed:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _look_in(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._look = self._loop.call_at(self._due, self._looked)

    def _looked(self) -> None:
        self._look = None
        if not self._asked:
            return
        late = self._loop.time() - self._due > _LATE_SECONDS
        if not late and time.monotonic() - self._since > STALL_SECONDS + self._watcher.quickest:
            self.end(self._asked[0].prepared)
        else:
            self._look_in(_LOOK_SECONDS)

    def _idled(self) -> None:
        unused = time.monotonic() - self._since
        if not self._asked and unused >= IDLE_SECONDS:
            self.end()
        else:
            self._idle = self._loop.call_later(max(IDLE_SECONDS - unused, 1.0), self._idled)
