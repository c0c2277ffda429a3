"""An HTTP server that answers as a test says and remembers what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


@dataclass
class Recorder:
    """`asked` holds (method, path with query, body), oldest first."""

    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def asked_for(self, part: str) -> tuple[str, str, str]:
        """The first request with `part` in its path or body; waits for it a little."""
        async with asyncio.timeout(5):
            while True:
                for request in self.asked:
                    if part in request[1] or part in request[2]:
                        return request
                await asyncio.sleep(0.01)


@asynccontextmanager
async def recording(answer: Answer) -> AsyncIterator[Recorder]:
    """Serve until the block ends."""
    recorder = Recorder()

    async def handle(request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        recorder.asked.append((request.method, request.path_qs, body))
        return await answer(request, body)

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    recorder.port = runner.addresses[0][1]
    try:
        yield recorder
    finally:
        await runner.cleanup()
