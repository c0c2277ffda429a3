"""Load on an HTTP server: wrk in a closed loop, or calls at a fixed rate in an open one."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench import measure

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What is called. `%d` in `path` and `body` becomes a number from 1 to `keys`."""

    port: int
    path: str
    method: str = "GET"
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keys: int = 1
    status: int = 200


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run. Times in microseconds, memory in units of 10**6 bytes."""

    calls_per_second: float
    p50_us: float
    p99_us: float
    cpu_us_per_call: float
    memory_mb: float
    bytes_per_second: float = 0.0


class WrongAnswers(Exception):
    """The server answered something else than the benchmark is about."""


def closed_loop(calls: Calls, pid: int, *, connections: int, seconds: float) -> Sample:
    """wrk with one thread; `pid` is the server whose CPU and memory are told."""
    _run_wrk(calls, connections, 0.3, check=True)
    before = measure.cpu_seconds(pid)
    result = _run_wrk(calls, connections, seconds, check=False)
    used = measure.cpu_seconds(pid) - before
    return Sample(
        calls_per_second=result["requests"] / result["seconds"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        cpu_us_per_call=used * 1e6 / max(1, result["requests"]),
        memory_mb=measure.memory_mb(pid),
        bytes_per_second=result["bytes"] / result["seconds"],
    )


def open_loop(calls: Calls, pid: int, *, rate: int, connections: int, seconds: float) -> Sample:
    """Calls that leave on time whatever comes back; latency counts from when one was due."""
    before = measure.cpu_seconds(pid)
    answer = subprocess.run(
        [
            sys.executable,
            str(HERE / "open_loop.py"),
            json.dumps(_described(calls)),
            *(str(rate), str(connections), str(seconds)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(answer.stdout)
    used = measure.cpu_seconds(pid) - before
    if result["wrong"]:
        raise WrongAnswers(f"{calls.path}: {result['wrong']} answers were not {calls.status}")
    return Sample(
        calls_per_second=result["calls"] / result["seconds"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        cpu_us_per_call=used * 1e6 / result["calls"],
        memory_mb=measure.memory_mb(pid),
    )


def _described(calls: Calls) -> dict[str, object]:
    return {name: getattr(calls, name) for name in calls.__dataclass_fields__}


def _run_wrk(calls: Calls, connections: int, seconds: float, *, check: bool) -> dict[str, float]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "BENCH_METHOD": calls.method,
        "BENCH_PATH": calls.path,
        "BENCH_BODY": calls.body,
        "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in calls.headers.items()),
        "BENCH_KEYS": str(calls.keys),
        "BENCH_STATUS": str(calls.status),
        "BENCH_CHECK": "1" if check else "0",
    }
    answer = subprocess.run(
        [
            "wrk",
            *("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"),
            *("-s", str(HERE / "scripts/wrk.lua"), f"http://127.0.0.1:{calls.port}"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in answer.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    if result["errors"] or result["wrong"] or (calls.status < 400 and result["statuses"]):
        raise WrongAnswers(f"{calls.method} {calls.path}: {answer.stdout}")
    return result
