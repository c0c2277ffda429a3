"""The HTTP calls of the stand-in: each a function of a `Call`, found by method and path.

A function returns (status, body) and runs in a thread with a store session of its own, inside one
transaction when it writes. Cursors and stream transactions live in `Shared`.
"""

import contextlib
import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import access
from access import Caller
from failure import Failure
from store import DOCUMENT, Json, Session, Store

VERSION = "3.12.10"
Answer = tuple[int, Any]


@dataclass
class Transaction:
    """A stream transaction: its own connection, one request at a time."""

    session: Session
    writes: frozenset[str]
    lock: threading.Lock = field(default_factory=threading.Lock)
    used_at: float = field(default_factory=time.monotonic)


@dataclass
class Shared:
    """What outlives a request."""

    store: Store
    authentication: bool
    cursors: dict[str, Json] = field(default_factory=dict)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(100))


@dataclass(frozen=True)
class Call:
    """One request, authenticated. `body` is parsed JSON or None."""

    shared: Shared
    session: Session
    caller: Caller
    db: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: Any
    transaction: Transaction | None

    def flag(self, name: str, default: bool = False) -> bool:
        return self.query.get(name, str(default)).lower() in ("true", "1", "yes")


Handler = Callable[[Call], Answer]
ROUTES: list[tuple[str, re.Pattern[str], Handler, bool]] = []


def route(method: str, path: str, writes: bool = False) -> Callable[[Handler], Handler]:
    """`{}` in the path stands for one segment, `{*}` for the rest."""
    pattern = re.escape(path).replace(r"\{\}", "([^/]+)").replace(r"\{\*\}", "(.+)")

    def keep(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(f"{pattern}/?"), handler, writes))
        return handler

    return keep


def find(method: str, path: str) -> tuple[Handler, bool, tuple[str, ...]]:
    """404 for a path that is not offered."""
    method = "GET" if method == "HEAD" else method
    for known, pattern, handler, writes in ROUTES:
        if known == method and (match := pattern.fullmatch(path)):
            return handler, writes, match.groups()
    raise Failure(404, path)


def envelope(result: Any, status: int = 200) -> Answer:
    return status, {"error": False, "code": status, "result": result}


# -- server ------------------------------------------------------------------------------------


@route("GET", "/_api/version")
def version(call: Call) -> Answer:
    return 200, {"server": "arango", "license": "community", "version": VERSION}


@route("GET", "/_api/engine")
def engine(call: Call) -> Answer:
    return 200, {"name": "rocksdb", "supports": {}}


@route("GET", "/_admin/server/role")
def role(call: Call) -> Answer:
    return 200, {"error": False, "code": 200, "role": "SINGLE"}


@route("GET", "/_admin/time")
def now(call: Call) -> Answer:
    return 200, {"error": False, "code": 200, "time": time.time()}


@route("GET", "/_admin/metrics/v2")
def metrics(call: Call) -> Answer:
    cursors = len(call.shared.cursors)
    return 200, f"arangodb_aql_cursors_active {cursors}\n"


# -- collections and indexes -------------------------------------------------------------------


@route("GET", "/_api/collection")
def collections(call: Call) -> Answer:
    listed = call.session.collections(call.db)
    visible = [item for item in listed if call.caller.level(call.db, item["name"]) > 0]
    return envelope(visible)


@route("POST", "/_api/collection", writes=True)
def create_collection(call: Call) -> Answer:
    call.caller.must_administer(call.db)
    body = dict(call.body or {})
    kind = int(body.pop("type", DOCUMENT))
    made = call.session.create_collection(call.db, str(body.pop("name", "")), kind, body)
    return 200, {"error": False, "code": 200} | made


@route("GET", "/_api/collection/{}")
@route("GET", "/_api/collection/{}/properties")
def collection(call: Call) -> Answer:
    return 200, {"error": False, "code": 200} | _readable(call)


@route("GET", "/_api/collection/{}/count")
def count(call: Call) -> Answer:
    found = _readable(call)
    number = call.session.count(call.db, found["name"])
    return 200, {"error": False, "code": 200, "count": number} | found


@route("PUT", "/_api/collection/{}/truncate", writes=True)
def truncate(call: Call) -> Answer:
    found = call.session.collection(call.db, call.parts[0])
    call.caller.must_write(call.db, call.parts[0])
    call.session.truncate(call.db, call.parts[0])
    return 200, {"error": False, "code": 200} | found


@route("DELETE", "/_api/collection/{}", writes=True)
def drop_collection(call: Call) -> Answer:
    call.caller.must_administer(call.db)
    dropped = call.session.drop_collection(call.db, call.parts[0])
    return 200, {"error": False, "code": 200, "id": dropped["id"]}


@route("GET", "/_api/index")
def indexes(call: Call) -> Answer:
    name = call.query.get("collection", "")
    call.session.collection(call.db, name)
    call.caller.must_read(call.db, name)
    return 200, {"error": False, "code": 200, "indexes": call.session.indexes(call.db, name)}


@route("POST", "/_api/index", writes=True)
def create_index(call: Call) -> Answer:
    name = call.query.get("collection", "")
    call.session.collection(call.db, name)
    call.caller.must_administer(call.db)
    index, fresh = call.session.create_index(call.db, name, call.body)
    status = 201 if fresh else 200
    return status, {"error": False, "code": status, "isNewlyCreated": fresh} | index


@route("GET", "/_api/index/{}/{}")
def index(call: Call) -> Answer:
    name, number = call.parts
    for found in call.session.indexes(call.db, name):
        if found["id"] == f"{name}/{number}":
            return 200, {"error": False, "code": 200} | found
    raise Failure(1212)


@route("DELETE", "/_api/index/{}/{}", writes=True)
def drop_index(call: Call) -> Answer:
    name, number = call.parts
    call.caller.must_administer(call.db)
    call.session.drop_index(call.db, name, f"{name}/{number}")
    return 200, {"error": False, "code": 200, "id": f"{name}/{number}"}


def _readable(call: Call) -> Json:
    found = call.session.collection(call.db, call.parts[0])
    call.caller.must_read(call.db, call.parts[0])
    return found


# -- stream transactions -----------------------------------------------------------------------


@route("POST", "/_api/transaction/begin")
def begin(call: Call) -> Answer:
    named = {
        kind: [names] if isinstance(names, str) else list(names)
        for kind, names in (call.body.get("collections") or {}).items()
    }
    writes = {*named.get("write", []), *named.get("exclusive", [])}
    for name in {*named.get("read", []), *writes}:
        call.session.collection(call.db, name)
        call.caller.must_read(call.db, name)
    for name in writes:
        call.caller.must_write(call.db, name)
    session = call.shared.store.detached()
    try:
        if writes:
            session.begin()
        else:
            session.connection.execute("BEGIN")
    except BaseException:
        session.connection.close()
        raise
    identity = secrets.token_hex(8)
    call.shared.transactions[identity] = Transaction(session, frozenset(writes))
    return envelope({"id": identity, "status": "running"}, 201)


@route("GET", "/_api/transaction/{}")
def transaction(call: Call) -> Answer:
    if call.parts[0] not in call.shared.transactions:
        raise Failure(1655)
    return envelope({"id": call.parts[0], "status": "running"})


@route("PUT", "/_api/transaction/{}")
def commit(call: Call) -> Answer:
    return _end(call, "COMMIT", "committed")


@route("DELETE", "/_api/transaction/{}")
def abort(call: Call) -> Answer:
    return _end(call, "ROLLBACK", "aborted")


def give_up_idle(shared: Shared, seconds: float) -> None:
    """Abort the transactions that nobody has used for so long."""
    for identity, transaction in list(shared.transactions.items()):
        if time.monotonic() - transaction.used_at < seconds:
            continue
        if transaction.lock.acquire(blocking=False):
            with contextlib.suppress(KeyError):
                del shared.transactions[identity]
                transaction.session.connection.execute("ROLLBACK")
                transaction.session.connection.close()
            transaction.lock.release()


def _end(call: Call, statement: str, status: str) -> Answer:
    ended = call.shared.transactions.pop(call.parts[0], None)
    if ended is None:
        raise Failure(1655)
    with ended.lock:
        ended.session.connection.execute(statement)
        ended.session.connection.close()
    return envelope({"id": call.parts[0], "status": status})


# -- login -------------------------------------------------------------------------------------


def open_auth(shared: Shared, body: Any) -> Answer:
    """/_open/auth: a JWT for a name and a password."""
    if not isinstance(body, dict) or "username" not in body:
        raise Failure(400)
    with shared.store.session() as session:
        try:
            access.login(session, str(body["username"]), str(body.get("password", "")))
        except Failure as failure:
            failure.args = ("Wrong credentials",)
            raise failure from None
    return 200, {"jwt": access.token(str(body["username"]), shared.store.secret)}
