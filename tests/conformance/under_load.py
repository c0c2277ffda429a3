"""All engines behind one sidecar, and load on some of them: what the failure tests share."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.engine_cases import CASES, Case, make_room, opened, run
from conformance.engine_cases import connection as connect_to
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import SidecarClient, SidecarProcess
from plan2_contract import connection
from plan2_contract.connection import Document, Engines
from plan2_contract.engines import Engine

POOL = 4
TIMEOUT_MS = 1000
# For whoever must be answered however busy the machine is.
PATIENT_MS = 5000
# A deadline is kept with fivefold room: two cores are shared with seven engines.
LONGEST_SECONDS = 5 * TIMEOUT_MS / 1000
BY_ENGINE = {case.engine: case for case in CASES}
PAUSE_SECONDS = 0.02


@dataclass
class Outcomes:
    """What the calls of one engine came to: (status, code) and seconds each."""

    answers: list[tuple[int, str, float]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what was."""
        self.answers.clear()

    def kinds(self) -> Counter[tuple[int, str]]:
        """How often each status came with each code."""
        return Counter((status, code) for status, code, _ in self.answers)

    def slowest(self) -> float:
        """Seconds."""
        return max((seconds for _, _, seconds in self.answers), default=0.0)


class Load:
    """Workers that read from engines, one after the other, until stopped."""

    def __init__(self, client: SidecarClient) -> None:
        self._client = client
        self._workers: list[asyncio.Task[None]] = []
        self.outcomes: dict[Engine, Outcomes] = {engine: Outcomes() for engine in Engine}

    def on(self, engine: Engine, workers: int, timeout_ms: int = TIMEOUT_MS) -> None:
        """Begin to read from it."""
        case = BY_ENGINE[engine]
        for _ in range(workers):
            self._workers.append(asyncio.create_task(self._read(case, timeout_ms)))

    async def stop(self) -> None:
        """Cancel the workers; a bug in one of them is raised."""
        for worker in self._workers:
            worker.cancel()
        for outcome in await asyncio.gather(*self._workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _read(self, case: Case, timeout_ms: int) -> None:
        while True:
            started = time.monotonic()
            reply = await read(self._client, case, timeout_ms)
            code = reply.body.get("code", "") if reply.status != 200 else ""
            answer = (reply.status, code, time.monotonic() - started)
            self.outcomes[case.engine].answers.append(answer)
            await asyncio.sleep(PAUSE_SECONDS)


async def read(client: SidecarClient, case: Case, timeout_ms: int = TIMEOUT_MS) -> Any:
    """The case's read, through the API."""
    members: dict[str, Any] = {"options": {"timeoutMs": timeout_ms}}
    if case.read.params is not None:
        members["params"] = case.read.params
    return await client.query(case.read.query, case.engine.value, **members)


async def prepare(case: Case, server: EngineServer) -> None:
    """Make the case's table or collection, and write what it reads."""
    await make_room(case, server)
    async with opened(case.engine, connect_to(case, server)) as client:
        for query in (*case.prepare, case.write):
            await run(client, query)


def write_document(
    file: Path, servers: Mapping[Engine, EngineServer], ports: Mapping[Engine, int] | None = None
) -> None:
    """The connection document of these servers, some of them on another port."""
    ports = ports or {}
    engines = {
        engine.value: msgspec.structs.replace(
            connect_to(BY_ENGINE[engine], server, port=ports.get(engine)), pool_max=POOL
        )
        for engine, server in servers.items()
    }
    file.write_bytes(connection.encode(Document(version=1, engines=Engines(**engines))))


def all_servers(request: pytest.FixtureRequest) -> dict[Engine, EngineServer]:
    """Every engine, started."""
    return {case.engine: request.getfixturevalue(case.fixture) for case in CASES}


def sockets(sidecar: SidecarProcess) -> int:
    """How many sockets the process has open."""
    folder = Path(f"/proc/{sidecar.process.pid}/fd")
    count = 0
    for entry in folder.iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue  # closed in the meantime
    return count


class Gauges:
    """What the sidecar's metrics say: read without a ping to any engine."""

    def __init__(self, probes: SidecarClient) -> None:
        self._probes = probes

    async def breaker(self, engine: Engine) -> str:
        """closed, half-open or open."""
        value = await self._value("plan2_sidecar_breaker_open", f'engine="{engine.value}"')
        return {0.0: "closed", 0.5: "half-open", 1.0: "open"}[value]

    async def in_use(self) -> dict[str, float]:
        """Connections in use, an entry for each engine that has any."""
        found = {
            engine.value: await self._value(
                "plan2_sidecar_pool_connections", f'engine="{engine.value}"', 'state="inUse"'
            )
            for engine in Engine
        }
        return {name: count for name, count in found.items() if count}

    async def _value(self, name: str, *labels: str) -> float:
        text = (await self._probes.get("/metrics")).body
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if all(label in line for label in labels)
        )
