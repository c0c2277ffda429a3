"""A caller of streams: one that reads them whole, and one that stops half-way."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from fixtures.fix_sidecar import SidecarProcess

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
# As /proc/net/tcp writes it.
ESTABLISHED = "01"


@dataclass(frozen=True)
class Streamed:
    """A whole stream: its rows, and the last line's one member."""

    status: int
    content_type: str
    content: bytes

    @property
    def lines(self) -> list[Any]:
        assert self.content.endswith(b"\n")
        return [json.loads(line) for line in self.content[:-1].split(b"\n")]

    @property
    def rows(self) -> list[Any]:
        return self.lines[:-1]

    @property
    def end(self) -> dict[str, Any]:
        return dict(self.lines[-1]["$end"])

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.lines[-1]["$error"])

    @property
    def problem(self) -> dict[str, Any]:
        return dict(json.loads(self.content))


async def streamed(
    sidecar: SidecarProcess, query: Any, target: str, *, accept: str = NDJSON, **members: Any
) -> Streamed:
    """POST /api/v2/query, read to the end."""
    body = {"query": query, "targetDatabase": target, **members}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{sidecar.url}/api/v2/query", json=body, headers={"Accept": accept}
        ) as response,
    ):
        return Streamed(response.status, response.content_type, await response.read())


@dataclass(frozen=True)
class HalfRead:
    """A connection on which a stream has begun, and nobody reads on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    begun: bytes

    async def hung_up(self) -> bool:
        """Whether the other side has ended the connection, which a reader alone would be told."""
        return not await asyncio.to_thread(self._established)

    def _established(self) -> bool:
        there, here = self.writer.get_extra_info("peername"), self.writer.get_extra_info("sockname")
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
            if ports == (there[1], here[1]):
                return state == ESTABLISHED
        return False

    async def rest(self) -> bytes:
        """What else comes until the other side ends the connection; b"" when it is reset."""
        try:
            async with asyncio.timeout(20):
                return await self.reader.read()
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def half_read(
    sidecar: SidecarProcess, query: Any, target: str, **members: Any
) -> AsyncIterator[HalfRead]:
    """Read the stream's beginning and stop; hung up when the block ends."""
    body = json.dumps({"query": query, "targetDatabase": target, **members}).encode()
    head = (
        f"POST /api/v2/query HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {NDJSON}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    # Small buffers, so that the sidecar soon finds nobody taking what it sends.
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", sidecar.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    try:
        writer.write(head.encode() + body)
        yield HalfRead(reader, writer, await reader.readuntil(b"\r\n\r\n"))
    finally:
        writer.transport.abort()
