"""How the operator's cost grows with the number of Plan2Databases, on a real control plane.

python -m bench.operator_growth --counts 1,50,200,500

etcd and kube-apiserver are real, and so is the operator's process. No pod runs: once every
object is written, the bench plays the controllers and the kubelet (a volume claim, a running
pod and a ready StatefulSet for each engine), and engines take their provisioning at once. All
resources stand in one namespace, which is the dearest way: each list walks past the others'.

Requests are what the API server counted for the kinds the operator handles, without the
bench's own. Memory and CPU are the process's, from /proc.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from cluster.control_plane import ControlPlane  # noqa: E402
from fixtures import operator_lab  # noqa: E402
from fixtures.operator_lab import Lab  # noqa: E402
from plan2_contract.engines import SIX  # noqa: E402
from plan2_operator import kinds  # noqa: E402
from plan2_operator.cluster import REQUEST_TIMEOUT, Cluster, Manifest  # noqa: E402

Requests = Counter[tuple[str, str]]
"""How many, by verb and plural."""

MEMORY_BOUND_MB: Final = 150.0
"""With 200 resources."""
READS: Final = frozenset({"GET", "LIST", "WATCH"})
_HANDLED: Final = frozenset(kind.plural for kind in kinds.BY_NAME.values())
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_COUNTED: Final = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One row: `count` resources, six engines each.

    converge: from the operator's watch until each has its objects and its status.
    ready: from the last pod's start until each is Ready. rest: a minute with nothing to do.
    """

    count: int
    converge_seconds: float
    converge_requests_per_resource: float
    converge_writes_per_resource: float
    converge_cpu_ms_per_resource: float
    ready_seconds: float
    rest_requests_per_minute: float
    rest_writes_per_minute: float
    rest_cpu_percent: float
    memory_mb: float
    memory_peak_mb: float

    @property
    def kept(self) -> bool:
        """Whether the promises for this size hold."""
        small = self.count > 200 or self.memory_mb <= MEMORY_BOUND_MB
        return small and self.rest_writes_per_minute == 0


class CountingCluster(Cluster):
    """The bench's own connection, whose requests are taken off the API server's count."""

    own = 0

    async def _request(self, method: str, path: str, **options: Any) -> Manifest:
        self.own += 1
        return await super()._request(method, path, **options)

    async def counted(self) -> Requests:
        """What the API server has counted so far, the bench's own included."""
        response = await self._dynamic.request(
            "get", "/metrics", serialize=False, _request_timeout=REQUEST_TIMEOUT
        )
        requests: Requests = Counter()
        for labels, value in _COUNTED.findall((await response.read()).decode()):
            known = dict(_LABEL.findall(labels))
            if known["resource"] in _HANDLED:
                requests[known["verb"], known["resource"]] += int(float(value))
        return requests


@dataclass
class Window:
    """The cost between two moments."""

    seconds: float
    requests: Requests
    own: int
    cpu_seconds: float

    @property
    def total(self) -> int:
        return self.requests.total() - self.own

    @property
    def writes(self) -> int:
        """Only for a window in which the bench itself writes nothing."""
        return sum(count for (verb, _), count in self.requests.items() if verb not in READS)


class Meter:
    """Reads the API server's counters and the process's, from one moment to the next."""

    def __init__(self, cluster: CountingCluster, pid: int) -> None:
        self._cluster = cluster
        self._pid = pid

    async def start(self) -> None:
        self._at = time.monotonic()
        self._own = self._cluster.own
        self._cpu = self.cpu_seconds()
        self._requests = await self._cluster.counted()

    async def stop(self) -> Window:
        requests = await self._cluster.counted()
        return Window(
            seconds=time.monotonic() - self._at,
            requests=requests - self._requests,
            own=self._cluster.own - self._own,
            cpu_seconds=self.cpu_seconds() - self._cpu,
        )

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self, field: str) -> float:
        """`VmRSS` now, `VmHWM` at its highest."""
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1_000_000
        raise ProcessLookupError(self._pid)


@asynccontextmanager
async def growing(
    plane: ControlPlane, *, profile: Path | None = None
) -> AsyncIterator[tuple[Lab, Any]]:
    """A namespace of `plane`, and a function that starts the operator's process."""
    cluster = await CountingCluster.connect(str(plane.kubeconfig))
    try:
        await operator_lab.install_definitions(cluster)
        async with operator_lab.laboratory(cluster) as lab:
            command = ["-m", "bench.operator_process"]
            if profile is not None:
                command = ["-m", "cProfile", "-o", str(profile), *command]

            def operator(**environment: str) -> Any:
                """A context manager of the process, which watches the lab's namespace."""
                return operator_lab.operator(
                    plane.kubeconfig,
                    command,
                    PYTHONPATH=str(HERE.parent),
                    PLAN2_WATCH_NAMESPACES=lab.namespace,
                    # As in the image.
                    MALLOC_ARENA_MAX="1",
                    **environment,
                )

            yield lab, operator
    finally:
        await cluster.close()


async def measure(
    plane: ControlPlane, count: int, rest_seconds: float, profile: Path | None = None
) -> Growth:
    """One row of the table; raises TimeoutError when it does not come to rest."""
    async with growing(plane, profile=profile) as (lab, operator):
        cluster = lab.cluster
        assert isinstance(cluster, CountingCluster)
        keys = [await lab.create(f"db-{number:03}", {}) for number in range(count)]
        async with operator() as process:
            meter = Meter(cluster, process.pid)
            await meter.start()
            await phases(lab, count, bool, patience=60 + count * 2)
            converged = await meter.stop()
            say(f"{count}: written after {converged.seconds:.1f} s")
            await _together(lab.start(key, *SIX) for key in keys)
            started = time.monotonic()
            say(f"{count}: pods run")
            await phases(lab, count, lambda phase: phase == "Ready", patience=60 + count * 2)
            ready = time.monotonic() - started
            say(f"{count}: ready after {ready:.1f} s")
            await asyncio.sleep(3)
            await meter.start()
            await asyncio.sleep(rest_seconds)
            rest = await meter.stop()
            memory, peak = meter.memory_mb("VmRSS"), meter.memory_mb("VmHWM")
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
    say(f"{count}: at rest {dict(rest.requests)}")
    minutes = rest.seconds / 60
    return Growth(
        count=count,
        converge_seconds=round(converged.seconds, 2),
        converge_requests_per_resource=round(converged.total / count, 1),
        converge_writes_per_resource=round(converged.writes / count, 1),
        converge_cpu_ms_per_resource=round(converged.cpu_seconds / count * 1000, 1),
        ready_seconds=round(ready, 2),
        rest_requests_per_minute=round(rest.total / minutes, 1),
        rest_writes_per_minute=round(rest.writes / minutes, 1),
        rest_cpu_percent=round(rest.cpu_seconds / rest.seconds * 100, 1),
        memory_mb=round(memory, 1),
        memory_peak_mb=round(peak, 1),
    )


async def phases(lab: Lab, count: int, wanted: Callable[[Any], bool], *, patience: float) -> None:
    """Wait until `wanted` holds of each resource's phase, None before it has one."""

    async def there() -> bool:
        found = await lab.cluster.list(kinds.PLATFORM, lab.namespace, {})
        phases = [(live.get("status") or {}).get("phase") for live in found]
        return len(phases) == count and all(wanted(phase) for phase in phases)

    await operator_lab.until(there, seconds=patience, every=0.5)


async def _together(jobs: Any, at_once: int = 16) -> None:
    slots = asyncio.Semaphore(at_once)

    async def one(job: Any) -> None:
        async with slots:
            await job

    await asyncio.gather(*(one(job) for job in jobs))


HEAD: Final = (
    "resources",
    "converge s",
    "requests each",
    "writes each",
    "CPU ms each",
    "ready s",
    "at rest: requests/min",
    "writes/min",
    "CPU %",
    "MB",
    "peak MB",
)


def table(rows: Sequence[Growth]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---:|" * len(HEAD)]
    for row in rows:
        lines.append("| " + " | ".join(f"{value:g}" for value in asdict(row).values()) + " |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """0 when every promise was kept, 1 when one was not."""
    parser = argparse.ArgumentParser(prog="bench.operator_growth")
    parser.add_argument("--counts", default="1,50,200,500")
    parser.add_argument("--rest-seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="where operator-growth.json and .md go")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the operator there")
    asked = parser.parse_args()
    rows = []
    for count in [int(each) for each in asked.counts.split(",")]:
        with ControlPlane() as plane:
            rows.append(asyncio.run(measure(plane, count, asked.rest_seconds, asked.profile)))
    print(table(rows))
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(row) for row in rows], indent=1)
        (asked.out / "operator-growth.json").write_text(text + "\n")
        (asked.out / "operator-growth.md").write_text(table(rows))
    return int(not all(row.kept for row in rows))


if __name__ == "__main__":
    sys.exit(main())
