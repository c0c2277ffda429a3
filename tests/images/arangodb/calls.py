"""The HTTP calls of the stand-in: each a function of a `Call`, found by method and path.

A function returns (status, body) and runs in a thread with a store session of its own, inside one
transaction when it writes. Cursors and stream transactions live in `Shared`.
"""

import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import access
import aql
from access import Caller
from aql_run import Run
from failure import Failure
from store import DOCUMENT, Json, Session, Store, password_of

VERSION = "3.12.10"
DEFAULT_BATCH = 1000
Answer = tuple[int, Any]


@dataclass
class Transaction:
    """A stream transaction: its own connection, one request at a time."""

    session: Session
    writes: frozenset[str]
    lock: threading.Lock = field(default_factory=threading.Lock)


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


# -- databases ---------------------------------------------------------------------------------


@route("GET", "/_api/database")
def databases(call: Call) -> Answer:
    _in_system(call)
    call.caller.must_enter("_system")
    return envelope(call.session.databases())


@route("GET", "/_api/database/user")
def own_databases(call: Call) -> Answer:
    names = call.session.databases()
    return envelope([name for name in names if call.caller.database_level(name) > 0])


@route("GET", "/_api/database/current")
def current_database(call: Call) -> Answer:
    system = call.db == "_system"
    return envelope({"name": call.db, "id": "1", "path": "", "isSystem": system})


@route("POST", "/_api/database", writes=True)
def create_database(call: Call) -> Answer:
    _in_system(call)
    call.caller.must_administer()
    name = str(call.body.get("name", ""))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise Failure(1208)
    call.session.create_database(name)
    for user in call.body.get("users") or []:
        if call.session.user(str(user["username"])) is None:
            _put(call, {"user": user["username"], "passwd": user.get("passwd", "")}, {}, new=True)
        _granted(call, str(user["username"]), name, None, "rw")
    return envelope(True, 201)


@route("DELETE", "/_api/database/{}", writes=True)
def drop_database(call: Call) -> Answer:
    _in_system(call)
    call.caller.must_administer()
    if call.parts[0] == "_system":
        raise Failure(11)
    call.session.drop_database(call.parts[0])
    return envelope(True)


def _in_system(call: Call) -> None:
    if call.db != "_system":
        raise Failure(1229)


# -- users -------------------------------------------------------------------------------------


@route("GET", "/_api/user")
def users(call: Call) -> Answer:
    call.caller.must_administer()
    return envelope([_shown(user) for user in call.session.users()])


@route("GET", "/_api/user/{}")
def user(call: Call) -> Answer:
    _must_be_self_or_administer(call)
    return 200, {"error": False, "code": 200} | _shown(_known(call))


@route("POST", "/_api/user", writes=True)
def create_user(call: Call) -> Answer:
    call.caller.must_administer()
    name = call.body.get("user")
    if not name:
        raise Failure(400, "user name is missing")
    if call.session.user(str(name)):
        raise Failure(1702)
    return 201, {"error": False, "code": 201} | _put(call, call.body, {}, new=True)


@route("PATCH", "/_api/user/{}", writes=True)
def update_user(call: Call) -> Answer:
    _must_be_self_or_administer(call)
    return 200, {"error": False, "code": 200} | _put(call, call.body, _known(call), new=False)


@route("PUT", "/_api/user/{}", writes=True)
def replace_user(call: Call) -> Answer:
    call.caller.must_administer()
    kept = {"user": call.parts[0], "grants": _known(call)["grants"]}
    return 200, {"error": False, "code": 200} | _put(call, call.body, kept, new=True)


@route("DELETE", "/_api/user/{}", writes=True)
def drop_user(call: Call) -> Answer:
    call.caller.must_administer()
    call.session.drop_user(call.parts[0])
    return 202, {"error": False, "code": 202}


@route("GET", "/_api/user/{}/database")
def grants(call: Call) -> Answer:
    _must_be_self_or_administer(call)
    held = _known(call)["grants"]
    if call.flag("full"):
        return envelope(held)
    return envelope(
        {db: entry["permission"] for db, entry in held.items() if "permission" in entry}
    )


@route("GET", "/_api/user/{}/database/{}")
@route("GET", "/_api/user/{}/database/{}/{}")
def grant(call: Call) -> Answer:
    _must_be_self_or_administer(call)
    of = Caller(call.parts[0], _known(call)["grants"])
    level = of.database_level(call.parts[1]) if len(call.parts) == 2 else of.level(*call.parts[1:])
    return envelope(["none", "ro", "rw"][level])


@route("PUT", "/_api/user/{}/database/{}", writes=True)
@route("PUT", "/_api/user/{}/database/{}/{}", writes=True)
def set_grant(call: Call) -> Answer:
    call.caller.must_administer()
    name, db, *collection = call.parts
    level = str(call.body.get("grant", ""))
    if level not in ("rw", "ro", "none"):
        raise Failure(400, "grant must be rw, ro or none")
    _granted(call, name, db, collection[0] if collection else None, level)
    return 200, {"error": False, "code": 200, db: level}


@route("DELETE", "/_api/user/{}/database/{}", writes=True)
@route("DELETE", "/_api/user/{}/database/{}/{}", writes=True)
def clear_grant(call: Call) -> Answer:
    call.caller.must_administer()
    name, db, *collection = call.parts
    _granted(call, name, db, collection[0] if collection else None, "")
    return 202, {"error": False, "code": 202}


def _must_be_self_or_administer(call: Call) -> None:
    if call.parts[0] != call.caller.name:
        call.caller.must_administer()


def _known(call: Call) -> Json:
    found = call.session.user(call.parts[0])
    if found is None:
        raise Failure(1703)
    return found


def _put(call: Call, body: Json, kept: Json, new: bool) -> Json:
    # python-arango sends null for what its caller left out.
    body = {name: value for name, value in body.items() if value is not None}
    fresh = {
        "user": body.get("user") or kept["user"],
        "active": body.get("active", kept.get("active", True)),
        "extra": body.get("extra", kept.get("extra", {})),
        "grants": kept.get("grants", {}),
        "password": kept.get("password"),
    }
    if "passwd" in body or new:
        fresh["password"] = password_of(str(body.get("passwd", "")))
    call.session.put_user(fresh)
    return _shown(fresh)


def _granted(call: Call, name: str, db: str, collection: str | None, level: str) -> None:
    found = call.session.user(name)
    if found is None:
        raise Failure(1703)
    entry = found["grants"].setdefault(db, {})
    place, key = (entry, "permission")
    if collection is not None:
        place, key = entry.setdefault("collections", {}), collection
    place[key] = level
    if not level:
        del place[key]
    if not entry:
        del found["grants"][db]
    call.session.put_user(found)


def _shown(user: Json) -> Json:
    return {name: user[name] for name in ("user", "active", "extra")}


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


# -- queries -----------------------------------------------------------------------------------


@route("POST", "/_api/cursor", writes=True)
def query(call: Call) -> Answer:
    started = time.monotonic()
    body = call.body if isinstance(call.body, dict) else {}
    options = body.get("options") or {}
    seconds = options.get("maxRuntime") or body.get("maxRuntime")
    run = Run(
        session=call.session,
        db=call.db,
        bind=body.get("bindVars") or {},
        may_read=lambda name: call.caller.must_read(call.db, name),
        may_write=lambda name: call.caller.must_write(call.db, name),
        until=started + float(seconds) if seconds else None,
    )
    rows = aql.parse(str(body.get("query") or ""), run).rows()
    stats = {
        "writesExecuted": run.executed,
        "writesIgnored": run.ignored,
        "scannedFull": run.scanned,
        "scannedIndex": 0,
        "filtered": 0,
        "executionTime": time.monotonic() - started,
        "peakMemoryUsage": 0,
    }
    state = {
        "rows": rows,
        "size": int(body.get("batchSize") or DEFAULT_BATCH),
        "count": len(rows) if body.get("count") else None,
        "extra": {"stats": stats, "warnings": []},
        "owner": call.caller.name,
        "batch": 1,
    }
    return 201, _batch(call, str(next(call.shared.numbers)), state, 201)


@route("PUT", "/_api/cursor/{}")
@route("POST", "/_api/cursor/{}")
@route("POST", "/_api/cursor/{}/{}")
def more(call: Call) -> Answer:
    state = call.shared.cursors.pop(call.parts[0], None)
    if state is None or state["owner"] != call.caller.name:
        raise Failure(1600)
    return 200, _batch(call, call.parts[0], state, 200)


@route("DELETE", "/_api/cursor/{}")
def close_cursor(call: Call) -> Answer:
    if call.shared.cursors.pop(call.parts[0], None) is None:
        raise Failure(1600)
    return 202, {"error": False, "code": 202, "id": call.parts[0]}


def _batch(call: Call, identity: str, state: Json, status: int) -> Json:
    size = state["size"]
    now_, rest = state["rows"][:size], state["rows"][size:]
    body = {
        "error": False,
        "code": status,
        "result": now_,
        "hasMore": bool(rest),
        "cached": False,
        "extra": state["extra"],
    }
    if state["count"] is not None:
        body["count"] = state["count"]
    if rest:
        number = state["batch"] + 1
        call.shared.cursors[identity] = state | {"rows": rest, "batch": number}
        body |= {"id": identity, "nextBatchId": str(number)}
    return body


@route("POST", "/_api/explain")
def explain(call: Call) -> Answer:
    run = _dry(call)
    parsed = aql.parse(str(call.body.get("query") or ""), run)
    plan = {
        "nodes": [{"type": "SingletonNode", "id": 1, "dependencies": [], "estimatedCost": 1}],
        "rules": [],
        "collections": [],
        "variables": [],
        "estimatedCost": 1,
        "estimatedNrItems": 1,
        "isModificationQuery": parsed.writes,
    }
    return 200, {"error": False, "code": 200, "plan": plan, "warnings": [], "stats": {}}


def _dry(call: Call) -> Run:
    return Run(
        session=call.session,
        db=call.db,
        bind=call.body.get("bindVars") or {},
        may_read=lambda name: None,
        may_write=lambda name: None,
    )


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
