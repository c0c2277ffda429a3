"""/_api/cursor and /_api/explain: AQL, its batches, its plan."""

import time

import aql
from aql_run import Run
from calls import Answer, Call, route
from failure import Failure
from running import running
from store import Json

DEFAULT_BATCH = 1000


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
    text = str(body.get("query") or "")
    with running(call, text, run):
        rows = aql.parse(text, run).rows()
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
    # A variable may be called as a collection is; it is then one that is read.
    known = {found["name"] for found in call.session.collections(call.db)}
    used = [{"name": name, "type": "write"} for name in sorted(run.written)]
    used += [{"name": name, "type": "read"} for name in sorted(run.read & known - run.written)]
    plan = {
        "nodes": [{"type": "SingletonNode", "id": 1, "dependencies": [], "estimatedCost": 1}],
        "rules": [],
        "collections": used,
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
