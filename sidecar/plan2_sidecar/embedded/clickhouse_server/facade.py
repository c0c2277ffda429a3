"""ClickHouse's HTTP interface over the embedded engine.

Requests are read here, `Access` says who may do what, and the statement goes to the engine. Left
out: the native protocol, sessions, external tables, progress headers, response compression.
"""

import asyncio
import base64
import binascii
import contextlib
import gzip
import hmac
import itertools
import json
import logging
import signal
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from plan2_sidecar.embedded.clickhouse_server import sql_text
from plan2_sidecar.embedded.clickhouse_server.engine import Answer, Engine
from plan2_sidecar.embedded.clickhouse_server.failure import Failure

LOG = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 30
MAX_LEXED = 1 << 20
# Parameters of the HTTP interface itself; every other one is a setting.
_INTERFACE = """
    query database user password default_format query_id session_id session_timeout
    session_check close_session quota_key wait_end_of_query buffer_size compress
    decompress stacktrace role send_progress_in_http_headers
    http_headers_progress_interval_ms enable_http_compression client_protocol_version
    readonly cancel_http_readonly_queries_on_client_close http_zlib_compression_level
    add_http_cors_header
"""
INTERFACE = frozenset(_INTERFACE.split())
FORMATS = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
}


@dataclass(frozen=True)
class Asked:
    """One request, read."""

    statement: bytes
    data: bytes
    database: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    readonly: bool
    default_format: str


class Access(Protocol):
    """Who may log in, and what they may do. Refusals are raised as Failure."""

    def authenticate(self, user: str, password: str) -> None:
        """Return when the password is the user's."""
        ...

    def statement(self, user: str, words: list[sql_text.Token], database: str) -> list[str] | None:
        """Rows of one column when the statement is about users and grants, else None."""
        ...

    def check(self, user: str, words: list[sql_text.Token], database: str) -> None:
        """Return when the user may run the statement."""
        ...

    def rewritten(self, text: str, words: list[sql_text.Token], user: str) -> str:
        """The statement as the engine is to run it."""
        ...


@dataclass(frozen=True)
class OneUser:
    """The only user, who may do everything."""

    name: str
    password: str

    def authenticate(self, user: str, password: str) -> None:
        """Raise 516 for anybody else."""
        theirs, ours = f"{user}\0{password}", f"{self.name}\0{self.password}"
        if not hmac.compare_digest(theirs.encode(), ours.encode()):
            raise wrong_password(user)

    def statement(self, user: str, words: list[sql_text.Token], database: str) -> None:
        """The engine answers everything."""

    def check(self, user: str, words: list[sql_text.Token], database: str) -> None:
        """Nothing is refused."""

    def rewritten(self, text: str, words: list[sql_text.Token], user: str) -> str:
        """As it came."""
        return text


def wrong_password(user: str) -> Failure:
    """What the server says, whether the user or the password is wrong."""
    return Failure(
        516,
        f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
        "AUTHENTICATION_FAILED",
    )


class Facade:
    """The handlers, and what they share."""

    def __init__(self, engine: Engine, access: Access, name: str) -> None:
        self._engine = engine
        self._access = access
        self._name = name

    def application(self) -> web.Application:
        """Every path but the probes' takes a statement."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/ping", _ok)
        app.router.add_get("/replicas_status", _ok)
        app.router.add_route("*", "/{anything:.*}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """GET and POST /?query=…; errors in the words of the real server."""
        headers = {
            "X-ClickHouse-Server-Display-Name": self._name,
            "X-ClickHouse-Query-Id": request.query.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        try:
            user = self._authenticated(request)
            asked = await _read(request)
            if not asked.statement.strip():
                return web.Response(text="Ok.\n", headers=headers)
            answer, named = await self._run(user, asked, request.method)
        except Failure as failure:
            headers["X-ClickHouse-Exception-Code"] = str(failure.code)
            if failure.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
            text = failure.text(self._engine.version)
            return web.Response(text=text, status=failure.status, headers=headers)
        headers |= {
            "X-ClickHouse-Format": named,
            "X-ClickHouse-Summary": _summary(answer),
            "Content-Type": FORMATS.get(named, "text/plain; charset=UTF-8"),
        }
        return web.Response(body=answer.body, headers=headers)

    def _authenticated(self, request: web.Request) -> str:
        user = request.headers.get("X-ClickHouse-User", "")
        password = request.headers.get("X-ClickHouse-Key", "")
        basic = request.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                text = base64.b64decode(basic.removeprefix("Basic ")).decode()
                user, _, password = text.partition(":")
        user = user or request.query.get("user", "default")
        self._access.authenticate(user, password or request.query.get("password", ""))
        return user

    async def _run(self, user: str, asked: Asked, method: str) -> tuple[Answer, str]:
        text = asked.statement.decode(errors="surrogateescape")
        words = sql_text.tokens(_head(text))
        named = sql_text.output_format(words, asked.default_format)
        _refuse_second_statement(text, words)
        if (rows := self._access.statement(user, words, asked.database)) is not None:
            body = await self._rows(rows, named)
            return body, named
        if (asked.readonly or method == "GET") and not sql_text.reads_only(words):
            raise Failure(164, f"{user}: Cannot execute query in readonly mode", "READONLY")
        self._access.check(user, words, asked.database)
        statement = self._access.rewritten(text, words, user).encode(errors="surrogateescape")
        if asked.data:
            statement = statement.rstrip().rstrip(b";") + b"\n" + asked.data
        answer = await self._engine.run(
            statement, asked.default_format, asked.database, asked.settings, asked.parameters
        )
        return answer, named

    async def _rows(self, rows: list[str], named: str) -> Answer:
        if not rows:
            return Answer(b"", 0, 0, 0, 0.0)
        cells = ", ".join("'" + row.replace("\\", "\\\\").replace("'", "\\'") + "'" for row in rows)
        statement = f"SELECT arrayJoin([{cells}]) AS value".encode()
        return await self._engine.run(statement, named, "default", {}, {})


def _refuse_second_statement(text: str, words: list[sql_text.Token]) -> None:
    """The server takes one statement a request; the engine would run them all."""
    if sql_text.verb(words) == "INSERT":
        if len(text) > MAX_LEXED or words[-1].upper != "VALUES":
            return
        words = sql_text.tokens(text)
    for word, following in itertools.pairwise(words):
        if word.kind == "mark" and word.text == ";" and following.text != ";":
            raise Failure(
                62,
                "Syntax error (Multi-statements are not allowed): failed at position "
                f"{word.start + 1} (end of query): {text[word.start : word.start + 40]}",
                "SYNTAX_ERROR",
            )


async def serve(facade: Facade, engine: Engine, bind: str, port: int) -> None:
    """Answer until SIGTERM or SIGINT, then let the engine write what it holds."""
    runner = web.AppRunner(facade.application(), auto_decompress=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, bind, port).start()
    LOG.info("ready for connections on %s:%s, engine %s", bind, port, engine.version)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    engine.close()


async def _ok(request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


async def _read(request: web.Request) -> Asked:
    body = _decoded(await request.read(), request.headers.get("Content-Encoding", ""))
    fields = dict(request.query)
    if request.content_type.startswith("multipart/"):
        # The whole body was read, so that aiohttp parses it from memory.
        fields |= {name: str(value) for name, value in (await request.post()).items()}
        body = b""
    in_url = fields.get("query", "").encode(errors="surrogateescape")
    statement, data = (in_url, body) if in_url.strip() else (body, b"")
    database = request.headers.get("X-ClickHouse-Database") or fields.get("database") or "default"
    return Asked(
        statement=statement,
        data=data,
        database=database.replace("`", ""),
        settings={
            name: value
            for name, value in fields.items()
            if name not in INTERFACE and not name.startswith("param_")
        },
        parameters={
            name.removeprefix("param_"): value
            for name, value in fields.items()
            if name.startswith("param_")
        },
        readonly=fields.get("readonly", "0") not in ("0", ""),
        default_format=request.headers.get("X-ClickHouse-Format")
        or fields.get("default_format")
        or "TabSeparated",
    )


def _decoded(body: bytes, encoding: str) -> bytes:
    try:
        match encoding:
            case "" | "identity":
                return body
            case "gzip":
                return gzip.decompress(body)
            case "deflate":
                return zlib.decompress(body)
            case "zstd":
                import zstandard

                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
                return body
            case "lz4":
                import lz4.frame

                body = lz4.frame.decompress(body)
                return body
    except ImportError:
        # Neither library is asked for: the sidecar compresses nothing.
        LOG.info("a body in %s came, and the library for it is not installed", encoding)
    raise Failure(48, f"Unknown compression method '{encoding}'", "NOT_IMPLEMENTED")


def _head(text: str) -> str:
    """The statement without the data of an INSERT, which no lexer need read."""
    if text.lstrip()[:6].upper() != "INSERT":
        return text
    for word in sql_text.tokens(text[:20000]):
        if word.upper == "VALUES":
            return text[: word.end]
        if word.upper == "FORMAT":
            return text[: word.end + 64]
    return text[:20000]


def _summary(answer: Answer) -> str:
    return json.dumps(
        {
            "read_rows": str(answer.rows_read),
            "read_bytes": str(answer.bytes_read),
            "written_rows": str(answer.rows_written),
            "written_bytes": "0",
            "total_rows_to_read": "0",
            "result_rows": "0",
            "result_bytes": str(len(answer.body)),
            "elapsed_ns": str(int(answer.seconds * 1e9)),
        }
    )
