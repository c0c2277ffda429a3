"""What a thousand calls a second cost a server that does nothing: the floor of the open loop.

A loop in C, compiled here, sends the bytes that the sidecar answered with.
"""

import socket
import subprocess
from dataclasses import replace
from statistics import median

from bench import calls as making
from bench import load, stage
from bench.calls import Calls
from bench.cases import Http
from bench.compare import OPEN_CONNECTIONS, RATE
from bench.report import Figure
from bench.stage import Stage
from fixtures.engine_server import free_port

ANSWER_BYTES = 65536
ANSWER_SECONDS = 5.0


def measured(standing: Stage, case: Http, rounds: int, seconds: float) -> Figure:
    """The floor for this case of the sidecar's. Raises CalledProcessError without a compiler."""
    calls = case.at(standing)
    program = standing.folder / "floor"
    answer = standing.folder / "floor.answer"
    answer.write_bytes(_answer(calls))
    source = str(stage.PEERS / "floor.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), source], check=True)
    port = free_port()
    server = standing.serve([str(program), str(port), str(answer)], port)
    used = [
        load.open_loop(
            replace(calls, port=port),
            server.pid,
            rate=RATE,
            connections=OPEN_CONNECTIONS,
            seconds=seconds,
        ).cpu_us_per_call
        for _ in range(rounds)
    ]
    return Figure(
        name="CPU at 1,000 of its answers a second from a loop in C",
        value=median(used) * RATE / 1000,
        unit="millicores",
        bound=None,
        note="what waking up costs on this machine",
    )


def _answer(calls: Calls) -> bytes:
    """What the sidecar says to the first request, which is small enough for one read."""
    with socket.create_connection((calls.host, calls.port), ANSWER_SECONDS) as link:
        link.sendall(making.requests(calls)[0])
        return link.recv(ANSWER_BYTES)
