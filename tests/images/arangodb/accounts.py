"""/_api/database and /_api/user: databases, users, passwords and grants."""

import re

from access import Caller
from calls import Answer, Call, envelope, route
from failure import Failure
from store import Json, password_of

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
