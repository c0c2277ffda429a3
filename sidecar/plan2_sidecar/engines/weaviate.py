"""Weaviate over GraphQL and REST: no gRPC, whose client costs 37 MiB and half a second to import.

GraphQL text is passed on, a structured search is written as GraphQL from checked names and
encoded values, and objects go in as one batch. Bodies are passed on where nothing is left out.
"""

import asyncio
from typing import Any, Final

import msgspec

from plan2_contract.connection import Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import answering, no_parameters
from plan2_sidecar.engines.http import HttpEngine, Reply, authority, translate
from plan2_sidecar.engines.weaviate_forms import (
    Insert,
    Search,
    additional,
    decode,
    graphql,
    wire_objects,
)
from plan2_sidecar.errors import (
    EngineAuthFailed,
    EngineUnavailable,
    InvalidRequest,
    PermissionDenied,
    Problem,
    QueryRejected,
    ReadOnly,
)
from plan2_sidecar.query import Query, Result

_SCHEMA_SECONDS: Final = 30.0
_PRIMITIVE: Final = frozenset(
    f"{name}{many}"
    for name in ("text", "string", "int", "number", "boolean", "date", "uuid")
    for many in ("", "[]")
)


class _GraphQLError(msgspec.Struct, frozen=True):
    message: str = ""


class _GraphQL(msgspec.Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[_GraphQLError] | None = None


class _Property(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    data_type: list[str] = []


class _Class(msgspec.Struct, frozen=True):
    properties: list[_Property] | None = None


class _Failure(msgspec.Struct, frozen=True):
    message: str = ""


class _Failures(msgspec.Struct, frozen=True):
    error: list[_Failure] = []


class _Outcome(msgspec.Struct, frozen=True):
    status: str = "SUCCESS"
    errors: _Failures | None = None


class _Inserted(msgspec.Struct, frozen=True):
    id: str = ""
    result: _Outcome = _Outcome()


class _Meta(msgspec.Struct, frozen=True):
    version: str


class _Error(msgspec.Struct, frozen=True):
    error: list[_Failure] | str | None = None
    message: str = ""


_GRAPHQL: Final = msgspec.json.Decoder(_GraphQL)
_TREE: Final = msgspec.json.Decoder(dict[str, dict[str, list[msgspec.Raw] | None] | None])
_ROWS: Final = msgspec.json.Decoder(dict[str, dict[str, list[dict[str, Any]] | None]])
_CLASS: Final = msgspec.json.Decoder(_Class)
_INSERTED: Final = msgspec.json.Decoder(list[_Inserted])
_META: Final = msgspec.json.Decoder(_Meta)
_ERROR: Final = msgspec.json.Decoder(_Error)
# How a server speaks of what it has not loaded yet, and of what it never had.
_STARTING: Final = ("no graphql provider present", "non-existing index", "no collection ")


class WeaviateClient:
    """One server and its API key."""

    def __init__(self, engine: Engine, connection: Weaviate) -> None:
        self.engine = engine
        key = connection.api_key
        self._http = HttpEngine(
            engine,
            f"{connection.scheme}://{authority(connection.host, connection.port)}",
            limit=connection.pool_max,
            ca_pem=connection.ca_pem,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """GraphQL text: its `data`. A search: `{id, properties, …}` each. Objects: `{id}` each."""
        with answering(self.engine, translate):
            no_parameters(query)
            form = query.query if isinstance(query.query, str) else decode(query.query)
            if isinstance(form, Insert):
                if query.read_only:
                    raise ReadOnly("objects is an insert")
                return await self._insert(form, deadline)
            try:
                return await self._read(form, query.max_rows, deadline)
            except QueryRejected as rejected:
                if not any(words in rejected.detail for words in _STARTING):
                    raise
                await self._ready(deadline)
            return await self._read(form, query.max_rows, deadline)

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, as "1.39.0"."""
        with answering(self.engine, translate):
            return _META.decode((await self._call("GET", "/v1/meta", deadline)).body).version

    def pool(self) -> dict[str, int]:
        return self._http.pool()

    async def close(self, grace_seconds: float) -> None:
        await self._http.close(grace_seconds)

    async def _ready(self, deadline: Deadline) -> None:
        """Raise EngineUnavailable while the server is still loading what it has."""
        try:
            await self._call("GET", "/v1/.well-known/ready", deadline)
        except (EngineUnavailable, QueryRejected) as problem:
            if problem.engine_code is None:
                raise
            raise EngineUnavailable("the server is still starting", engine_code="503") from problem

    async def _read(self, form: str | Search, max_rows: int | None, deadline: Deadline) -> Result:
        if isinstance(form, str):
            return await self._text(form, deadline)
        return await self._search(form, max_rows, deadline)

    async def _text(self, statement: str, deadline: Deadline) -> Result:
        if not statement.strip():
            raise InvalidRequest("query is empty")
        data = await self._graphql(statement, deadline)
        return Result(data=data, row_count=_count(data))

    async def _search(self, form: Search, max_rows: int | None, deadline: Deadline) -> Result:
        properties = form.properties
        if properties is None:
            properties = await self._properties(form.collection, deadline)
        limit = form.limit
        if limit is not None and max_rows is not None:
            limit = min(limit, max_rows + 1)
        data = await self._graphql(graphql(form, properties, limit), deadline)
        found = _found(data, form.collection)
        kept = found if max_rows is None else found[:max_rows]
        rows = [_row(row, form) for row in kept]
        return Result(data=rows, row_count=len(rows), truncated=len(kept) < len(found))

    async def _insert(self, form: Insert, deadline: Deadline) -> Result:
        body = {"objects": wire_objects(form)}
        reply = await self._call("POST", "/v1/batch/objects", deadline, body)
        inserted = _INSERTED.decode(reply.body)
        failed = [each for each in inserted if each.result.errors and each.result.errors.error]
        if failed:
            first = failed[0].result.errors
            message = first.error[0].message if first and first.error else "refused"
            stored = [each.id for each in inserted if each not in failed]
            # A batch is no transaction: what is stored stays.
            raise QueryRejected(
                f"{len(failed)} of {len(inserted)} objects were refused: {message}",
                members={"inserted": stored} if stored else None,
            )
        return Result(data=[{"id": each.id} for each in inserted], row_count=len(inserted))

    async def _properties(self, collection: str, deadline: Deadline) -> list[str]:
        """The names of the collection's plain properties, remembered for a while."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(collection)
        if known is not None and now - known[0] < _SCHEMA_SECONDS:
            return known[1]
        try:
            reply = await self._call("GET", f"/v1/schema/{collection}", deadline)
        except QueryRejected as rejected:
            raise QueryRejected(f"no collection {collection}: {rejected.detail}") from rejected
        properties = _CLASS.decode(reply.body).properties or []
        names = [each.name for each in properties if _PRIMITIVE.issuperset(each.data_type)]
        self._known[collection] = (now, names)
        return names

    async def _graphql(self, statement: str, deadline: Deadline) -> msgspec.Raw:
        reply = await self._call("POST", "/v1/graphql", deadline, {"query": statement})
        answer = _GRAPHQL.decode(reply.body)
        if answer.errors:
            raise QueryRejected("; ".join(error.message for error in answer.errors))
        return answer.data

    async def _call(self, method: str, path: str, deadline: Deadline, body: Any = None) -> Reply:
        reply = await self._http.request(method, path, deadline, json=body)
        if reply.status < 300:
            return reply
        raise _problem(reply)


def _problem(reply: Reply) -> Problem:
    message = _message(reply)
    if reply.status == 401:
        return EngineAuthFailed(message)
    if reply.status == 403:
        return PermissionDenied(message)
    if reply.status in (400, 404, 405, 413, 422):
        return QueryRejected(message, engine_code=str(reply.status))
    return EngineUnavailable(message, engine_code=str(reply.status))


def _message(reply: Reply) -> str:
    try:
        said = _ERROR.decode(reply.body)
    except msgspec.DecodeError:
        return f"HTTP {reply.status}: {reply.body[:300].decode(errors='replace')}"
    if isinstance(said.error, list):
        return "; ".join(each.message for each in said.error)
    return said.error or said.message or f"HTTP {reply.status}"


def _count(data: msgspec.Raw) -> int:
    """Objects in all lists of a GraphQL answer; answers of another shape count as one."""
    try:
        tree = _TREE.decode(data)
    except msgspec.DecodeError:
        return 1
    return sum(len(rows or []) for part in tree.values() for rows in (part or {}).values())


def _found(data: msgspec.Raw, collection: str) -> list[dict[str, Any]]:
    try:
        return _ROWS.decode(data)["Get"][collection] or []
    except KeyError:
        raise EngineUnavailable("what answered does not speak as the engine does") from None


def _row(found: dict[str, Any], form: Search) -> dict[str, Any]:
    about = found.pop("_additional", {})
    row: dict[str, Any] = {"id": about.get("id"), "properties": found}
    for name in additional(form):
        value = about.get(name)
        if value is None or name == "id":
            continue
        # GraphQL hands a score over as text.
        row[name] = float(value) if name == "score" else value
    return row
