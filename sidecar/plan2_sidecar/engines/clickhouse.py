"""ClickHouse over its own HTTP interface: the server writes the rows as JSON, nobody decodes them.

Each call is one POST with its own query id, so that a caller who goes away takes the server's
work along (KILL QUERY). Rows arrive as JSONEachRow, one line a row, and are joined into a list.
"""

import asyncio
import logging
import math
import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec

from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import clickhouse_stream, sqltext
from plan2_sidecar.engines.base import Background, answering, named, text
from plan2_sidecar.engines.clickhouse_errors import in_body, in_reply
from plan2_sidecar.engines.http import HttpEngine, Reply, authority, translate
from plan2_sidecar.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    MultipleStatements,
    ParameterMismatch,
    Problem,
    QueryRejected,
    ReadOnly,
)
from plan2_sidecar.query import Chunk, Form, Query, Result

LOG = logging.getLogger(__name__)

# The server closes an idle connection after 10 s; ours must go first.
_KEEPALIVE_SECONDS: Final = 8.0
_KILL_SECONDS: Final = 2.0
_SETTINGS: Final = {
    "default_format": "JSONEachRow",
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_denormals": "1",
    "output_format_json_quote_decimals": "0",
    "output_format_json_validate_utf8": "1",
    "output_format_json_array_of_rows": "0",
    "date_time_output_format": "iso",
}
# Servers before 26.2 insert at once, later ones through a buffer: said on each, both do the same.
_INSERT: Final = {"async_insert": "1", "wait_for_async_insert": "1"}
_SELECTS: Final = frozenset({"SELECT", "WITH", "VALUES"})
_READS: Final = _SELECTS | {"SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK", "SET", "USE"}
_PLACEHOLDER: Final = re.compile(r"\{\s*([A-Za-z_]\w*)\s*:")
_ESCAPES: Final = str.maketrans(
    {
        "\\": "\\\\",
        "\t": "\\t",
        "\n": "\\n",
        "\r": "\\r",
        "\b": "\\b",
        "\f": "\\f",
        "\0": "\\0",
    }
)
_QUOTED_ESCAPES: Final = str.maketrans({"\\": "\\\\", "'": "\\'"})


class _Summary(msgspec.Struct):
    written_rows: str = "0"


_SUMMARY: Final = msgspec.json.Decoder(_Summary)


class ClickHouse:
    """One server and database; reads use `ro` where there is one."""

    def __init__(self, engine: Engine, connection: Sql) -> None:
        self.engine = engine
        self._server = connection
        scheme = "https" if connection.tls else "http"
        self._http = HttpEngine(
            engine,
            f"{scheme}://{authority(connection.host, connection.port)}",
            limit=connection.pool_max,
            ca_pem=connection.ca_pem,
            headers={"X-ClickHouse-Database": connection.database},
            keepalive_seconds=_KEEPALIVE_SECONDS,
        )
        self._background = Background()

    async def execute(self, query: Query, deadline: Deadline, token: str | None = None) -> Result:
        """Run one statement with `{name:Type}` parameters; data is a list of row objects.

        An INSERT with a `token` is dropped by a table that has seen the token in its window.
        """
        with answering(self.engine, translate):
            statement, settings, word = self._asked(query, deadline)
            if token is not None and word == "INSERT":
                settings |= {"insert_deduplication_token": token, "async_insert": "0"}
            login = self._login(query.read_only)
            reply = await self._cancellable(statement, settings, login, deadline)
            return _result(reply, query.max_rows)

    async def stream(
        self, query: Query, deadline: Deadline, form: Form
    ) -> AsyncGenerator[Chunk, None]:
        """Run one statement, and pass its rows on as the server writes them."""
        with answering(self.engine, translate):
            statement, settings, word = self._asked(query, deadline)
            login = self._login(query.read_only)
            wanted = "ArrowStream" if form is Form.ARROW else "JSONEachRow"
            query_id = f"plan2-{uuid.uuid4()}"
            settings |= {"default_format": wanted, "query_id": query_id}
            read = clickhouse_stream.arrow if form is Form.ARROW else clickhouse_stream.rows
            try:
                async with self._http.streamed(
                    "POST",
                    "/",
                    deadline,
                    query=settings,
                    headers=_credentials(login),
                    body=statement.encode(),
                ) as answer:
                    if answer.status >= 300:
                        self._refuse(await answer.whole())
                    if word != "INSERT":
                        _check_format(answer.headers, wanted)
                    some = False
                    async with aclosing(read(answer.pieces())) as chunks:
                        async for chunk in chunks:
                            some = True
                            yield chunk
                    if not some:
                        yield Chunk(b"", _written(answer.headers))
            except (asyncio.CancelledError, GeneratorExit, DeadlineExceeded):
                self._background.spawn(self._kill(query_id, login))
                raise

    async def insert(self, table: str, rows: bytes, deadline: Deadline, **settings: str) -> None:
        """Insert rows of the sidecar's own, a JSON object a line; `settings` are the server's."""
        with answering(self.engine, translate):
            statement = f"INSERT INTO {table} FORMAT JSONEachRow\n".encode() + rows
            seconds = str(max(1, math.ceil(deadline.remaining())))
            asked = _INSERT | {"max_execution_time": seconds} | settings
            await self._cancellable(statement, asked, self._server.rw, deadline)

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, as "26.3.20.7"."""
        with answering(self.engine, translate):
            settings = {"default_format": "TabSeparated"}
            reply = await self._post("SELECT version()", settings, self._server.rw, deadline)
            return reply.body.decode().strip()

    def pool(self) -> dict[str, int]:
        return self._http.pool()

    async def close(self, grace_seconds: float) -> None:
        await self._http.drained(grace_seconds)
        await self._background.finished(_KILL_SECONDS)
        await self._http.close(0)

    def _asked(self, query: Query, deadline: Deadline) -> tuple[str, dict[str, str], str]:
        """The statement, the settings that go with it and its first word; raises Problem."""
        statement, values = text(query, "SQL"), named(query)
        bare = sqltext.bare(statement)
        word = sqltext.first_word(bare)
        if query.read_only and word not in _READS:
            raise ReadOnly(f"{word or 'this'} is not a read")
        # The data of an INSERT is not SQL, and may hold anything.
        if word != "INSERT" and ";" in bare.strip().rstrip(";"):
            raise MultipleStatements("one call takes one statement")
        settings = self._settings(word, query, deadline) | _parameters(bare, values)
        return statement, settings, word

    def _login(self, read_only: bool) -> Login:
        return self._server.ro if read_only and self._server.ro else self._server.rw

    def _settings(self, word: str, query: Query, deadline: Deadline) -> dict[str, str]:
        seconds = deadline.remaining()
        settings = _SETTINGS | {"max_execution_time": str(max(1, math.ceil(seconds)))}
        if query.read_only:
            settings["readonly"] = "2"
        if word in _SELECTS and query.max_rows is not None:
            settings["limit"] = str(query.max_rows + 1)
        if word == "INSERT":
            settings |= _INSERT
        return settings

    async def _cancellable(
        self, statement: str | bytes, settings: dict[str, str], login: Login, deadline: Deadline
    ) -> Reply:
        query_id = f"plan2-{uuid.uuid4()}"
        try:
            return await self._post(statement, settings | {"query_id": query_id}, login, deadline)
        except (asyncio.CancelledError, DeadlineExceeded):
            self._background.spawn(self._kill(query_id, login))
            raise

    async def _post(
        self, statement: str | bytes, settings: dict[str, str], login: Login, deadline: Deadline
    ) -> Reply:
        reply = await self._http.request(
            "POST",
            "/",
            deadline,
            query=settings,
            headers=_credentials(login),
            body=statement if isinstance(statement, bytes) else statement.encode(),
        )
        self._refuse(reply)
        return reply

    def _refuse(self, reply: Reply) -> None:
        """Raise the Problem that the reply tells of, if it does."""
        problem = in_reply(reply) or in_body(reply)
        if problem is None:
            return
        if problem.engine_code == "81" and self._server.database in problem.detail:
            # Ours, which the operator has not made yet: no fault of the statement.
            raise EngineUnavailable(problem.detail, engine_code="81")
        raise problem

    async def _kill(self, query_id: str, login: Login) -> None:
        """Stop the server's work on it; the server's own time limit stands behind this."""
        statement = "KILL QUERY WHERE query_id = {id:String} ASYNC"
        try:
            await self._post(
                statement, {"param_id": query_id}, login, Deadline.after(_KILL_SECONDS)
            )
        except Problem as problem:
            LOG.warning("%s: %s could not be stopped: %s", self.engine, query_id, problem.detail)


def _parameters(bare: str, values: dict[str, Any]) -> dict[str, str]:
    """The values as the URL carries them; raises ParameterMismatch."""
    asked = set(_PLACEHOLDER.findall(bare))
    missing, unused = sorted(asked - values.keys()), sorted(values.keys() - asked)
    if missing or unused:
        said = [f"{name} is missing" for name in missing] + [
            f"{name} is not used" for name in unused
        ]
        raise ParameterMismatch("; ".join(said))
    return {f"param_{name}": _value(value) for name, value in values.items()}


def _value(value: Any) -> str:
    """A value of its own: text in the escaped form, without quotes."""
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else _literal(value)


def _literal(value: Any) -> str:
    """A value inside another: text in quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value.translate(_QUOTED_ESCAPES)}'"
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_literal(key)}:{_literal(item)}" for key, item in value.items())
        return f"{{{','.join(pairs)}}}"
    return str(value)


def _result(reply: Reply, max_rows: int | None) -> Result:
    body = reply.body.rstrip(b"\n")
    if not body:
        return Result(data=[], row_count=_written(reply.headers))
    _check_format(reply.headers, "JSONEachRow")
    # A line feed inside a value is escaped, so each line is a row.
    count = body.count(b"\n") + 1
    if max_rows is None or count <= max_rows:
        return Result(data=_joined(body), row_count=count)
    kept = b"\n".join(body.split(b"\n", max_rows)[:max_rows])
    return Result(data=_joined(kept), row_count=max_rows, truncated=True)


def _joined(lines: bytes) -> msgspec.Raw:
    return msgspec.Raw(b"[" + lines.replace(b"\n", b",") + b"]")


def _check_format(headers: Mapping[str, str], wanted: str) -> None:
    named_format = headers.get("X-ClickHouse-Format", wanted)
    if named_format != wanted:
        raise QueryRejected(f"leave FORMAT {named_format} out: rows travel as {wanted} here")


def _credentials(login: Login) -> dict[str, str]:
    return {"X-ClickHouse-User": login.username, "X-ClickHouse-Key": login.password}


def _written(headers: Mapping[str, str]) -> int:
    try:
        return int(_SUMMARY.decode(headers.get("X-ClickHouse-Summary", "{}")).written_rows)
    except (msgspec.DecodeError, ValueError):
        return 0
