"""ClickHouse's users, roles and grants, which the embedded engine has not.

Users come from users.d/*.xml (read-only, as in the real server) and from CREATE USER (kept in a
file beside the data). `statement()` answers access statements, `authenticate()` checks a password,
`check()` refuses what a user was not granted. Quotas, row policies and settings profiles are kept
and listed, never enforced.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logins
import privileges
import sql_text
from sql_text import Words

from plan2_sidecar.embedded.clickhouse_server.facade import wrong_password
from plan2_sidecar.embedded.clickhouse_server.failure import Failure
from plan2_sidecar.embedded.clickhouse_server.sql_text import Token, reads_only

ENTITIES = ("USER", "ROLE", "QUOTA", "ROW", "POLICY", "SETTINGS", "PROFILE")


class AccessControl:
    """One server's users. Names are case-sensitive; every change is written at once."""

    def __init__(self, state: Path, users_directory: Path) -> None:
        self._file = state
        self._directory = users_directory
        self._state: dict[str, Any] = {"users": {}, "roles": {}, "grants": {}, "kept": {}}
        if state.exists():
            self._state |= json.loads(state.read_text())

    # -- users ---------------------------------------------------------------------------------

    def authenticate(self, name: str, password: str) -> None:
        """Raise 516 when the password is not one of the user's."""
        user = self._from_files().get(name) or self._state["users"].get(name)
        if user is None or not any(logins.matches(method, password) for method in user["auth"]):
            raise wrong_password(name)

    def _from_files(self) -> dict[str, dict[str, Any]]:
        # Read each time: the real server follows its files, and they are two small ones.
        users: dict[str, dict[str, Any]] = {
            "default": {"auth": [{"type": "no_password"}], "admin": False, "all": True}
        }
        for file in sorted(self._directory.glob("*.xml")):
            for element in ET.parse(file).getroot().iterfind("./users/*"):
                if element.get("remove") or element.get("replace") == "remove":
                    users.pop(element.tag, None)
                else:
                    users[element.tag] = logins.user_of(element)
        return users

    def _admin(self, name: str) -> bool:
        return bool(self._from_files().get(name, {}).get("admin"))

    # -- checking ------------------------------------------------------------------------------

    def check(self, user: str, words: list[Token], database: str) -> None:
        """Raise 497 for the first missing grant, 164 for a write by a readonly user."""
        if user in self._from_files():
            return
        settings = self._state["users"].get(user, {}).get("settings", "")
        readonly = re.search(r"\breadonly\s*=?\s*([12])", settings, re.IGNORECASE)
        if readonly and not reads_only(words):
            raise Failure(164, f"{user}: Cannot execute query in readonly mode", "READONLY")
        grants = list(self._grants_of(f"user:{user}"))
        for privilege, place, table in privileges.needed(words, database):
            if not any(privileges.covers(grant, privilege, place, table) for grant in grants):
                target = f"{place}.{table}"
                raise Failure(
                    497,
                    f"{user}: Not enough privileges. To execute this query, it's necessary "
                    f"to have the grant {privilege} ON {target}",
                    "ACCESS_DENIED",
                )

    def _grants_of(self, grantee: str, seen: frozenset[str] = frozenset()) -> Iterator[list[str]]:
        entry = self._state["grants"].get(grantee, {})
        yield from entry.get("privileges", [])
        for role in entry.get("roles", []):
            if role not in seen:
                yield from self._grants_of(f"role:{role}", seen | {role})

    # -- statements ----------------------------------------------------------------------------

    def statement(self, user: str, words: list[Token], database: str) -> list[str] | None:
        """Rows of one column for an access statement, None for anything else."""
        uppers = [word.upper for word in words[:4]] + [""] * 4
        if uppers[0] == "SHOW":
            return self._show(user, words, uppers)
        if not _is_access(uppers):
            return None
        if not self._admin(user):
            raise Failure(
                497,
                f"{user}: Not enough privileges. To execute this query, it's necessary to have "
                f"the grant {uppers[0]} {uppers[1]} ON *.*",
                "ACCESS_DENIED",
            )
        rest = Words([word for word in words if word.text != ";"])
        verb = rest.take()
        if verb in ("GRANT", "REVOKE"):
            self._grant(rest, verb == "GRANT", database)
        elif verb == "SET":
            self._default_role(rest)
        else:
            self._entity(rest, verb)
        self._save()
        return []

    def _entity(self, rest: Words, verb: str) -> None:
        replace = rest.skip("OR", "REPLACE")
        kind = rest.take()
        if kind in ("ROW", "SETTINGS") and rest.peek() in ("POLICY", "PROFILE"):
            rest.take()
        lenient = rest.skip("IF", "NOT", "EXISTS") or rest.skip("IF", "EXISTS")
        names = rest.names()
        if kind not in ("USER", "ROLE"):
            kept = self._state["kept"].setdefault(kind, {})
            for name in names:
                kept.pop(name, None) if verb == "DROP" else kept.update({name: rest.text()})
            return
        known = self._state["users" if kind == "USER" else "roles"]
        for name in names:
            self._not_from_files(name, kind, verb)
            if verb == "CREATE":
                if name in known and lenient:
                    continue
                if name in known and not replace:
                    raise _exists(kind, name)
                known[name] = {"auth": [], "settings": ""}
            elif name not in known:
                if lenient:
                    continue
                raise _unknown(kind, name)
            if verb == "DROP":
                self._forget(kind, name)
            elif kind == "USER":
                self._alter_user(known, name, Words(list(rest.rest)))

    def _alter_user(self, known: dict[str, Any], name: str, rest: Words) -> None:
        user = known[name]
        while rest:
            word = rest.take()
            if word == "IDENTIFIED" or (word == "NOT" and rest.peek() == "IDENTIFIED"):
                user["auth"] = list(logins.methods(rest, without=word == "NOT"))
            elif word == "ADD" and rest.peek() == "IDENTIFIED":
                rest.take()
                user["auth"] += list(logins.methods(rest, without=False))
            elif word == "RESET":
                user["auth"] = user["auth"][-1:]
            elif word == "SETTINGS":
                user["settings"] = rest.text()
            elif word == "RENAME" and rest.skip("TO"):
                known[rest.names()[0]] = known.pop(name)
        if not user["auth"]:
            user["auth"] = [{"type": "no_password"}]

    def _grant(self, rest: Words, give: bool, database: str) -> None:
        rest.skip("ON", "CLUSTER")
        split = "TO" if give else "FROM"
        what, whom = rest.split(split)
        listed, target = Words(what).split("ON")
        names = [word.text for word in whom if word.is_name]
        stop = next((i for i, name in enumerate(names) if name.upper() == "WITH"), len(names))
        for name in names[:stop]:
            entry = self._state["grants"].setdefault(self._grantee(name), {})
            if target:
                place, table, _ = sql_text.name_at(target, 0, database)
                wanted = [[privilege, place, table] for privilege in privileges.named(listed)]
                held = entry.setdefault("privileges", [])
                entry["privileges"] = [g for g in held if not privileges.taken(g, wanted, give)]
                entry["privileges"] += wanted if give else []
            else:
                roles = [word.text for word in listed if word.is_name]
                for role in roles:
                    if role not in self._state["roles"]:
                        raise _unknown("ROLE", role)
                held = [r for r in entry.get("roles", []) if r not in roles]
                entry["roles"] = held + (roles if give else [])

    def _grantee(self, name: str) -> str:
        self._not_from_files(name, "USER", "GRANT")
        if name in self._state["users"]:
            return f"user:{name}"
        if name in self._state["roles"]:
            return f"role:{name}"
        raise Failure(192, f"There is no user or role `{name}` in user directories", "UNKNOWN_USER")

    def _default_role(self, rest: Words) -> None:
        _, whom = rest.split("TO")
        for name in (word.text for word in whom if word.is_name):
            if name not in self._state["users"]:
                raise _unknown("USER", name)

    def _not_from_files(self, name: str, kind: str, verb: str) -> None:
        if kind != "USER" or name not in self._from_files():
            return
        if verb == "CREATE":
            raise _exists(kind, name)
        raise Failure(
            495,
            f"Cannot update user `{name}` in users_xml because this storage is readonly",
            "ACCESS_STORAGE_READONLY",
        )

    def _forget(self, kind: str, name: str) -> None:
        self._state["users" if kind == "USER" else "roles"].pop(name, None)
        self._state["grants"].pop(f"{kind.lower()}:{name}", None)
        if kind == "ROLE":
            for entry in self._state["grants"].values():
                entry["roles"] = [role for role in entry.get("roles", []) if role != name]

    # -- looking -------------------------------------------------------------------------------

    def _show(self, user: str, words: list[Token], uppers: list[str]) -> list[str] | None:
        match uppers[1]:
            case "USERS":
                return sorted({*self._from_files(), *self._state["users"]})
            case "ROLES":
                return sorted(self._state["roles"])
            case "GRANTS":
                named = [word.text for word in words[3:] if word.is_name and word.upper != "FORMAT"]
                return self._show_grants(named[0] if uppers[2] == "FOR" else user)
            case "CREATE" if uppers[2] == "USER":
                return [self._show_create(words[3].text)]
        return None

    def _show_create(self, name: str) -> str:
        user = self._from_files().get(name) or self._state["users"].get(name)
        if user is None:
            raise _unknown("USER", name)
        kinds = ", ".join(method["type"] for method in user["auth"])
        return f"CREATE USER {name} IDENTIFIED WITH {kinds}"

    def _show_grants(self, name: str) -> list[str]:
        files = self._from_files()
        if name in files:
            option = " WITH GRANT OPTION" if files[name].get("admin") else ""
            return [f"GRANT ALL ON *.* TO {name}{option}"]
        kind = "role" if name in self._state["roles"] else "user"
        if kind == "user" and name not in self._state["users"]:
            raise _unknown("USER", name)
        entry = self._state["grants"].get(f"{kind}:{name}", {})
        places: dict[tuple[str, str], list[str]] = {}
        for privilege, place, table in entry.get("privileges", []):
            places.setdefault((place, table), []).append(privilege)
        rows = [f"GRANT {', '.join(p)} ON {d}.{t} TO {name}" for (d, t), p in places.items()]
        if roles := entry.get("roles"):
            rows.append(f"GRANT {', '.join(roles)} TO {name}")
        return rows

    def system_table(self, table: str) -> str | None:
        """A `values()` in place of system.users, roles, grants or role_grants."""
        rows: list[tuple[str, ...]] = []
        if table in ("users", "roles"):
            names = self._show_names(table)
            rows = [(name, "local_directory" if stored else "users_xml") for name, stored in names]
            return _values("name String, storage String", rows)
        for grantee, entry in self._state["grants"].items():
            kind, _, name = grantee.partition(":")
            owner = (name, "") if kind == "user" else ("", name)
            if table == "grants":
                rows += [(*owner, *grant) for grant in entry.get("privileges", [])]
            elif table == "role_grants":
                rows += [(*owner, role) for role in entry.get("roles", [])]
        columns = {
            "grants": "access_type String, database String, table String",
            "role_grants": "granted_role_name String",
        }
        if table not in columns:
            return None
        return _values(f"user_name String, role_name String, {columns[table]}", rows)

    def rewritten(self, text: str, words: list[Token], user: str) -> str:
        """What the engine would answer about users is put in: it knows none."""
        triples = list(zip(words, words[1:], words[2:], strict=False))
        for first, second, third in reversed(triples):
            replacement: str | None = None
            if first.text == "system" and second.text == "." and first.is_name:
                replacement = self.system_table(third.text)
            elif first.upper == "CURRENTUSER" and (second.text, third.text) == ("(", ")"):
                replacement = "'" + user.replace("'", "\\'") + "'"
            if replacement:
                text = text[: first.start] + replacement + text[third.end :]
        return text

    def _show_names(self, table: str) -> list[tuple[str, bool]]:
        stored = [(name, True) for name in self._state[table]]
        return stored if table == "roles" else stored + [(n, False) for n in self._from_files()]

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._state))
        fresh.replace(self._file)


def _is_access(uppers: list[str]) -> bool:
    if uppers[0] in ("GRANT", "REVOKE"):
        return True
    if uppers[0] == "SET":
        return uppers[1:3] == ["DEFAULT", "ROLE"]
    second = uppers[3] if uppers[1] == "OR" else uppers[1]
    return uppers[0] in ("CREATE", "ALTER", "DROP") and second in ENTITIES


def _exists(kind: str, name: str) -> Failure:
    noun = kind.lower()
    return Failure(
        493,
        f"{noun} `{name}`: cannot insert because {noun} `{name}` already exists in local_directory",
        "ACCESS_ENTITY_ALREADY_EXISTS",
    )


def _unknown(kind: str, name: str) -> Failure:
    code, label = (192, "UNKNOWN_USER") if kind == "USER" else (511, "UNKNOWN_ROLE")
    return Failure(code, f"There is no {kind.lower()} `{name}` in user directories", label)


def _values(columns: str, rows: list[tuple[str, ...]]) -> str:
    if not rows:
        empty = ", ".join(f"'' AS {column.split()[0]}" for column in columns.split(", "))
        return f"(SELECT {empty} WHERE 0)"
    quoted = [", ".join("'" + cell.replace("'", "\\'") + "'" for cell in row) for row in rows]
    return f"values('{columns}', {', '.join(f'({row})' for row in quoted)})"
