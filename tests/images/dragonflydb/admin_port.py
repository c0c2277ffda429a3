"""Dragonfly's admin port: RESP without a password, HTTP /healthz and /metrics, on one listener."""

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path

CHUNK = 65536
HTTP_METHODS = (b"GET ", b"HEAD", b"POST")


class AdminPort:
    """Each RESP connection is one to Redis, already logged in as the front's user."""

    def __init__(self, redis_socket: Path, user: str, password: str) -> None:
        self._socket = redis_socket
        self._login = _command("AUTH", user, password)

    async def serve(self, host: str, port: int) -> None:
        server = await asyncio.start_server(self._answer, host, port)
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, OSError):
            first = await reader.read(CHUNK)
            if first[:4] in HTTP_METHODS:
                await self._http(first, writer)
            elif first:
                await self._resp(first, reader, writer)
        writer.close()

    async def _resp(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        redis_reader, redis_writer = await self._logged_in()
        try:
            redis_writer.write(first)
            await _until_one_ends(
                _copy(reader, redis_writer),
                _copy(redis_reader, writer),
            )
        finally:
            redis_writer.close()

    async def _logged_in(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(self._login)
        if not (await reader.readline()).startswith(b"+OK"):
            writer.close()
            raise ConnectionError("redis does not know the front's user")
        return reader, writer

    async def _http(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        path = request.split(b" ", 2)[1].split(b"?")[0]
        status, body = "404 Not Found", b"not found\n"
        if path == b"/healthz":
            ready = await self._ready()
            status, body = ("200 OK", b"OK") if ready else ("503 Service Unavailable", b"LOADING")
        elif path == b"/metrics":
            status, body = "200 OK", await self._metrics()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()

    async def _ready(self) -> bool:
        try:
            return b"loading:0" in await self._ask("INFO", "persistence")
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def _metrics(self) -> bytes:
        try:
            info = (await self._ask("INFO", "all")).decode(errors="replace")
        except (OSError, asyncio.IncompleteReadError):
            return b""
        facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        names = {
            "dragonfly_uptime_in_seconds": "uptime_in_seconds",
            "dragonfly_connected_clients": "connected_clients",
            "dragonfly_memory_used_bytes": "used_memory",
            "dragonfly_memory_max_bytes": "maxmemory",
            "dragonfly_used_memory_rss_bytes": "used_memory_rss",
            "dragonfly_commands_processed_total": "total_commands_processed",
            "dragonfly_keyspace_hits_total": "keyspace_hits",
            "dragonfly_keyspace_misses_total": "keyspace_misses",
        }
        return "".join(f"{name} {facts.get(key, 0)}\n" for name, key in names.items()).encode()

    async def _ask(self, *words: str) -> bytes:
        reader, writer = await self._logged_in()
        try:
            writer.write(_command(*words))
            head = await reader.readline()
            return await reader.readexactly(int(head[1:]) + 2) if head[:1] == b"$" else head
        finally:
            writer.close()


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
    return "".join(parts).encode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def _until_one_ends(*copies: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(copy) for copy in copies]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
