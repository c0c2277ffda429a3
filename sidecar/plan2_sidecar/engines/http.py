"""HTTP to an engine over aiohttp: one session, connections kept while they are used.

It knows no engine: statuses and bodies are read by the engine's own module. What breaks on the
way is told apart by whether the engine may have run the request.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    Calls,
    answering,
    nearest,
    tls_context,
)
from plan2_sidecar.engines.http_chunks import Part
from plan2_sidecar.engines.http_connection import Body, Connector, into
from plan2_sidecar.errors import ConnectionLost, EngineUnavailable, Internal, Problem

ERRORS: Final[Mapping[type[BaseException], type[Problem]]] = {
    aiohttp.ClientError: ConnectionLost,
    aiohttp.ClientConnectorError: EngineUnavailable,
    aiohttp.ClientSSLError: EngineUnavailable,
    aiohttp.ServerTimeoutError: ConnectionLost,
    aiohttp.ConnectionTimeoutError: EngineUnavailable,
    aiohttp.InvalidURL: Internal,
    ConnectionError: ConnectionLost,
    OSError: EngineUnavailable,
    # Not the engine answered, or not one we know; a request was sent all the same.
    msgspec.DecodeError: ConnectionLost,
}
# In one, or in parts that are what they are until the next piece is asked for.
Piece = bytes | list[Part]

_JSON: Final = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are matched without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream:
    """An answer whose body is still coming."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Body,
        content: aiohttp.StreamReader,
        deadline: Deadline,
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._content = content
        self._deadline = deadline

    async def pieces(self) -> AsyncIterator[Piece]:
        """The body as it comes; while nobody takes the next piece, the engine has to wait."""
        while True:
            with self._deadline.enforced():
                piece: Piece = await self._body.take() or await self._content.readany()
            if not piece:
                return
            yield piece

    async def whole(self) -> Reply:
        """What is left of it, at once."""
        parts = [joined(piece) async for piece in self.pieces()]
        return Reply(self.status, self.headers, b"".join(parts))


class HttpEngine:
    """One engine's address. The session begins with the first request, in its loop."""

    def __init__(
        self,
        engine: Engine,
        base: str,
        *,
        limit: int,
        ca_pem: str | None,
        headers: Mapping[str, str],
        keepalive_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._engine = engine
        self._base = base
        self._limit = limit
        self._tls = tls_context(base.startswith("https:"), ca_pem)
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._keepalive_seconds = keepalive_seconds
        self._calls = Calls()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json: Any = None,
    ) -> Reply:
        """Send and read it all; raises EngineUnavailable, ConnectionLost, DeadlineExceeded."""
        sent = dict(headers or {})
        if json is not None:
            body = _JSON.encode(json)
            sent["Content-Type"] = "application/json"
        with answering(self._engine, translate):
            async with (
                self._calls,
                deadline.enforced(),
                self._open().request(
                    method, self._base + path, params=query, headers=sent, data=body
                ) as response,
            ):
                return Reply(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def streamed(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator["Stream"]:
        """Send, and read no more than the body asks for; what is left unread ends the connection.

        Raises as `request` does; `Stream` raises aiohttp's own errors besides.
        """
        content = Body()
        async with self._calls:
            with deadline.enforced(), into(content):
                response = await self._open().request(
                    method, self._base + path, params=query, headers=headers, data=body
                )
            try:
                yield Stream(response.status, response.headers, content, response.content, deadline)
            finally:
                # A body that was read to its end has given the connection back already.
                response.close()

    def pool(self) -> dict[str, int]:
        """`size`, `idle`, `inUse`, `max`."""
        in_use = idle = 0
        if self._session is not None and isinstance(self._session.connector, aiohttp.TCPConnector):
            # aiohttp counts its connections only here.
            in_use = len(self._session.connector._acquired)
            idle = sum(len(kept) for kept in self._session.connector._conns.values())
        return {"size": in_use + idle, "idle": idle, "inUse": in_use, "max": self._limit}

    async def drained(self, seconds: float) -> None:
        """Return when no call is under way, or `seconds` are over."""
        await self._calls.drained(seconds)

    async def close(self, grace_seconds: float) -> None:
        """Let calls under way finish, then close every connection."""
        await self._calls.drained(grace_seconds)
        self._closed = True
        if self._session is not None:
            await self._session.close()
            # The transports of TLS connections end in the loop's next rounds.
            await asyncio.sleep(0)

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise EngineUnavailable("this connection was closed")
        if self._session is None:
            connector = Connector(
                limit=self._limit,
                keepalive_timeout=self._keepalive_seconds,
                ssl=self._tls or True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def translate(error: Exception) -> Problem | None:
    """What aiohttp raised, in the sidecar's words; None for what is not its own."""
    ours = nearest(ERRORS, error)
    if ours is None:
        return None
    if isinstance(error, aiohttp.ClientConnectorError):
        return ours(f"no connection to {error.host}:{error.port}: {error.os_error}")
    if isinstance(error, msgspec.DecodeError):
        return ours(f"what answered does not speak as the engine does: {error}")
    return ours(str(error) or type(error).__name__)


def joined(piece: Piece) -> bytes:
    """The piece in one, to be kept."""
    return piece if isinstance(piece, bytes) else b"".join(part.view() for part in piece)


def authority(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
