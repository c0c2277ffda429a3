"""Exactly once in ArangoDB: a marker document in the stream transaction of the step.

A stream transaction must name what it writes, so the server is asked first (explain) which
collections that is. One whose sidecar died holds its marker until the server gives the
transaction up, which it does after `transaction.streaming-idle-timeout`, 60 s by default.
"""

import asyncio
import contextlib
import time
from typing import Any, Final
from urllib.parse import quote

import msgspec

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.arangodb import ArangoDB
from plan2_sidecar.errors import Conflict, Problem, QueryRejected
from plan2_sidecar.query import Query
from plan2_sidecar.sagas.effects.batch import Batch, Results, Sealed, as_text, from_text

APPLIED: Final = "plan2_applied"
KEPT_SECONDS: Final = 8 * 24 * 3600
"""Longer than the log keeps an operation."""
_ABORT_SECONDS: Final = 2.0
_DUPLICATE_NAME: Final = "1207"
_NOT_FOUND: Final = "1202"
_UNIQUE: Final = "1210"


class _Collection(msgspec.Struct, frozen=True):
    name: str
    type: str


class _Plan(msgspec.Struct, frozen=True):
    collections: list[_Collection] = []


class _Explained(msgspec.Struct, frozen=True):
    plan: _Plan


class _Transaction(msgspec.Struct, frozen=True):
    id: str


class _Begun(msgspec.Struct, frozen=True):
    result: _Transaction


class _Marker(msgspec.Struct, frozen=True):
    results: str | None = None


_EXPLAINED: Final = msgspec.json.Decoder(_Explained)
_BEGUN: Final = msgspec.json.Decoder(_Begun)
_MARKER: Final = msgspec.json.Decoder(_Marker)
_ABORTS: set[asyncio.Task[None]] = set()


async def prepare(client: ArangoDB, deadline: Deadline) -> None:
    """Make the collection of markers, which expire."""
    try:
        await client.call("POST", "/_api/collection", deadline, {"name": APPLIED})
    except QueryRejected as problem:
        if problem.engine_code != _DUPLICATE_NAME:
            raise
    index = {"type": "ttl", "fields": ["at"], "expireAfter": KEPT_SECONDS}
    await client.call("POST", f"/_api/index?collection={APPLIED}", deadline, index)


async def once(client: ArangoDB, mark: str, batch: Batch, deadline: Deadline) -> Results:
    """The batch's results, whether it runs now or ran before."""
    collections = await _collections(client, batch, deadline)
    try:
        transaction = await _begin(client, collections, deadline)
        try:
            marker = {"_key": mark, "at": int(time.time())}
            await client.call("POST", f"/_api/document/{APPLIED}", deadline, marker, transaction)
            results = await batch.run(lambda query: client.execute(query, deadline, transaction))
            kept = {"results": as_text(results)}
            path = f"/_api/document/{APPLIED}/{quote(mark, safe='')}"
            await client.call("PATCH", path, deadline, kept, transaction)
            await client.call("PUT", f"/_api/transaction/{transaction}", deadline)
        except BaseException:
            _abort(client, transaction)
            raise
    except Conflict as conflict:
        found = await _find(client, mark, deadline) if conflict.engine_code == _UNIQUE else None
        if found is None:
            raise
        if found.results is None:
            raise QueryRejected("this step was given up before") from None
        return from_text(found.results)
    return results


async def seal(client: ArangoDB, mark: str, deadline: Deadline) -> Sealed:
    """Put the marker there without the step, unless the step is there."""
    refused = {"_key": mark, "at": int(time.time()), "refused": True}
    try:
        await client.call("POST", f"/_api/document/{APPLIED}?waitForSync=true", deadline, refused)
    except Conflict:
        found = await _find(client, mark, deadline)
        if found is None:
            # Its transaction is still open; the next look tells.
            raise
        if found.results is not None:
            return Sealed(applied=True, results=from_text(found.results))
    return Sealed(applied=False)


async def _collections(client: ArangoDB, batch: Batch, deadline: Deadline) -> dict[str, list[str]]:
    """What the statements read and write, the markers among it."""
    writes, reads = {APPLIED}, set[str]()
    for position in batch.positions:
        batch.current = position
        query: Query = batch.query_of(position, None)
        asked: dict[str, Any] = {"query": query.query, "bindVars": query.params or {}}
        explained = _EXPLAINED.decode(await client.call("POST", "/_api/explain", deadline, asked))
        for found in explained.plan.collections:
            (reads if found.type == "read" else writes).add(found.name)
    return {"write": sorted(writes), "read": sorted(reads - writes)}


async def _begin(client: ArangoDB, collections: dict[str, list[str]], deadline: Deadline) -> str:
    asked = {
        "collections": collections,
        "waitForSync": True,
        "lockTimeout": max(1, int(deadline.remaining())),
    }
    body = await client.call("POST", "/_api/transaction/begin", deadline, asked)
    return _BEGUN.decode(body).result.id


async def _find(client: ArangoDB, mark: str, deadline: Deadline) -> _Marker | None:
    path = f"/_api/document/{APPLIED}/{quote(mark, safe='')}"
    try:
        return _MARKER.decode(await client.call("GET", path, deadline))
    except QueryRejected as problem:
        if problem.engine_code == _NOT_FOUND:
            return None
        raise


def _abort(client: ArangoDB, transaction: str) -> None:
    """Free what it holds, whatever becomes of the caller; one that committed is not touched."""

    async def abort() -> None:
        with contextlib.suppress(Problem):
            path = f"/_api/transaction/{transaction}"
            await client.call("DELETE", path, Deadline.after(_ABORT_SECONDS))

    task = asyncio.get_running_loop().create_task(abort())
    _ABORTS.add(task)
    task.add_done_callback(_ABORTS.discard)
