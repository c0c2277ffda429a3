"""MongoDB through PyMongo's `AsyncMongoClient`: queries are objects in relaxed Extended JSON.

Reads are commands of the driver, writes go as database commands, because only those carry
`maxTimeMS`. Cancelling a call closes its connection, which ends the operation on the server.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

import msgspec
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.objectid import ObjectId
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from plan2_contract.connection import MongoDB
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import mongodb_stream
from plan2_sidecar.engines.base import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    Background,
    Calls,
    answering,
    no_parameters,
)
from plan2_sidecar.engines.mongodb_errors import translate, write_problem
from plan2_sidecar.engines.mongodb_forms import (
    Aggregate,
    Delete,
    Find,
    Form,
    Insert,
    Update,
    decode,
    writes,
)
from plan2_sidecar.engines.mongodb_pool import CertificateFile, PoolCounts, watched
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable, NotAcceptable, ReadOnly
from plan2_sidecar.query import Chunk, Query, Result
from plan2_sidecar.query import Form as AnswerForm

LOG = logging.getLogger(__name__)

_SELECT_SECONDS: Final = 1.0
# Who waits less for a server to be found learns nothing about the servers.
_TELLING_SECONDS: Final = 0.25
_CLOSE_SECONDS: Final = 2.0
_OPTIONS: Final = json_util.RELAXED_JSON_OPTIONS
_CODEC: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

Document = dict[str, Any]
T = TypeVar("T")


class Transaction:
    """One transaction: its database and session, `execute` for a caller's query."""

    def __init__(
        self,
        database: AsyncDatabase[Document],
        session: AsyncClientSession,
        deadline: Deadline,
    ) -> None:
        self.database = database
        self.session = session
        self._deadline = deadline

    async def execute(self, query: Query) -> Result:
        """Run a caller's query in this transaction, as `Mongo.execute` would."""
        no_parameters(query)
        form = decode(query.query)
        return await _run(self.database, form, query.max_rows, self._deadline, self.session)


class Mongo:
    """One database, through `uri`; reads through `ro_uri` where there is one."""

    def __init__(self, engine: Engine, connection: MongoDB) -> None:
        self.engine = engine
        self._server = connection
        self._counts = PoolCounts()
        self._certificate = CertificateFile(connection.ca_pem)
        self._clients: dict[str, AsyncMongoClient[Document]] = {}
        self._calls = Calls()
        self._background = Background()

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run one of the five forms; data is a list of documents."""
        with answering(self.engine, translate):
            no_parameters(query)
            form = decode(query.query)
            if query.read_only and writes(form):
                raise ReadOnly("the query changes documents")
            started = time.monotonic()
            with watched() as watch:
                try:
                    async with self._calls, deadline.enforced():
                        database = self._database(query.read_only)
                        return await _run(database, form, query.max_rows, deadline)
                except DeadlineExceeded as late:
                    waited = time.monotonic() - started >= _TELLING_SECONDS
                    if watch.connected or not waited or self._sees_a_server(query.read_only):
                        raise
                    raise EngineUnavailable("no server could be reached") from late

    async def stream(
        self, query: Query, deadline: Deadline, form: AnswerForm
    ) -> AsyncGenerator[Chunk, None]:
        """Find or aggregate, a batch of documents at a time, the next when it is wanted."""
        with answering(self.engine, translate):
            no_parameters(query)
            asked = decode(query.query)
            if not isinstance(asked, Find | Aggregate):
                raise NotAcceptable("a write is answered as application/json alone")
            if query.read_only and writes(asked):
                raise ReadOnly("the query changes documents")
            async with self._calls:
                database = self._database(query.read_only)
                async with deadline.enforced():
                    cursor = await _opened(database, asked, query.max_rows, deadline)
                chunks = mongodb_stream.chunks(cursor, query.max_rows, deadline, _text)
                try:
                    async with aclosing(chunks):
                        async for chunk in chunks:
                            yield chunk
                finally:
                    self._background.spawn(_closed(cursor))

    async def transaction(
        self, work: Callable[[Transaction], Awaitable[T]], deadline: Deadline
    ) -> T:
        """Run `work` in one transaction; committed when it returns. Needs a replica set.

        A commit whose reply is lost is ConnectionLost: it may have been done.
        """
        with answering(self.engine, translate):
            async with self._calls, deadline.enforced():
                database = self._database(False)
                async with (
                    database.client.start_session() as session,
                    await session.start_transaction(
                        write_concern=WriteConcern("majority"),
                        max_commit_time_ms=_milliseconds(deadline),
                    ),
                ):
                    return await work(Transaction(database, session, deadline))

    async def database(self, work: Callable[[AsyncDatabase[Document]], Awaitable[T]]) -> T:
        """Run `work` on the database itself; the caller bounds its time."""
        with answering(self.engine, translate):
            async with self._calls:
                return await work(self._database(False))

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, as "8.0.29"."""
        with answering(self.engine, translate):
            async with self._calls, deadline.enforced():
                about = await self._database(False).command("buildInfo")
                return str(about["version"])

    def pool(self) -> dict[str, int]:
        return self._counts.counts(self._server.pool_max)

    async def close(self, grace_seconds: float) -> None:
        await self._calls.drained(grace_seconds)
        await self._background.finished(_CLOSE_SECONDS)
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        self._certificate.remove()

    def _sees_a_server(self, read_only: bool) -> bool:
        found = self._database(read_only).client.topology_description
        return bool(found.has_known_servers)

    def _database(self, read_only: bool) -> AsyncDatabase[Document]:
        uri = self._server.ro_uri if read_only and self._server.ro_uri else self._server.uri
        client = self._clients.get(uri)
        if client is None:
            client = self._clients[uri] = self._connect(uri)
        return client.get_database(self._server.database, codec_options=_CODEC)

    def _connect(self, uri: str) -> AsyncMongoClient[Document]:
        trusted = self._certificate.path()
        tls: dict[str, Any] = {"tls": True, "tlsCAFile": trusted} if trusted else {}
        try:
            return AsyncMongoClient(
                uri,
                appname="plan2-sidecar",
                maxPoolSize=self._server.pool_max,
                minPoolSize=0,
                maxIdleTimeMS=int(IDLE_SECONDS * 1000),
                connectTimeoutMS=int(CONNECT_SECONDS * 1000),
                serverSelectionTimeoutMS=int(_SELECT_SECONDS * 1000),
                retryReads=False,
                retryWrites=False,
                event_listeners=[self._counts],
                **tls,
            )
        except (PyMongoError, ValueError):
            # PyMongo's words quote the part it could not read, which may be of the password.
            raise EngineUnavailable(
                "the connection string cannot be used; are user and password percent-encoded?"
            ) from None


async def _run(
    database: AsyncDatabase[Document],
    form: Form,
    max_rows: int | None,
    deadline: Deadline,
    session: AsyncClientSession | None = None,
) -> Result:
    match form:
        case Find():
            return await _find(database, form, max_rows, deadline, session)
        case Aggregate():
            return await _aggregate(database, form, max_rows, deadline, session)
        case Insert():
            return await _insert(database, form, deadline, session)
        case Update():
            return await _update(database, form, deadline, session)
        case Delete():
            return await _delete(database, form, deadline, session)


def _milliseconds(deadline: Deadline) -> int:
    return max(1, int(deadline.remaining() * 1000))


async def _find(
    database: AsyncDatabase[Document],
    form: Find,
    max_rows: int | None,
    deadline: Deadline,
    session: AsyncClientSession | None,
) -> Result:
    async with _found(database, form, max_rows, deadline, session) as cursor:
        return _documents(await cursor.to_list(), max_rows)


def _found(
    database: AsyncDatabase[Document],
    form: Find,
    max_rows: int | None,
    deadline: Deadline,
    session: AsyncClientSession | None = None,
) -> AsyncCursor[Document]:
    """The cursor, which asks the server when it is first read."""
    limits = [limit for limit in (form.limit, max_rows and max_rows + 1) if limit]
    return database[form.collection].find(
        form.filter,
        form.projection,
        sort=list(form.sort.items()) or None,
        limit=min(limits, default=0),
        session=session,
        max_time_ms=_milliseconds(deadline),
    )


async def _opened(
    database: AsyncDatabase[Document],
    form: Find | Aggregate,
    max_rows: int | None,
    deadline: Deadline,
) -> AsyncCursor[Document] | AsyncCommandCursor[Document]:
    """The cursor of a stream, whose batches are small."""
    if isinstance(form, Find):
        return _found(database, form, max_rows, deadline).batch_size(mongodb_stream.BATCH)
    return await database[form.collection].aggregate(
        form.pipeline, maxTimeMS=_milliseconds(deadline), batchSize=mongodb_stream.BATCH
    )


async def _closed(cursor: AsyncCursor[Document] | AsyncCommandCursor[Document]) -> None:
    """Free it on the server, where that was not read to its end."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await cursor.close()
    except (PyMongoError, OSError, TimeoutError) as error:
        LOG.info("a cursor is left to the server's own time limit: %s", error)


async def _aggregate(
    database: AsyncDatabase[Document],
    form: Aggregate,
    max_rows: int | None,
    deadline: Deadline,
    session: AsyncClientSession | None,
) -> Result:
    cursor = await database[form.collection].aggregate(
        form.pipeline, session=session, maxTimeMS=_milliseconds(deadline)
    )
    async with cursor:
        # One more than is wanted shows that there are more.
        found = await cursor.to_list(None if max_rows is None else max_rows + 1)
    return _documents(found, max_rows)


async def _insert(
    database: AsyncDatabase[Document],
    form: Insert,
    deadline: Deadline,
    session: AsyncClientSession | None,
) -> Result:
    documents = [{"_id": ObjectId()} | document for document in form.documents]
    reply = await _write(
        database, "insert", form.collection, {"documents": documents}, deadline, session
    )
    identities = [{"_id": document["_id"]} for document in documents]
    return Result(data=_encoded(identities), row_count=int(reply["n"]))


async def _update(
    database: AsyncDatabase[Document],
    form: Update,
    deadline: Deadline,
    session: AsyncClientSession | None,
) -> Result:
    step = {"q": form.filter, "u": form.update, "upsert": form.upsert, "multi": form.many}
    reply = await _write(
        database, "update", form.collection, {"updates": [step]}, deadline, session
    )
    upserted = reply.get("upserted") or []
    extra = {"upsertedId": _encoded(upserted[0]["_id"])} if upserted else None
    return Result(data=[], row_count=int(reply["n"]), extra=extra)


async def _delete(
    database: AsyncDatabase[Document],
    form: Delete,
    deadline: Deadline,
    session: AsyncClientSession | None,
) -> Result:
    step = {"q": form.filter, "limit": 1 if form.delete == "one" else 0}
    reply = await _write(
        database, "delete", form.collection, {"deletes": [step]}, deadline, session
    )
    return Result(data=[], row_count=int(reply["n"]))


async def _write(
    database: AsyncDatabase[Document],
    name: str,
    collection: str,
    what: Document,
    deadline: Deadline,
    session: AsyncClientSession | None = None,
) -> Document:
    command = {name: collection, **what, "maxTimeMS": _milliseconds(deadline)}
    reply: Document = await database.command(command, session=session)
    problem = write_problem(reply)
    if problem is not None:
        raise problem
    return reply


def _documents(found: list[Document], max_rows: int | None) -> Result:
    kept = found if max_rows is None else found[:max_rows]
    return Result(data=_encoded(kept), row_count=len(kept), truncated=len(kept) < len(found))


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_text(value).encode())


def _text(value: Any) -> str:
    text: str = json_util.dumps(
        value, json_options=_OPTIONS, separators=(",", ":"), ensure_ascii=False
    )
    return text
