"""A plain HTTP server that sends the bytes of a file, in pieces of 64 KiB, as fast as they go.

    plain.py PORT FILE

`POST /rows` is the peer: what a client reads at best. `POST /` answers as ClickHouse does, so
that a sidecar in front of it shows what the sidecar alone costs.
"""

import asyncio
import sys
from pathlib import Path

import uvloop
from aiohttp import web

PIECE = 64 * 1024
HEADERS = {"Content-Type": "application/x-ndjson", "X-ClickHouse-Format": "JSONEachRow"}


async def main(port: int, content: memoryview) -> None:
    async def send(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        for start in range(0, len(content), PIECE):
            await response.write(content[start : start + PIECE])
        await response.write_eof()
        return response

    async def ping(request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    app = web.Application()
    app.router.add_post("/rows", send)
    app.router.add_post("/", send)
    app.router.add_get("/ping", ping)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), memoryview(Path(sys.argv[2]).read_bytes())))
