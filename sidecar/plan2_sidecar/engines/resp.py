"""One connection to a server that speaks the Redis protocol, shared by all who ask at once.

Commands asked for in one turn of the loop leave in one write, and replies come back in order.
A connection that stays silent for SILENCE_SECONDS while somebody waits is given up. hiredis
packs and parses; redis-py's own layers cost ten times the CPU a command.
"""

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, Self, cast

import hiredis

from plan2_sidecar.engines.base import IDLE_SECONDS
from plan2_sidecar.errors import ConnectionLost, EngineUnavailable

# Long enough for a server that is held up by its node: with 0.25 s, two busy cores were enough
# to fail calls that had seconds left. Who has a fallback gives its call a shorter deadline,
# which ends that call and leaves the connection to the others.
SILENCE_SECONDS: Final = 1.0
# A look that comes later than this comes from a process that stood still.
LATE_SECONDS: Final = 0.1

# False is a reply.
_MORE: Final = object()

Argument = bytes | str | int | float


class Waiting(Protocol):
    """Who waits for a reply: a future, or what is told as one."""

    def done(self) -> bool:
        """Nobody does any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """The reply."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """The connection ended: a Problem."""
        ...


class Channel(asyncio.Protocol):
    """A connection; `closed` once it is of no more use.

    `on_push` gets what the server says unasked, before any reply that came after it;
    `on_end` is called once, at the end.
    """

    def __init__(self) -> None:
        self.closed = False
        self.version = ""
        self.on_push: Callable[[list[Any]], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[Waiting] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        # When the server was heard last, and when somebody began to wait.
        self._heard = self._asked = self.loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._due = math.inf

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> Self:
        """Connected, and nothing said yet; raises OSError."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(cls, host, port, ssl=tls)
        return channel

    @property
    def busy(self) -> bool:
        """Somebody waits for a reply."""
        return bool(self._waiting)

    def ask(self, *command: Argument) -> asyncio.Future[Any]:
        """The reply to come: an error reply is its result, a lost connection its exception."""
        reply: asyncio.Future[Any] = self.loop.create_future()
        if self.closed:
            reply.set_exception(EngineUnavailable("the connection is closed"))
            return reply
        packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # any length
        self.send(packed, (reply,))
        return reply

    def send(self, packed: bytes, waiting: Sequence[Waiting]) -> None:
        """Send commands together, as the wire has them; `waiting` are who gets each reply.

        Each is told at once, not in the loop's next turn. The connection must not be closed.
        """
        if not self._unsent:
            self.loop.call_soon(self._flush)
        if not self._waiting:
            self._asked = self.loop.time()
            if self._due > self._asked + SILENCE_SECONDS:
                self._rearm(SILENCE_SECONDS)
        self._unsent.append(packed)
        self._waiting.extend(waiting)

    def close(self) -> None:
        """At once; those who wait are told."""
        self._end("the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        waiting, gets = self._waiting, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    if self.on_push is not None:
                        self.on_push(reply)
                elif waiting:
                    first = waiting.popleft()
                    if not first.done():
                        first.set_result(reply)
        except hiredis.ProtocolError as error:
            self._end(f"the server broke the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the server closed the connection")

    def _flush(self) -> None:
        commands, self._unsent = self._unsent, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(commands))

    def _rearm(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._due = self.loop.time() + seconds
        self._watch = self.loop.call_at(self._due, self._check)

    def _check(self) -> None:
        limit = SILENCE_SECONDS if self._waiting else IDLE_SECONDS
        now = self.loop.time()
        silent = now - max(self._heard, self._asked)
        if silent < limit:
            self._rearm(limit - silent)
        elif self._waiting and now - self._due > LATE_SECONDS:
            # What came meanwhile is not read yet, and what was to leave has not left.
            self._rearm(SILENCE_SECONDS / 4)
        elif self._waiting:
            self._end(f"no reply for {SILENCE_SECONDS} s")
        else:
            self._end("idle")

    def _end(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(ConnectionLost(why))
        if self.on_end is not None:
            self.on_end()
