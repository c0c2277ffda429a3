"""/_api/document: one document or an array of them, in a collection."""

from typing import Any

from aql_run import merge
from calls import Answer, Call, route
from failure import Failure
from store import Json


@route("POST", "/_api/document/{}", writes=True)
def insert(call: Call) -> Answer:
    name = _writable(call)
    if isinstance(call.body, list):
        results = [_attempt(lambda item=item: _insert(call, name, item)) for item in call.body]
        return 202, results
    if not isinstance(call.body, dict):
        raise Failure(400)
    return 202, _insert(call, name, call.body)


@route("GET", "/_api/document/{}/{}")
def get(call: Call) -> Answer:
    name, key = call.parts
    call.caller.must_read(call.db, name)
    found = call.session.find(call.db, name, key)
    if found is None:
        raise Failure(1202)
    return 200, found


@route("PUT", "/_api/document/{}", writes=True)
def get_or_replace_many(call: Call) -> Answer:
    """With `?onlyget=true` a read of many keys, else a replace of many."""
    if not call.flag("onlyget"):
        name = _writable(call)
        return 202, [
            _attempt(lambda item=item: _change(call, name, _key(item), item, replaces=True))
            for item in call.body
        ]
    name = call.parts[0]
    call.caller.must_read(call.db, name)
    found = []
    for item in call.body:
        document = call.session.find(call.db, name, _key(item))
        found.append(document or Failure(1202).body())
    return 200, found


@route("PATCH", "/_api/document/{}", writes=True)
def update_many(call: Call) -> Answer:
    name = _writable(call)
    return 202, [
        _attempt(lambda item=item: _change(call, name, _key(item), item, replaces=False))
        for item in call.body
    ]


@route("DELETE", "/_api/document/{}", writes=True)
def remove_many(call: Call) -> Answer:
    name = _writable(call)
    return 202, [_attempt(lambda item=item: _remove(call, name, _key(item))) for item in call.body]


@route("PUT", "/_api/document/{}/{}", writes=True)
def replace(call: Call) -> Answer:
    return 202, _change(call, _writable(call), call.parts[1], call.body, replaces=True)


@route("PATCH", "/_api/document/{}/{}", writes=True)
def update(call: Call) -> Answer:
    return 202, _change(call, _writable(call), call.parts[1], call.body, replaces=False)


@route("DELETE", "/_api/document/{}/{}", writes=True)
def remove(call: Call) -> Answer:
    return 202, _remove(call, _writable(call), call.parts[1])


def _writable(call: Call) -> str:
    name = call.parts[0]
    call.session.collection(call.db, name)
    call.caller.must_write(call.db, name)
    return name


def _attempt(action: Any) -> Json:
    try:
        result: Json = action()
    except Failure as failure:
        body = failure.body()
        del body["code"]
        return body
    return result


def _key(item: Any) -> str:
    """Of a document, an id or a key."""
    text = item.get("_key") or item.get("_id") if isinstance(item, dict) else item
    return str(text).rpartition("/")[2]


def _insert(call: Call, name: str, document: Json) -> Json:
    mode = call.query.get("overwriteMode") or ("replace" if call.flag("overwrite") else "")
    key = document.get("_key")
    old = call.session.find(call.db, name, key) if mode and isinstance(key, str) else None
    if old is None or mode == "conflict":
        return _reported(call, call.session.insert(call.db, name, document), None)
    if mode == "ignore":
        return _reported(call, old, None)
    return _change(call, name, old["_key"], document, replaces=mode == "replace")


def _change(call: Call, name: str, key: str, document: Json, replaces: bool) -> Json:
    old = call.session.find(call.db, name, key)
    if old is None:
        raise Failure(1202)
    if (
        not call.flag("ignoreRevs", default=True)
        and document.get("_rev", old["_rev"]) != old["_rev"]
    ):
        raise Failure(1200, "_rev values do not match", status=412)
    options = {
        "keepNull": call.flag("keepNull", default=True),
        "mergeObjects": call.flag("mergeObjects", default=True),
    }
    body = document if replaces else merge(old, document, options)
    return _reported(call, call.session.replace(call.db, name, key, body), old)


def _remove(call: Call, name: str, key: str) -> Json:
    old = call.session.find(call.db, name, key)
    if old is None:
        raise Failure(1202)
    call.session.remove(call.db, name, key)
    return _reported(call, old, old, removed=True)


def _reported(call: Call, new: Json, old: Json | None, removed: bool = False) -> Json:
    if call.flag("silent"):
        return {}
    report = {name: new[name] for name in ("_id", "_key", "_rev")}
    if old is not None and not removed:
        report["_oldRev"] = old["_rev"]
    if call.flag("returnNew") and not removed:
        report["new"] = new
    if call.flag("returnOld") and old is not None:
        report["old"] = old
    return report
