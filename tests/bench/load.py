"""Load on an HTTP server: wrk in a closed loop, or calls at a fixed rate in an open one."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import calls as making
from bench import measure
from bench.calls import Calls

HERE = Path(__file__).resolve().parent
WARM_SECONDS = 1  # the least that wrk knows
# Callers that wait too long for one of fewer connections are turned away with 503; a machine that
# stalls for a moment has some. The table says so, and where most are it is no benchmark any more.
MOST_REFUSED = 0.5


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run. Times in microseconds, memory in units of 10**6 bytes."""

    calls_per_second: float
    p50_us: float
    p99_us: float
    cpu_us_per_call: float
    memory_mb: float
    bytes_per_second: float = 0.0
    refused: float = 0.0  # the share that was turned away, which no throughput counts


class WrongAnswers(Exception):
    """The server answered something else than the benchmark is about."""


def warm(calls: Calls, connections: int) -> None:
    """A second of load before the clock: each answer has to be what it must be, or 503."""
    _run_wrk(calls, making.requests(calls), connections, WARM_SECONDS, check=True)


def closed_loop(calls: Calls, pid: int, *, connections: int, seconds: int) -> Sample:
    """wrk with one thread; `pid` is the server whose CPU and memory are told."""
    before = measure.cpu_seconds(pid)
    result = _run_wrk(calls, making.requests(calls), connections, seconds, check=False)
    used = measure.cpu_seconds(pid) - before
    return Sample(
        calls_per_second=(result["requests"] - result["statuses"]) / result["seconds"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        cpu_us_per_call=used * 1e6 / result["requests"],
        memory_mb=measure.memory_mb(pid),
        bytes_per_second=result["bytes"] / result["seconds"],
        refused=result["statuses"] / result["requests"],
    )


@dataclass(frozen=True, kw_only=True)
class Served:
    """What was served of a load that may be more than the server takes."""

    calls_per_second: float
    p99_us: float
    refused: float  # the share answered with 400 or more


def as_much_as_it_takes(
    calls: Calls, requests: Sequence[bytes], *, connections: int, seconds: int
) -> Served:
    """The requests in turn; those turned away do not count. Raises WrongAnswers only where
    connections fail."""
    result = _run_wrk(calls, requests, connections, seconds, check=False, strict=False)
    if result["errors"] or not result["requests"]:
        raise WrongAnswers(wrong(calls, result))
    return Served(
        calls_per_second=(result["requests"] - result["statuses"]) / result["seconds"],
        p99_us=result["p99_us"],
        refused=result["statuses"] / result["requests"],
    )


def open_loop(calls: Calls, pid: int, *, rate: int, connections: int, seconds: float) -> Sample:
    """Calls that leave on time whatever comes back; latency counts from when one was due."""
    with tempfile.TemporaryDirectory(prefix="plan2-bench-") as folder:
        file = Path(folder) / "requests"
        making.write(file, making.requests(calls))
        command = [sys.executable, str(HERE / "open_loop.py"), str(file), str(calls.port)]
        options = [str(calls.status), str(rate), str(connections), str(seconds)]
        before = measure.cpu_seconds(pid)
        answer = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        used = measure.cpu_seconds(pid) - before
    result = json.loads(answer.stdout)
    if result["wrong"]:
        raise WrongAnswers(f"{calls.name}: {result['wrong']} answers were not {calls.status}")
    return Sample(
        calls_per_second=result["calls"] / result["seconds"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        cpu_us_per_call=used * 1e6 / result["calls"],
        memory_mb=measure.memory_mb(pid),
    )


def _run_wrk(
    calls: Calls,
    requests: Sequence[bytes],
    connections: int,
    seconds: int,
    *,
    check: bool,
    strict: bool = True,
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="plan2-bench-") as folder:
        file = Path(folder) / "requests"
        making.write(file, requests)
        answer = subprocess.run(
            [
                "wrk",
                *("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "--latency"),
                *("-s", str(HERE / "scripts/wrk.lua"), f"http://{calls.host}:{calls.port}"),
            ],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "BENCH_REQUESTS": str(file),
                "BENCH_STATUS": str(calls.status),
                "BENCH_CHECK": "1" if check else "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("RESULT ")]
    if answer.returncode or not lines:
        raise WrongAnswers(f"{calls.name}: wrk failed:\n{answer.stdout}{answer.stderr}")
    result: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
    if strict and (trouble := wrong(calls, result)):
        raise WrongAnswers(trouble)
    return result


def wrong(calls: Calls, result: dict[str, float]) -> str:
    """What of a run's answers was not as it must be; empty when all was."""
    found = []
    if not result["requests"]:
        return f"{calls.name}: no answer at all"
    if result["errors"]:
        found.append(f"{result['errors']:.0f} connections failed")
    if result["statuses"] > MOST_REFUSED * result["requests"]:
        found.append(f"{result['statuses']:.0f} answers had a status of 400 or more")
    if result["wrong"]:
        found.append(
            f"{result['wrong']:.0f} answers were not {calls.status} but {result['other']:.0f}"
        )
    if found:
        found.append(f"of {result['requests']:.0f}")
    return f"{calls.name}: {', '.join(found)}" if found else ""
