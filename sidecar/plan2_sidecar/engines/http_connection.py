"""aiohttp's connection to an engine, with a way past its parser for the body of a stream.

What this knows of aiohttp's inside is pinned to the minor version in pyproject.toml, and held to
what is installed by tests/unit/sidecar/test_http_connection.py.
"""

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from plan2_sidecar.engines.http_chunks import Chunks, Part

# So much of an answer waits to be taken; then the engine has to. A buffer that was full is
# followed by one of twice its size: a short answer should take little, and a long one few pieces.
_FIRST_BUFFER_BYTES: Final = 131_072
_BUFFER_BYTES: Final = 1_572_864


class Body:
    """The part of one answer's body that aiohttp does not see; `response.content` has the rest."""

    def __init__(self) -> None:
        self._chunks = Chunks()
        self._connection: _Connection | None = None
        self._reader: _Reader | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def take(self) -> list[Part]:
        """What came since, waiting for some; nothing when there will be no more.

        It is what it is until the next is asked for.
        """
        if self._reader is not None and not self._chunks.parts:
            self._reader.go_on()
        while not self._chunks.parts:
            if self._chunks.over or self._connection is None:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken, self._chunks.parts = self._chunks.parts, []
        if self._reader is not None:
            self._reader.wait()
        return taken

    def begin(self, connection: "_Connection") -> None:
        """A request is sent on it, perhaps once more."""
        self._connection = connection
        self._chunks = Chunks()
        self._reader = None

    def lose(self, connection: "_Connection") -> None:
        """The connection is gone; another one may have its request by then."""
        if self._connection is connection:
            self._connection = self._reader = None
            self._wake()

    def heads(self, data: bytes) -> bytes:
        """Take what comes until the head was read; what of it is for aiohttp."""
        if self._chunks.over:
            return data
        rest = self._chunks.head(data)
        if self._chunks.headed and not self._chunks.over:
            assert self._connection is not None
            assert self._connection.transport is not None
            self._reader = _Reader(self, self._connection, self._connection.transport)
        self._wake()
        return rest

    def feed(self, buffer: bytearray, start: int, end: int) -> bytes | None:
        """Take what comes behind the head; what aiohttp goes on with, None until then."""
        rest = self._chunks.feed(buffer, start, end)
        self._wake()
        if not self._chunks.over:
            return None
        self._reader = None
        return rest

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Reader(asyncio.BufferedProtocol):
    """The connection's place at its transport while chunks come: they are read into one buffer.

    The engine waits while what is in it is passed on.
    """

    def __init__(self, body: Body, connection: "_Connection", transport: asyncio.Transport) -> None:
        self._body = body
        self._connection = connection
        self._transport = transport
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._waiting = False
        transport.set_protocol(self)

    def wait(self) -> None:
        """Leave the buffer as it is."""
        if not self._waiting:
            self._waiting = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Fill the buffer anew, if it is to be left no longer."""
        if self._waiting:
            self._waiting = False
            if self._filled == len(self._buffer) < _BUFFER_BYTES:
                self._buffer = bytearray(min(2 * self._filled, _BUFFER_BYTES))
                self._view = memoryview(self._buffer)
            self._filled = 0
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        began, self._filled = self._filled, self._filled + nbytes
        rest = self._body.feed(self._buffer, began, self._filled)
        if rest is not None:
            self._transport.set_protocol(self._connection)
            self._connection.data_received(rest)
        elif self._filled == len(self._buffer):
            self.wait()

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


_BODY: Final[ContextVar[Body | None]] = ContextVar("body", default=None)


@contextmanager
def into(body: Body) -> Iterator[None]:
    """The answer to the request made here goes into `body`, as far as it is in plain chunks."""
    token = _BODY.set(body)
    try:
        yield
    finally:
        _BODY.reset(token)


class Connector(aiohttp.TCPConnector):
    """One whose connections know `into`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: functools.partial[Any] = functools.partial(_Connection, loop=self._loop)


class _Connection(ResponseHandler):
    _body: Body | None = None

    def set_response_params(self, **params: Any) -> None:
        self._body = _BODY.get()
        if self._body is not None:
            self._body.begin(self)
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        # aiohttp itself calls this with nothing, to have its parser go on.
        if data and self._body is not None:
            data = self._body.heads(data)
            if not data:
                return
        super().data_received(data)
        error = self.exception()
        if error is not None and self._payload is not None:
            # aiohttp ends the connection, and leaves who waits for the body waiting.
            self._payload.set_exception(aiohttp.ClientPayloadError(str(error)), error)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._body is not None:
            self._body.lose(self)
