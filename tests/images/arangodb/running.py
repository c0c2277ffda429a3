"""/_api/query/current and /_api/query/{id}: the queries that run now, and killing one."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aql_run import Run
from calls import Answer, Call, route
from failure import Failure
from store import Json


@dataclass
class _Running:
    """The queries by their id."""

    runs: dict[str, tuple[Call, str, Run]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


_RUNNING = _Running()


@contextmanager
def running(call: Call, text: str, run: Run) -> Iterator[None]:
    """The query is listed while the body runs."""
    identity = str(next(_RUNNING.numbers))
    with _RUNNING.lock:
        _RUNNING.runs[identity] = (call, text, run)
    try:
        yield
    finally:
        with _RUNNING.lock:
            del _RUNNING.runs[identity]


@route("GET", "/_api/query/current")
def current(call: Call) -> Answer:
    return 200, [
        {"id": identity, "database": theirs.db, "user": theirs.caller.name, "query": text}
        for identity, (theirs, text, _) in _seen(call).items()
    ]


@route("DELETE", "/_api/query/{}")
def kill(call: Call) -> Answer:
    found = _seen(call).get(call.parts[0])
    if found is None:
        raise Failure(1591)
    found[2].until = 0.0
    answer: Json = {"error": False, "code": 200}
    return 200, answer


def _seen(call: Call) -> dict[str, tuple[Call, str, Run]]:
    """Of this database; of this user alone."""
    with _RUNNING.lock:
        return {
            identity: entry
            for identity, entry in _RUNNING.runs.items()
            if entry[0].db == call.db and entry[0].caller.name == call.caller.name
        }
