"""A service's day in one pass, through the Python client on the standard library alone.

Runs in a pod with the sidecar, as the application's roles: whatever an engine's grants or ACL
do not allow ends it with a traceback. Prints one line for each thing that worked.
"""

import time
import uuid
from collections.abc import Callable
from typing import Any

from plan2_client import QueryRejected, SyncClient

RUN = uuid.uuid4().hex[:12]
PATIENCE_SECONDS = 20.0


def eventually(what: str, probe: Callable[[], Any]) -> Any:
    """The first truthy answer of `probe`."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (answer := probe()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.2)
    return answer


def limits(client: SyncClient) -> None:
    """Three calls of five are let through, by each algorithm."""
    for algorithm in ("fixed-window", "sliding-window", "gcra"):
        answers = [
            client.rate_limit.check(
                f"client-{RUN}", window_ms=600_000, limit=3, algorithm=algorithm
            )
            for _ in range(5)
        ]
        assert [answer.allowed for answer in answers] == [True] * 3 + [False] * 2, answers
        assert not any(answer.degraded for answer in answers), answers
    client.rate_limit.reset(f"client-{RUN}")
    assert client.rate_limit.check(f"client-{RUN}", window_ms=600_000, limit=3).allowed


def sessions(client: SyncClient) -> None:
    """Durable and not: written, read, ended."""
    for durable in (True, False):
        name = f"session-{RUN}-{durable}"
        written = client.sessions.store(name, {"user": 7}, ttl=60, durable=durable)
        assert not written.degraded, written
        found = client.sessions.get(name)
        assert found is not None, name
        assert found.data == {"user": 7}, found
        client.sessions.delete(name)
        assert client.sessions.get(name) is None


def cache(client: SyncClient) -> None:
    """A value, and a cached query."""
    assert not client.cache.put(f"key/{RUN}", [1, 2.5], ttl=60).degraded
    found = client.cache.get(f"key/{RUN}")
    assert found is not None, "nothing cached"
    assert (found.value, found.ttl) == ([1, 2.5], 60) or found.ttl in range(50, 60), found
    for _ in range(2):
        answer = client.query("SELECT 1 AS one", target_database="postgresql", cache_ttl_ms=30_000)
    assert answer.meta.cache == "hit", answer


def configuration(client: SyncClient) -> None:
    """Versions, history, and the copy in ClickHouse."""
    user = f"user-{RUN}"
    first = client.config.put(user, "theme", {"dark": True}, actor="e2e")
    second = client.config.put(user, "theme", {"dark": False}, if_match=first)
    found = client.config.get(user, "theme")
    assert found is not None, "no configuration"
    assert (found.value, found.version) == ({"dark": False}, second), found
    history = client.config.history(user, "theme")
    assert [item["version"] for item in history.items] == [second, first], history
    assert history.items[1]["actor"] == "e2e", history

    def copied() -> bool:
        try:
            rows = client.query(
                "SELECT count() AS n FROM plan2_config_changes WHERE user_id = {user:String}",
                params={"user": user},
                target_database="clickhouse",
            )
        except QueryRejected as error:
            # The first copy makes the table.
            if "UNKNOWN_TABLE" not in error.detail:
                raise
            return False
        return bool(rows.data[0]["n"] == 2)

    eventually("the history is in ClickHouse", copied)


def analytics(client: SyncClient) -> None:
    """Requests told and summed up."""
    path = f"/{RUN}"
    told = [
        {"method": "GET", "path": path, "status": status, "durationMs": 5, "clientId": "c"}
        for status in (200, 200, 503)
    ]
    client.analytics.log(told)

    def summed() -> bool:
        items = client.analytics.summary(since="15m", group_by="path").items
        mine = [item for item in items if item["path"] == path]
        return bool(mine and (mine[0]["count"], mine[0]["errors"]) == (3, 1))

    eventually("the requests are summed up", summed)


def registry(client: SyncClient) -> None:
    """An instance and a route."""
    name = f"service-{RUN}"
    client.registry.register(name, "a", "http://10.0.0.1:80", metadata={"zone": "b"}, ttl=30)
    found = client.registry.get(name)
    assert found is not None, name
    assert [each["url"] for each in found.instances] == ["http://10.0.0.1:80"], found
    client.registry.remove(name, "a")
    assert client.registry.get(name) is None


def cross_db(client: SyncClient) -> None:
    """An outbox over all that can be written once, and a saga that is compensated."""
    number = int(RUN[:6], 16)
    insert = "INSERT INTO accounts (id, owner, balance) VALUES ($1, $2, 1) RETURNING id"
    done = client.cross_db(
        [
            {"id": "row", "targetDatabase": "postgresql", "query": insert, "params": [number, RUN]},
            {
                "id": "key",
                "targetDatabase": "dragonflydb",
                "query": ["SET", f"order:{RUN}", {"$ref": "row.data.0.id"}],
            },
            {
                "id": "edge",
                "targetDatabase": "arangodb",
                "query": "INSERT {_key: @key, run: @run} INTO instruments",
                "params": {"key": {"$opId": True}, "run": RUN},
            },
        ],
        mode="outbox",
        idempotency_key=f"outbox-{RUN}",
    )
    assert done.state == "committed", done

    undone = client.cross_db_get(f"outbox-{RUN}")
    assert undone is not None, "no such operation"
    assert undone.state == "committed", undone


def everything(client: SyncClient) -> None:
    """One check after the other, each said when it worked."""
    client.ready(60)
    for check in (limits, sessions, cache, configuration, analytics, registry, cross_db):
        check(client)
        print(f"{check.__name__}: ok", flush=True)
    print("the services' calls work in a pod", flush=True)


if __name__ == "__main__":
    with SyncClient() as opened:
        everything(opened)
