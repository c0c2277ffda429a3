"""What `bench.tune` sends: a recorded mix of requests, or one of its own.

A recording is a file of JSON lines, one request each, in the order they came:

    {"at": 12.034, "method": "POST", "path": "/api/v2/query",
     "body": {"query": "SELECT …", "params": [17]}, "headers": {"Plan2-Namespace": "shop"}}

`path` is required, all else may be left out: `at` (seconds since the recording began; without
it one call each 10 ms is taken), `method` (POST where there is a body, else GET), `body` (JSON),
`headers`, `engine` (whose pool it is counted to, where the path and body do not say). No
Authorization: the token is given to the tune. Requests are sent again and again, writes too.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.calls import raw

STEP_SECONDS = 0.01
UNNAMED_SECONDS = 0.5  # the request of each such instant of the synthetic mix names no engine
STORE_PATHS = ("/api/v2/cache", "/api/v2/sessions", "/api/v2/rate-limit", "/api/v1/rate-limit")
ROUTED = "routed"
COLLECTION = "Plan2Tune"


class BadRecording(Exception):
    """A line that cannot be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a mix."""

    path: str
    method: str = "GET"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    at: float = 0.0
    engine: str = ""

    @property
    def pool(self) -> str:
        """The engine whose pool it uses; `routed` where only the sidecar can tell."""
        if self.engine:
            return self.engine
        if self.path.startswith(STORE_PATHS):
            return "dragonflydb"
        if isinstance(self.body, dict):
            return str(self.body.get("targetDatabase") or ROUTED)
        return ROUTED

    @property
    def is_query(self) -> bool:
        return self.path.partition("?")[0] in ("/api/v2/query", "/api/v1/query")

    def on_wire(self, token: str) -> bytes:
        """The whole request."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return raw(self.method, self.path, self.headers | bearer, body)


def read(lines: Iterable[str]) -> list[Request]:
    """The requests of a recording; raises BadRecording."""
    found: list[Request] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            path = said["path"]
            known = {name: said[name] for name in ("body", "headers", "engine") if name in said}
            method = said.get("method") or ("POST" if "body" in said else "GET")
            at = float(said.get("at", len(found) * STEP_SECONDS))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadRecording(f"line {number} is no request: {error!r}") from None
        if not isinstance(path, str) or not path.startswith("/"):
            raise BadRecording(f"line {number}: path {path!r} does not begin with /")
        found.append(Request(path=path, method=method, at=at, **known))
    if not found:
        raise BadRecording("the recording holds no request")
    return found


def recorded(file: Path) -> list[Request]:
    """The requests of a file."""
    with file.open(encoding="utf-8") as lines:
        return read(lines)


def by_pool(mix: Sequence[Request]) -> dict[str, list[Request]]:
    """The mix, split by the engine that serves it, in order."""
    pools: dict[str, list[Request]] = {}
    for request in mix:
        pools.setdefault(request.pool, []).append(request)
    return pools


def synthetic(
    engines: Iterable[str], *, calls: int = 400, per_second: float = 200
) -> list[Request]:
    """Reads as a service makes them: few rows often, many seldom, always the same ones; some
    name no engine.

    They need no table and run on any server, but for Weaviate's: that knows no query without a
    collection, COLLECTION.
    """
    chance = random.Random(5)
    names = list(engines)
    return [
        _made(names[number % len(names)], _popular(chance), number / per_second)
        for number in range(calls)
    ]


def _popular(chance: random.Random) -> int:
    """1 the most often, up to 100."""
    return min(100, int(chance.paretovariate(0.8)))


def _made(engine: str, key: int, at: float) -> Request:
    body: dict[str, Any] = {} if at % UNNAMED_SECONDS == 0 else {"targetDatabase": engine}
    match engine:
        case "postgresql":
            body |= {"query": "SELECT $1::int AS id, md5($1::text) AS text", "params": [key]}
        case "dragonflydb" | "redis":
            body |= {"query": ["GET", f"plan2:tune:{key}"]}
        case "clickhouse":
            body |= {
                "query": "SELECT {id:UInt32} AS id, sum(number) AS total FROM numbers(1000)",
                "params": {"id": key},
            }
        case "arangodb":
            body |= {"query": "RETURN {id: @id}", "params": {"id": key}}
        case "mongodb":
            body |= {"query": {"collection": "plan2_tune", "filter": {"_id": key}, "limit": 1}}
        case _:
            body |= {"query": f"{{ Get {{ {COLLECTION}(limit: 1, offset: {key}) {{ text }} }} }}"}
    return Request(path="/api/v2/query", method="POST", body=body, at=at)
