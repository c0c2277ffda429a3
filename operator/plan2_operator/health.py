"""/livez, /readyz and /metrics of the operator, and the pulse behind them.

The pulse beats on the event loop: a loop that hangs, or a reconcile that never ends, stops it,
and with it /livez.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from plan2_operator import metrics

BEAT_SECONDS: Final = 5.0


class Pulse:
    """Alive while it beats; ready once `started` is set."""

    def __init__(self, *, limit_seconds: float, clock: Callable[[], float]) -> None:
        self._limit = limit_seconds
        self._clock = clock
        self._last = clock()
        self.started = False

    def beat(self) -> None:
        self._last = self._clock()
        metrics.last_tick.set(time.time())

    def alive(self) -> bool:
        return self._clock() - self._last <= self._limit


async def keep_beating(pulse: Pulse, well: Callable[[], bool]) -> None:
    """Beat for as long as `well` says so; runs until cancelled."""
    while True:
        if well():
            pulse.beat()
        await asyncio.sleep(BEAT_SECONDS)


@asynccontextmanager
async def served(pulse: Pulse, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve health and metrics; gives the port that was bound."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", _answer(pulse.alive)),
            web.get("/readyz", _answer(lambda: pulse.started and pulse.alive())),
            web.get("/metrics", _metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _answer(well: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if well() else web.Response(status=503, text="no\n")

    return answer


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )
