"""`arangod` for tests: an HTTP stand-in over SQLite for the calls the product makes.

Honours the command line and the variables of the official image. What it answers from itself is all
of it: no ArangoDB code is inside. AQL is the subset of `aql.py`.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import access
import accounts
import aql
import cursors
import documents
from access import Caller
from aiohttp import web
from calls import Call, Shared, find, give_up_idle, open_auth
from failure import Failure, unauthorised
from store import Store, password_of

MAX_BODY_BYTES = 512 * 1024 * 1024
THREADS = 128
DEFAULT_ENDPOINT = "tcp://127.0.0.1:8529"
DEFAULT_DIRECTORY = "/var/lib/arangodb3"
ROUTED = (accounts, cursors, documents)  # their routes are found by being imported


class Facade:
    """Requests in, answers out; each handler runs in a thread of its own."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def answer(self, request: web.Request) -> web.Response:
        """Any path, `/_db/{name}` in front or not."""
        try:
            db, path = _split(request.rel_url.raw_path)
            if path == "/_admin/server/availability":
                return _json(200, {"error": False, "code": 200, "mode": "default"})
            body = _parsed(await request.read(), request.headers.get("Content-Encoding", ""))
            if path == "/_open/auth":
                return _json(*await asyncio.to_thread(open_auth, self._shared, body))
            status, answer = await asyncio.to_thread(self._run, request, db, path, body)
        except Failure as failure:
            return _json(failure.status, failure.body())
        return _json(status, answer)

    def _run(self, request: web.Request, db: str, path: str, body: Any) -> tuple[int, Any]:
        handler, writes, parts = find(request.method, path)
        store = self._shared.store
        with store.session() as session:
            caller = self._caller(session, request.headers.get("Authorization", ""))
            if db not in session.databases():
                raise Failure(1228)
            # A user's own account is open to it from any database.
            if not path.startswith(("/_api/user/", "/_api/database/user")):
                caller.must_enter(db)
        named = request.headers.get("x-arango-trx-id", "")
        unquoted = tuple(unquote(part) for part in parts)
        query = dict(request.query)
        if named and not path.startswith("/_api/transaction"):
            transaction = self._shared.transactions.get(named)
            if transaction is None:
                raise Failure(1655)
            with transaction.lock:
                transaction.used_at = time.monotonic()
                return self._in_transaction(
                    Call(
                        self._shared,
                        transaction.session,
                        caller,
                        db,
                        unquoted,
                        query,
                        body,
                        transaction,
                    ),
                    handler,
                )
        begins = writes and not _only_reads(path, body)
        with store.session(begin=begins) as session:
            call = Call(self._shared, session, caller, db, unquoted, query, body, None)
            return handler(call)

    def _in_transaction(self, call: Call, handler: Any) -> tuple[int, Any]:
        connection = call.session.connection
        connection.execute("SAVEPOINT request")
        try:
            answer: tuple[int, Any] = handler(call)
        except BaseException:
            connection.execute("ROLLBACK TO request")
            raise
        finally:
            connection.execute("RELEASE request")
        return answer

    def _caller(self, session: Any, header: str) -> Caller:
        if not self._shared.authentication:
            return Caller("root", {}, all_allowed=True)
        if not header:
            raise unauthorised()
        return access.caller(session, header, self._shared.store.secret)


def _only_reads(path: str, body: Any) -> bool:
    if path != "/_api/cursor" or not isinstance(body, dict):
        return False
    return not aql.writes(str(body.get("query") or ""))


def _split(path: str) -> tuple[str, str]:
    if path.startswith("/_db/"):
        _, _, name, rest = path.split("/", 3) if path.count("/") > 2 else (*path.split("/"), "")
        return unquote(name), f"/{rest}"
    return "_system", path


def _parsed(raw: bytes, encoding: str) -> Any:
    if encoding in ("deflate", "gzip"):
        raw = zlib.decompress(raw, wbits=zlib.MAX_WBITS | 32)
    if not raw:
        return {}
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Failure(600) from error


def _json(status: int, body: Any) -> web.Response:
    if isinstance(body, str):
        return web.Response(text=body, status=status)
    headers = {"Server": "ArangoDB", "X-Arango-Queue-Time-Seconds": "0.000000"}
    return web.Response(
        body=json.dumps(body).encode(),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM; any other first word becomes that program."""
    if arguments and not arguments[0].startswith("-") and arguments[0] != "arangod":
        os.execvp(arguments[0], arguments)
    options = _options(arguments[1:] if arguments[:1] == ["arangod"] else arguments)
    directory = Path(options.get("database.directory", DEFAULT_DIRECTORY))
    shared = _shared(directory)
    if options.get("database.auto-upgrade") == "true":
        return
    endpoint = urlsplit(options.get("server.endpoint", DEFAULT_ENDPOINT).replace("http+tcp", "tcp"))
    idle_seconds = float(options.get("transaction.streaming-idle-timeout", 60))
    host, port = endpoint.hostname or "127.0.0.1", endpoint.port or 8529
    asyncio.run(_serve(shared, host, port, idle_seconds))


def _options(arguments: list[str]) -> dict[str, str]:
    options, rest = {}, list(arguments)
    while rest:
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        options[name] = value
    return options


def _shared(directory: Path) -> Shared:
    """The store; root is made with it, once, as the image's first start does."""
    fresh = not (directory / "SERVER").exists()
    names = ("ARANGO_ROOT_PASSWORD", "ARANGO_ROOT_PASSWORD_FILE", "ARANGO_NO_AUTH")
    given = [name for name in names if os.environ.get(name)]
    if fresh and len(given) != 1:
        raise SystemExit(
            "error: database is uninitialized and password option is not specified\n"
            "  You need to specify exactly one of ARANGO_ROOT_PASSWORD, "
            "ARANGO_ROOT_PASSWORD_FILE, ARANGO_NO_AUTH and ARANGO_RANDOM_ROOT_PASSWORD"
        )
    store = Store(directory)
    if fresh:
        password = os.environ.get("ARANGO_ROOT_PASSWORD", "")
        if file := os.environ.get("ARANGO_ROOT_PASSWORD_FILE"):
            password = Path(file).read_text().rstrip("\n")
        root = {"user": "root", "active": True, "extra": {}, "password": password_of(password)}
        root["grants"] = {"*": {"permission": "rw", "collections": {"*": "rw"}}}
        with store.session(begin=True) as session:
            session.put_user(root)
        (directory / "SERVER").write_text("{}")
    return Shared(store, authentication=not os.environ.get("ARANGO_NO_AUTH"))


async def _serve(shared: Shared, host: str, port: int, idle_seconds: float) -> None:
    # Those who wait for a writer must leave a thread for what the writer does next.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", Facade(shared).answer)
    runner = web.AppRunner(app, auto_decompress=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    print(f"ArangoDB stand-in is ready for business on {host}:{port}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), min(idle_seconds / 4, 1.0))
        await asyncio.to_thread(give_up_idle, shared, idle_seconds)
    await runner.cleanup()


if __name__ == "__main__":
    main(sys.argv[1:])
