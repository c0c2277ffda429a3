"""What is compared with what. Each case has a peer, our call, and the ratio it is to reach."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Calls, Sample, closed_loop
from bench.stage import PEERS, Stage

JSON = {"Content-Type": "application/json"}
KEYS = 1000

Measure = Callable[[Stage, int, float], Sample]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`peer` and `product` measure one side with so many connections for so many seconds.

    `reach` is promised at 16 connections, the size of the issue's figures.
    """

    name: str
    against: str
    peer: Measure
    product: Measure
    reach: float | None
    prepare: Callable[[Stage], None] | None = None


def http(server: str, **calls: object) -> Measure:
    """A closed loop on one of the stage's servers."""

    def measure(stage: Stage, connections: int, seconds: float) -> Sample:
        at = getattr(stage, server)
        return closed_loop(
            Calls(port=at.port, **calls),  # type: ignore[arg-type]  # the case's own words
            at.pid,
            connections=connections,
            seconds=seconds,
        )

    return measure


def direct(kind: str, engine: str) -> Measure:
    """A driver alone, as many workers as connections."""

    def measure(stage: Stage, connections: int, seconds: float) -> Sample:
        url = getattr(stage, engine).url
        answer = subprocess.run(
            [sys.executable, str(PEERS / "direct.py"), kind, url, str(connections), str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        result = json.loads(answer.stdout)
        return Sample(
            calls_per_second=result["calls"] / result["seconds"],
            p50_us=result["p50_us"],
            p99_us=result["p99_us"],
            cpu_us_per_call=result["cpu_seconds"] * 1e6 / result["calls"],
            memory_mb=result["memory_mb"],
        )

    return measure


def query(text: object, params: object = None, keys: int = 1) -> Measure:
    """POST /api/v2/query with `targetDatabase`; `"%d"` in the params is a key."""
    asked = {"query": text, "targetDatabase": "postgresql"}
    if params is not None:
        asked["params"] = params
    body = json.dumps(asked).replace('"%d"', "%d")
    return http("sidecar", method="POST", path="/api/v2/query", body=body, headers=JSON, keys=keys)


CHECK = json.dumps({"clientId": "client-%d", "windowMs": 900_000, "limit": 1_000_000_000})
VALUE = {"id": 1, "text": "x" * 64}
SAVED = json.dumps([{"key": "bench:%d", "value": VALUE}])
PUT = json.dumps({"value": VALUE})
PRIMARY_KEY = "SELECT id, owner, balance FROM accounts WHERE id = $1"
BINDING = json.dumps(
    {
        "operation": "query",
        "metadata": {"sql": PRIMARY_KEY, "params": "[%d]"},
    }
)
ROWS = "SELECT id, owner, balance FROM accounts WHERE id <= 1000"

DAPR_GET = http("daprd", path="/v1.0/state/store/bench:%d", keys=KEYS)

CASES = (
    Case(
        name="rate-limit check, leased",
        against="bare aiohttp handler",
        peer=http("bare", method="POST", path="/check", body=CHECK, headers=JSON, keys=10),
        product=http(
            "sidecar",
            method="POST",
            path="/api/v2/rate-limit/check",
            body=CHECK,
            headers=JSON,
            keys=10,
        ),
        reach=3.0,
    ),
    Case(
        name="cache get from L1",
        against="daprd state get",
        peer=DAPR_GET,
        product=http("sidecar", path="/api/v2/cache/bench-%d", keys=10),
        reach=3.0,
    ),
    Case(
        name="session get from L1",
        against="daprd state get",
        peer=DAPR_GET,
        product=http("sidecar", path="/api/v2/sessions/bench-%d", keys=10),
        reach=3.0,
    ),
    Case(
        name="get from the store every time",
        against="daprd state get",
        peer=DAPR_GET,
        product=http(
            "sidecar",
            method="POST",
            path="/api/v2/query",
            body=json.dumps({"query": ["GET", "bench:%d"], "targetDatabase": "dragonflydb"}),
            headers=JSON,
            keys=KEYS,
        ),
        reach=1.5,
    ),
    Case(
        name="cache put",
        against="daprd state save",
        peer=http(
            "daprd",
            method="POST",
            path="/v1.0/state/store",
            body=SAVED,
            headers=JSON,
            keys=KEYS,
            status=204,
        ),
        product=http(
            "sidecar",
            method="PUT",
            path="/api/v2/cache/bench-%d",
            body=PUT,
            headers=JSON,
            keys=KEYS,
            status=204,
        ),
        reach=1.5,
    ),
    Case(
        name="PostgreSQL row by primary key",
        against="daprd bindings.postgresql",
        peer=http(
            "daprd",
            method="POST",
            path="/v1.0/bindings/sql",
            body=BINDING,
            headers=JSON,
            keys=KEYS,
        ),
        product=query(PRIMARY_KEY, ["%d"], KEYS),
        reach=1.5,
    ),
    Case(
        name="PostgreSQL row by primary key",
        against="asyncpg alone",
        peer=direct("asyncpg-row", "postgresql"),
        product=query(PRIMARY_KEY, ["%d"], KEYS),
        reach=0.5,
    ),
    Case(
        name="1,000 PostgreSQL rows",
        against="asyncpg pool, fetch, dict, orjson",
        peer=direct("asyncpg-rows", "postgresql"),
        product=query(ROWS),
        reach=2.5,
    ),
    Case(
        name="store GET",
        against="redis-py alone",
        peer=direct("redis-get", "store"),
        product=http(
            "sidecar",
            method="POST",
            path="/api/v2/query",
            body=json.dumps({"query": ["GET", "bench:%d"], "targetDatabase": "dragonflydb"}),
            headers=JSON,
            keys=KEYS,
        ),
        reach=None,
    ),
)
