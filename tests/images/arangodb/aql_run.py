"""What an AQL query does to the store: its limits, its writes, its walks along edges."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from failure import Failure
from store import Session

Env = dict[str, Any]
Expression = Callable[[Env], Any]


@dataclass
class Run:
    """One execution: where it runs, what it may do, what it did. `until` is a monotonic time."""

    session: Session
    db: str
    bind: Mapping[str, Any]
    may_read: Callable[[str], None]
    may_write: Callable[[str], None]
    until: float | None = None
    executed: int = 0
    ignored: int = 0
    scanned: int = 0
    used: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)

    def tick(self) -> None:
        """Called for each row: a query past its time is killed."""
        self.scanned += 1
        if self.until is not None and time.monotonic() > self.until:
            raise Failure(1500)


@dataclass(frozen=True)
class Write:
    """One writing operation; `one` does it for a row and gives OLD and NEW."""

    run: Run
    verb: str
    replaces: bool
    first: Expression
    second: Expression | None
    third: Expression | None
    options: Expression

    def one(self, env: Env, collection: str) -> Env:
        run = self.run
        run.may_write(collection)
        options = self.options(env) or {}
        try:
            changed = self._change(env, collection, options)
        except Failure:
            if not options.get("ignoreErrors"):
                raise
            run.ignored += 1
            return {"OLD": None, "NEW": None}
        run.executed += 1
        return changed

    def _change(self, env: Env, collection: str, options: Mapping[str, Any]) -> Env:
        session, db = self.run.session, self.run.db
        if self.verb == "UPSERT" and self.second and self.third:
            old = self._example(env, collection)
            if old is None:
                return {"OLD": None, "NEW": session.insert(db, collection, self.second(env))}
            return self._merged(collection, old, self.third(env | {"OLD": old}), options)
        subject = self.first(env)
        if self.verb == "INSERT":
            return self._insert(collection, subject or {}, options)
        key = subject.get("_key") if isinstance(subject, dict) else subject
        old = session.find(db, collection, str(key).rpartition("/")[2])
        if old is None:
            raise Failure(1202)
        if self.verb == "REMOVE":
            session.remove(db, collection, old["_key"])
            return {"OLD": old, "NEW": None}
        patch = self.second(env) if self.second else subject
        return self._merged(collection, old, patch, options)

    def _insert(self, collection: str, document: Env, options: Mapping[str, Any]) -> Env:
        session, db = self.run.session, self.run.db
        mode = options.get("overwriteMode") or ("replace" if options.get("overwrite") else "")
        old = (
            session.find(db, collection, document["_key"]) if mode and "_key" in document else None
        )
        if old is None or mode == "conflict":
            return {"OLD": None, "NEW": session.insert(db, collection, document)}
        if mode == "ignore":
            return {"OLD": old, "NEW": old}
        merged = document if mode == "replace" else merge(old, document, options)
        return {"OLD": old, "NEW": session.replace(db, collection, old["_key"], merged)}

    def _example(self, env: Env, collection: str) -> Env | None:
        example = self.first(env)
        for document in self.run.session.documents(self.run.db, collection):
            if all(document.get(name) == value for name, value in example.items()):
                return document
        return None

    def _merged(self, collection: str, old: Env, patch: Env, options: Mapping[str, Any]) -> Env:
        body = patch if self.replaces else merge(old, patch, options)
        new = self.run.session.replace(self.run.db, collection, old["_key"], body)
        return {"OLD": old, "NEW": new}


def merge(old: Mapping[str, Any], patch: Mapping[str, Any], options: Mapping[str, Any]) -> Env:
    """An update: keepNull and mergeObjects as ArangoDB has them by default."""
    merged = dict(old)
    for name, value in patch.items():
        if value is None and options.get("keepNull") is False:
            merged.pop(name, None)
        elif (
            isinstance(value, dict)
            and isinstance(merged.get(name), dict)
            and options.get("mergeObjects", True)
        ):
            merged[name] = merge(merged[name], value, options)
        else:
            merged[name] = value
    return merged


def walk(
    run: Run, start: str, edges: list[str], direction: str, low: int, high: int
) -> Iterator[tuple[Any, ...]]:
    """Depth first; no edge twice on one path, as ArangoDB's default."""

    def vertex(identity: str) -> Any:
        collection, _, key = identity.partition("/")
        return run.session.find(run.db, collection, key)

    def go(here: str, depth: int, path: list[Any], trail: list[Any]) -> Iterator[tuple[Any, ...]]:
        if depth >= low:
            edge = path[-1] if path else None
            yield trail[-1], edge, {"vertices": list(trail), "edges": list(path)}
        if depth == high:
            return
        for name in edges:
            for outbound in {"OUTBOUND": (True,), "INBOUND": (False,)}.get(
                direction, (True, False)
            ):
                for edge in run.session.edges(run.db, name, here, outbound):
                    if any(edge["_id"] == passed["_id"] for passed in path):
                        continue
                    run.tick()
                    there = edge["_to"] if outbound else edge["_from"]
                    yield from go(there, depth + 1, [*path, edge], [*trail, vertex(there)])

    yield from go(start, 0, [], [vertex(start)])
