"""MongoDB's users and what their built-in roles let them run.

Kept in a file beside the data. Roles are MongoDB's own names; a user's own roles are not offered.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import scram

_READ = """
    find aggregate count distinct listCollections listIndexes dbStats dbstats collStats dataSize
    explain getMore killCursors listDatabases dbHash
"""
_WRITE = """
    insert update delete findAndModify findandmodify create createIndexes drop dropIndexes
    deleteIndexes renameCollection convertToCapped commitTransaction abortTransaction
"""
_OPEN = """
    hello isMaster ismaster ping buildInfo buildinfo saslStart saslContinue logout
    connectionStatus whatsmyuri _isSelf endSessions getLog listCommands
"""
READ, WRITE, OPEN = (frozenset(text.split()) for text in (_READ, _WRITE, _OPEN))
_DB_ADMIN = frozenset(("collMod", "dropDatabase", "validate", "compact", "profile"))
_USERS = """
    createUser updateUser dropUser usersInfo grantRolesToUser revokeRolesFromUser
    dropAllUsersFromDatabase rolesInfo
"""
_WATCH = """
    serverStatus replSetGetStatus replSetGetConfig hostInfo getCmdLineOpts getParameter currentOp
    top listDatabases dbStats collStats getLog
"""
_USER_ADMIN, _MONITOR = frozenset(_USERS.split()), frozenset(_WATCH.split())
ROLES: dict[str, frozenset[str] | None] = {
    "read": READ,
    "readWrite": READ | WRITE,
    "dbAdmin": READ | _DB_ADMIN,
    "userAdmin": _USER_ADMIN,
    "dbOwner": READ | WRITE | _DB_ADMIN | _USER_ADMIN,
    "readAnyDatabase": READ,
    "readWriteAnyDatabase": READ | WRITE,
    "dbAdminAnyDatabase": READ | _DB_ADMIN,
    "userAdminAnyDatabase": _USER_ADMIN,
    "clusterMonitor": _MONITOR,
    "clusterAdmin": None,
    "clusterManager": None,
    "root": None,
    "__system": None,
}
EVERYWHERE = frozenset(role for role in ROLES if role.endswith("AnyDatabase")) | {
    "root",
    "__system",
}
User = dict[str, Any]


class UserError(Exception):
    """A command about users that MongoDB refuses; code and name are its own."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name = code, name


class Users:
    """Names are unique in a database: `admin.root` and `app.root` are two."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._users: dict[str, User] = json.loads(file.read_text()) if file.exists() else {}

    def __bool__(self) -> bool:
        return bool(self._users)

    def keys(self, database: str, name: str, mechanism: str) -> dict[str, Any] | None:
        """The SCRAM keys, None for an unknown user."""
        user = self._users.get(f"{database}.{name}")
        return user["credentials"].get(mechanism) if user else None

    def mechanisms(self, database: str, name: str) -> list[str]:
        user = self._users.get(f"{database}.{name}")
        return list(user["credentials"]) if user else []

    def create(self, database: str, name: str, password: str, roles: Iterable[Any]) -> None:
        key = f"{database}.{name}"
        if key in self._users:
            raise UserError(51003, "Location51003", f'User "{name}@{database}" already exists')
        self._users[key] = {
            "user": name,
            "db": database,
            "roles": _roles(roles, database),
            "credentials": scram.credentials(name, password),
        }
        self._save()

    def update(
        self, database: str, name: str, password: str | None, roles: Iterable[Any] | None
    ) -> None:
        user = self._known(database, name)
        if password is not None:
            user["credentials"] = scram.credentials(name, password)
        if roles is not None:
            user["roles"] = _roles(roles, database)
        self._save()

    def grant(self, database: str, name: str, roles: Iterable[Any], give: bool) -> None:
        user = self._known(database, name)
        named = _roles(roles, database)
        user["roles"] = [role for role in user["roles"] if role not in named]
        user["roles"] += named if give else []
        self._save()

    def drop(self, database: str, name: str) -> None:
        self._known(database, name)
        del self._users[f"{database}.{name}"]
        self._save()

    def drop_all(self, database: str) -> int:
        mine = [key for key, user in self._users.items() if user["db"] == database]
        for key in mine:
            del self._users[key]
        self._save()
        return len(mine)

    def info(self, database: str, asked: Any) -> list[dict[str, Any]]:
        """What usersInfo shows: 1, a name, {user, db}, or a list of these."""
        wanted: list[str] | None
        if isinstance(asked, Mapping) and asked.get("forAllDBs"):
            wanted = list(self._users)
        elif asked == 1:
            wanted = [key for key, user in self._users.items() if user["db"] == database]
        else:
            listed = asked if isinstance(asked, list) else [asked]
            wanted = [
                f"{item.get('db', database)}.{item.get('user')}"
                if isinstance(item, Mapping)
                else f"{database}.{item}"
                for item in listed
            ]
        return [_shown(key, self._users[key]) for key in wanted if key in self._users]

    def allowed(self, logged_in: Iterable[tuple[str, str]], command: str, database: str) -> bool:
        """Whether one of these users may run the command on the database."""
        for user_database, name in logged_in:
            user = self._users.get(f"{user_database}.{name}")
            if user and any(_lets(role, command, database) for role in user["roles"]):
                return True
        return False

    def databases(self, logged_in: Iterable[tuple[str, str]]) -> set[str] | None:
        """The databases they may see; None for all."""
        seen: set[str] = set()
        for user_database, name in logged_in:
            user = self._users.get(f"{user_database}.{name}", {"roles": []})
            if any(role["role"] in EVERYWHERE | {"clusterAdmin"} for role in user["roles"]):
                return None
            seen |= {role["db"] for role in user["roles"]}
        return seen

    def _known(self, database: str, name: str) -> User:
        try:
            return self._users[f"{database}.{name}"]
        except KeyError:
            message = f'Could not find user "{name}" for db "{database}"'
            raise UserError(11, "UserNotFound", message) from None

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._users))
        fresh.replace(self._file)


def _roles(roles: Iterable[Any], database: str) -> list[dict[str, str]]:
    named = [
        {"role": role["role"], "db": role["db"]}
        if isinstance(role, Mapping)
        else {"role": str(role), "db": database}
        for role in roles
    ]
    for role in named:
        if role["role"] not in ROLES:
            message = f"Could not find role: {role['role']}@{role['db']}"
            raise UserError(31, "RoleNotFound", message)
    return named


def _lets(role: Mapping[str, str], command: str, database: str) -> bool:
    held = ROLES[role["role"]]
    if role["role"] in EVERYWHERE or role["db"] == database:
        return held is None or command in held
    # Cluster roles are granted on admin and reach everywhere, but no data.
    if role["role"] in ("clusterAdmin", "clusterManager", "clusterMonitor"):
        return command in _MONITOR or (held is None and command not in READ | WRITE | _USER_ADMIN)
    return False


def _shown(key: str, user: User) -> dict[str, Any]:
    return {
        "_id": key,
        "user": user["user"],
        "db": user["db"],
        "roles": user["roles"],
        "mechanisms": list(user["credentials"]),
    }
