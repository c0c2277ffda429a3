"""The sidecar that is tuned: what it says of itself, and the requests it is sent."""

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from bench import stage
from bench.advice import Told
from bench.mix import Request
from bench.stage import Refused
from fixtures.engine_server import EngineServer
from plan2_contract import connection, environment


@dataclass(frozen=True)
class Target:
    """Where it listens, and the token it asks for."""

    host: str
    port: int
    token: str
    _reads: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    def send(self, request: Request) -> Any:
        """The decoded answer; raises Refused."""
        link = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            headers = {"Content-Type": "application/json"} | request.headers | bearer
            body = None if request.body is None else json.dumps(request.body)
            link.request(request.method, request.path, body, headers)
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        if answer.status >= 400:
            said = text[:500].decode(errors="replace")
            raise Refused(f"{request.method} {request.path}: {answer.status} {said}")
        return json.loads(text) if text[:1] in (b"{", b"[") else None

    def pools(self) -> dict[str, int]:
        """The configured engines with the sizes of their pools."""
        said = self.send(Request(path="/api/v2/databases"))["engines"]
        return {name: each["pool"]["max"] for name, each in said.items() if each.get("configured")}

    def told(self, requests: Sequence[Request]) -> list[tuple[Told, list[Request]]]:
        """Where each distinct query that names no engine goes, the most frequent first."""
        groups: dict[str, list[Request]] = {}
        for request in requests:
            if request.is_query and isinstance(request.body, dict):
                groups.setdefault(json.dumps(request.body.get("query")), []).append(request)
        found = []
        for text, of_query in groups.items():
            said = self.send(Request(path="/api/v2/route", method="POST", body=of_query[0].body))
            candidates = tuple(said["candidates"])
            told = Told(
                query=text, database=said["database"], rung=said["route"], candidates=candidates
            )
            found.append((told, of_query))
        return sorted(found, key=lambda pair: -len(pair[1]))

    def is_read(self, request: Request) -> bool:
        """Whether the sidecar takes a query for one that writes nothing."""
        if not request.is_query or not isinstance(request.body, dict):
            return False
        text = json.dumps([request.body.get("query"), request.body.get("targetDatabase")])
        if text not in self._reads:
            route = Request(path="/api/v2/route", method="POST", body=request.body)
            self._reads[text] = not self.send(route)["write"]
        return self._reads[text]


def cached(request: Request, ttl_ms: int) -> Request:
    """The same read with its answer kept for so long."""
    options = {**request.body.get("options", {}), "cache": {"ttlMs": ttl_ms}}
    return replace(request, body={**request.body, "options": options})


def document(engines: Mapping[str, EngineServer], pool: int) -> bytes:
    """A connection document for these engines, each with a pool of this size."""
    variables: dict[str, str] = {}
    for name, server in engines.items():
        variables |= stage.classic(name, server)
    whole = environment.document(variables)
    sized = {
        engine.value: msgspec.structs.replace(each, pool_max=pool)
        for engine, each in whole.engines.configured()
    }
    return connection.encode(
        msgspec.structs.replace(whole, engines=msgspec.structs.replace(whole.engines, **sized))
    )
