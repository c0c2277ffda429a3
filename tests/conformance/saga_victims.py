"""Sidecars that kill themselves at a given point of an operation: a program of its own.

It reads one JSON object a line: `environment`, `kill_at` (the number of the probe at which the
sidecar sends itself SIGKILL; 0 for never) and `points` (a file that gets each probe's name).
Everything is imported before the first fork, so that a sidecar is there within moments.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from plan2_sidecar import app, engines
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.sagas.effects import arangodb, mongodb, named
from plan2_sidecar.settings import Settings
from plan2_sidecar.state import Sidecar
from plan2_sidecar.tokens import Tokens

IMPORTED = (engines, arangodb, mongodb, named)


class Death:
    """A probe that counts its calls and ends the process at one of them."""

    def __init__(self, kill_at: int, points: Path) -> None:
        self._kill_at = kill_at
        self._points = points
        self._count = 0

    async def __call__(self, point: str) -> None:
        self._count += 1
        with self._points.open("a") as file:
            file.write(f"{point}\n")
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


async def serve(order: dict[str, Any]) -> None:
    """A whole sidecar, but that it takes nothing over: what it does is its caller's alone."""
    environment = order["environment"]
    fleet = Fleet(ConnectionEnvironment(environment))
    sidecar = Sidecar(Settings.read(environment), fleet, Tokens(None, None))
    sidecar.sagas.runner.probe = Death(order["kill_at"], Path(order["points"]))
    sidecar.parts.remove(sidecar.sagas)
    async with app.listening(sidecar):
        await asyncio.Event().wait()


def main() -> None:
    """Until the input ends; the victims end with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.setpgrp()
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            asyncio.run(serve(json.loads(line)))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
