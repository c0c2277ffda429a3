"""The engines of `--embedded` while a sidecar runs: started together, kept alive, ended after it.

A folder whose sidecar was killed is taken over once its engines have ended; those that linger are
asked, then made to.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

import psutil

from plan2_sidecar import app
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.embedded import clickhouse, postgresql, valkey
from plan2_sidecar.embedded.errors import CannotStart
from plan2_sidecar.embedded.folder import Child, Folder, free_port, locked
from plan2_sidecar.embedded.process import Process, Program
from plan2_sidecar.settings import Settings

LOG = logging.getLogger(__name__)

ENGINES: Final[tuple[ModuleType, ...]] = (postgresql, clickhouse, valkey)
LINGER_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.2
ATTEMPTS: Final = 3
REST_SECONDS: Final = (1.0, 2.0, 5.0, 15.0)
STEADY_SECONDS: Final = 60.0


async def serve(settings: Settings, path: Path, environ: Mapping[str, str]) -> None:
    """Start the engines, then serve as any sidecar does; raises CannotStart, OSError.

    Engines that are not embedded are configured by the environment as ever.
    """
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the sidecar listens, which hears them itself.
        loop.add_signal_handler(number, task.cancel if task else loop.stop)
    with contextlib.suppress(asyncio.CancelledError):
        async with running(path) as variables:
            await app.serve(settings, ConnectionEnvironment({**environ, **variables}))


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[dict[str, str]]:
    """The engines, ready inside and gone after; the classic variables that lead to them."""
    folder = Folder.open(path)
    try:
        await take_over(folder)
        LOG.info("starting PostgreSQL, ClickHouse and Valkey in %s", path)
        supervisor = Supervisor(folder)
        try:
            yield await supervisor.start()
        finally:
            await supervisor.stop()
    finally:
        folder.close()


class Supervisor:
    """The processes of one folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._processes: dict[str, Process] = {}
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self) -> dict[str, str]:
        """The variables that lead to them, when all serve; raises CannotStart."""
        begun = await asyncio.gather(*map(self._begin, ENGINES), return_exceptions=True)
        variables: dict[str, str] = {}
        for each in begun:
            if isinstance(each, BaseException):
                raise each
            variables |= each
        self._keeping = [
            asyncio.create_task(self._keep(process.program))
            for process in list(self._processes.values())
        ]
        return variables

    async def stop(self) -> None:
        """End them all, each in its own way."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in self._processes.values()))
        self._folder.state.children.clear()
        self._folder.save()

    async def _begin(self, engine: ModuleType) -> dict[str, str]:
        started = time.monotonic()
        for attempt in range(ATTEMPTS):
            home = self._folder.home(engine.NAME)
            program: Program = await asyncio.to_thread(engine.prepare, home)
            try:
                await self._launch(program).ready()
                break
            except CannotStart:
                # Somebody may have taken the port since it was free.
                if attempt == ATTEMPTS - 1 or free_port(home.port) == home.port:
                    raise
        seconds = time.monotonic() - started
        LOG.info("%s is ready at %s after %.1f s", program.name, program.address, seconds)
        variables: dict[str, str] = engine.variables(home)
        return variables

    def _launch(self, program: Program) -> Process:
        process = Process(program)
        self._processes[program.name] = process
        self._folder.state.children[program.name] = Child(process.pid, _started(process.pid))
        self._folder.save()
        return process

    async def _keep(self, program: Program) -> None:
        """Start it again whenever it ends, at the same address, with longer rests."""
        attempt, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._processes[program.name].ended:
                continue
            attempt = 0 if time.monotonic() - since > STEADY_SECONDS else attempt
            rest = REST_SECONDS[min(attempt, len(REST_SECONDS) - 1)]
            LOG.error("%s ended; it is started again in %s s (%s)", program.name, rest, program.log)
            await asyncio.sleep(rest)
            attempt, since = attempt + 1, time.monotonic()
            try:
                await self._launch(program).ready()
            except (CannotStart, OSError) as error:
                LOG.warning("%s", error)


async def take_over(folder: Folder) -> None:
    """Wait for the engines of a sidecar that was killed, and end those that linger."""
    if locked(folder.engines_lock):
        return
    LOG.info("waiting for the engines of the last sidecar here, which was killed")
    children = folder.state.children
    stop_signals = {postgresql.NAME: signal.SIGINT}
    for name, child in children.items():
        _send(child, stop_signals.get(name, signal.SIGTERM))
    until = time.monotonic() + LINGER_SECONDS
    insisted = False
    while not locked(folder.engines_lock):
        if time.monotonic() > until:
            if insisted:
                raise CannotStart(f"engines of an earlier run still work in {folder.path}")
            for child in children.values():
                _send(child, signal.SIGKILL)
            insisted, until = True, time.monotonic() + LINGER_SECONDS
        await asyncio.sleep(LOOK_SECONDS)


def _send(child: Child, number: signal.Signals) -> None:
    # The time of boot that the system counts from is adjusted a little while it runs.
    if abs(_started(child.pid) - child.started) < 2.0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _started(pid: int) -> float:
    """When the process began; 0 when there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
