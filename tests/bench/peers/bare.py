"""The bare aiohttp handler: decodes a small JSON POST with msgspec and answers one.

bare.py PORT
"""

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web


class Check(msgspec.Struct, rename="camel"):
    client_id: str
    window_ms: int = 900_000
    limit: int = 100


class Decision(msgspec.Struct, rename="camel"):
    allowed: bool
    limit: int
    remaining: int


DECODER = msgspec.json.Decoder(Check)
ENCODER = msgspec.json.Encoder()


async def check(request: web.Request) -> web.Response:
    asked = DECODER.decode(await request.read())
    answer = Decision(allowed=True, limit=asked.limit, remaining=asked.limit - 1)
    return web.Response(body=ENCODER.encode(answer), content_type="application/json")


async def main(port: int) -> None:
    app = web.Application()
    app.router.add_post("/check", check)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
