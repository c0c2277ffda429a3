"""Databases, collections, documents and users of the stand-in, in one SQLite file.

A `Session` is one connection: one request's, or a stream transaction's. Nothing here checks who may
do what; that is `access`.
"""

import contextlib
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from failure import Failure

DOCUMENT, EDGE = 2, 3
LOCK_SECONDS = 5.0
KEY_LENGTH = 254
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS databases (name TEXT PRIMARY KEY, id TEXT);
CREATE TABLE IF NOT EXISTS collections (
    db TEXT, name TEXT, id TEXT, type INTEGER, properties TEXT, PRIMARY KEY (db, name));
CREATE TABLE IF NOT EXISTS documents (
    db TEXT, collection TEXT, key TEXT, body TEXT, source TEXT, target TEXT,
    PRIMARY KEY (db, collection, key));
CREATE INDEX IF NOT EXISTS by_source ON documents (db, collection, source);
CREATE INDEX IF NOT EXISTS by_target ON documents (db, collection, target);
CREATE TABLE IF NOT EXISTS indexes (
    db TEXT, collection TEXT, id TEXT, body TEXT, PRIMARY KEY (db, collection, id));
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, body TEXT);
"""
Json = dict[str, Any]


class Store:
    """The file. Sessions may be used from any thread, one thread at a time."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "store.sqlite"
        with self.session() as session:
            session.connection.execute("PRAGMA journal_mode = WAL")
            session.connection.executescript(_SCHEMA)
            session.connection.execute("INSERT OR IGNORE INTO databases VALUES ('_system', '1')")
            secret = secrets.token_hex(32)
            session.connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('tick', '1000'), ('secret', ?)", (secret,)
            )
            self.secret: str = session.meta("secret")

    @contextlib.contextmanager
    def session(self, begin: bool = False) -> Iterator["Session"]:
        """A connection; with `begin` all its writes are one, kept at a clean end."""
        session = Session(self._connect())
        try:
            if begin:
                session.begin()
            yield session
            if begin:
                session.connection.execute("COMMIT")
        except BaseException:
            if session.connection.in_transaction:
                session.connection.execute("ROLLBACK")
            raise
        finally:
            session.connection.close()

    def detached(self) -> "Session":
        """A session that its owner closes."""
        return Session(self._connect())

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection


class Session:
    """Every method works in the connection's transaction, if one is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise Failure(18) from error

    def meta(self, name: str) -> str:
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def tick(self) -> str:
        """A number that was never given before."""
        self.connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'tick'")
        return self.meta("tick")

    # -- databases and collections -------------------------------------------------------------

    def databases(self) -> list[str]:
        return [row[0] for row in self.connection.execute("SELECT name FROM databases ORDER BY 1")]

    def create_database(self, name: str) -> None:
        if name in self.databases():
            raise Failure(1207)
        self.connection.execute("INSERT INTO databases VALUES (?, ?)", (name, self.tick()))

    def drop_database(self, name: str) -> None:
        if name not in self.databases():
            raise Failure(1228)
        self.connection.execute("DELETE FROM databases WHERE name = ?", (name,))
        for table in ("collections", "documents", "indexes"):
            self.connection.execute(f"DELETE FROM {table} WHERE db = ?", (name,))

    def collections(self, db: str) -> list[Json]:
        rows = self.connection.execute(
            "SELECT name, id, type, properties FROM collections WHERE db = ? ORDER BY name", (db,)
        )
        return [_collection(*row) for row in rows]

    def collection(self, db: str, name: str) -> Json:
        """Raise 1203 when it is not there."""
        row = self.connection.execute(
            "SELECT name, id, type, properties FROM collections WHERE db = ? AND name = ?",
            (db, name),
        ).fetchone()
        if row is None:
            raise Failure(1203, name)
        return _collection(*row)

    def create_collection(self, db: str, name: str, kind: int, properties: Json) -> Json:
        if not name or not (name[0].isalpha() or name[0] == "_") or "/" in name:
            raise Failure(1208)
        try:
            self.connection.execute(
                "INSERT INTO collections VALUES (?, ?, ?, ?, ?)",
                (db, name, self.tick(), kind, json.dumps(properties)),
            )
        except sqlite3.IntegrityError as error:
            raise Failure(1207) from error
        return self.collection(db, name)

    def drop_collection(self, db: str, name: str) -> Json:
        dropped = self.collection(db, name)
        self.truncate(db, name)
        for table, column in (("indexes", "collection"), ("collections", "name")):
            self.connection.execute(
                f"DELETE FROM {table} WHERE db = ? AND {column} = ?", (db, name)
            )
        return dropped

    def truncate(self, db: str, name: str) -> None:
        self.connection.execute("DELETE FROM documents WHERE db = ? AND collection = ?", (db, name))

    def count(self, db: str, name: str) -> int:
        row = self.connection.execute(
            "SELECT count(*) FROM documents WHERE db = ? AND collection = ?", (db, name)
        ).fetchone()
        return int(row[0])

    # -- documents -----------------------------------------------------------------------------

    def documents(self, db: str, name: str) -> Iterator[Json]:
        self.collection(db, name)
        rows = self.connection.execute(
            "SELECT body FROM documents WHERE db = ? AND collection = ? ORDER BY rowid", (db, name)
        )
        for (body,) in rows.fetchall():
            yield json.loads(body)

    def edges(self, db: str, name: str, vertex: str, outbound: bool) -> list[Json]:
        column = "source" if outbound else "target"
        rows = self.connection.execute(
            f"SELECT body FROM documents WHERE db = ? AND collection = ? AND {column} = ?",
            (db, name, vertex),
        )
        return [json.loads(body) for (body,) in rows]

    def find(self, db: str, name: str, key: str) -> Json | None:
        self.collection(db, name)
        row = self.connection.execute(
            "SELECT body FROM documents WHERE db = ? AND collection = ? AND key = ?",
            (db, name, key),
        ).fetchone()
        return json.loads(row[0]) if row else None

    def insert(self, db: str, name: str, document: Mapping[str, Any]) -> Json:
        """The document as it is kept; 1210 for a key that is taken."""
        collection = self.collection(db, name)
        key = document.get("_key")
        key = self.tick() if key is None else key
        if not isinstance(key, str) or not 1 <= len(key) <= KEY_LENGTH or "/" in key:
            raise Failure(1221)
        kept = self._stamped(name, key, document)
        if collection["type"] == EDGE and not all(
            isinstance(kept.get(end), str) and "/" in kept[end] for end in ("_from", "_to")
        ):
            raise Failure(1233)
        self._check_unique(db, name, kept)
        try:
            self.connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                (db, name, key, json.dumps(kept), kept.get("_from"), kept.get("_to")),
            )
        except sqlite3.IntegrityError as error:
            raise Failure(1210, f"- in index primary of type primary over '_key'; {key}") from error
        return kept

    def replace(self, db: str, name: str, key: str, document: Mapping[str, Any]) -> Json:
        """Put a document in the place of one that is there."""
        kept = self._stamped(name, key, document)
        self._check_unique(db, name, kept)
        changed = self.connection.execute(
            "UPDATE documents SET body = ?, source = ?, target = ? "
            "WHERE db = ? AND collection = ? AND key = ?",
            (json.dumps(kept), kept.get("_from"), kept.get("_to"), db, name, key),
        )
        if not changed.rowcount:
            raise Failure(1202)
        return kept

    def remove(self, db: str, name: str, key: str) -> None:
        changed = self.connection.execute(
            "DELETE FROM documents WHERE db = ? AND collection = ? AND key = ?", (db, name, key)
        )
        if not changed.rowcount:
            raise Failure(1202)

    def _stamped(self, name: str, key: str, document: Mapping[str, Any]) -> Json:
        own = {k: v for k, v in document.items() if k not in ("_key", "_id", "_rev")}
        return {"_key": key, "_id": f"{name}/{key}", "_rev": f"_{self.tick()}", **own}

    def _check_unique(self, db: str, name: str, kept: Json) -> None:
        for index in self.indexes(db, name):
            if not index.get("unique") or index["type"] == "primary":
                continue
            values = [kept.get(field) for field in index["fields"]]
            if index.get("sparse") and None in values:
                continue
            for other in self.documents(db, name):
                same = [other.get(field) for field in index["fields"]] == values
                if same and other["_key"] != kept["_key"]:
                    text = f"- in index {index['name']} of type {index['type']}; conflicting key: "
                    raise Failure(1210, text + other["_key"])

    # -- indexes and users ---------------------------------------------------------------------

    def indexes(self, db: str, name: str) -> list[Json]:
        """The primary index and those made."""
        primary = {
            "id": f"{name}/0",
            "type": "primary",
            "name": "primary",
            "fields": ["_key"],
            "unique": True,
            "sparse": False,
        }
        rows = self.connection.execute(
            "SELECT body FROM indexes WHERE db = ? AND collection = ? ORDER BY rowid", (db, name)
        )
        return [primary, *(json.loads(body) for (body,) in rows)]

    def create_index(self, db: str, name: str, wanted: Json) -> tuple[Json, bool]:
        """The index, and whether it is new."""
        for index in self.indexes(db, name):
            if (index["type"], index["fields"]) == (wanted["type"], wanted.get("fields")):
                return index, False
        number = self.tick()
        index = {"unique": False, "sparse": False, "name": f"idx_{number}"} | wanted
        index["id"] = f"{name}/{number}"
        self.connection.execute(
            "INSERT INTO indexes VALUES (?, ?, ?, ?)", (db, name, index["id"], json.dumps(index))
        )
        return index, True

    def drop_index(self, db: str, name: str, identity: str) -> None:
        changed = self.connection.execute(
            "DELETE FROM indexes WHERE db = ? AND collection = ? AND id = ?", (db, name, identity)
        )
        if not changed.rowcount:
            raise Failure(1212)

    def users(self) -> list[Json]:
        return [json.loads(row[0]) for row in self.connection.execute("SELECT body FROM users")]

    def user(self, name: str) -> Json | None:
        row = self.connection.execute("SELECT body FROM users WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def put_user(self, user: Json) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO users VALUES (?, ?)", (user["user"], json.dumps(user))
        )

    def drop_user(self, name: str) -> None:
        changed = self.connection.execute("DELETE FROM users WHERE name = ?", (name,))
        if not changed.rowcount:
            raise Failure(1703)


def password_of(text: str) -> Json:
    """A salted hash of a password."""
    salt = secrets.token_hex(8)
    return {"salt": salt, "hash": hashlib.sha256((salt + text).encode()).hexdigest()}


def password_is(kept: Json, text: str) -> bool:
    digest = hashlib.sha256((kept["salt"] + text).encode()).hexdigest()
    return secrets.compare_digest(digest, kept["hash"])


def _collection(name: str, identity: str, kind: int, properties: str) -> Json:
    return {
        "id": identity,
        "name": name,
        "type": kind,
        "status": 3,
        "statusString": "loaded",
        "isSystem": name.startswith("_"),
        "globallyUniqueId": f"h/{identity}",
        "waitForSync": bool(json.loads(properties).get("waitForSync", False)),
    }
