"""A store that hangs for a while and comes back as it was: nothing old returns with it."""

import secrets
import signal
from collections.abc import Iterator

import pytest

from fixtures.fix_engines import EngineServer, make_redis, run
from fixtures.fix_sidecar import Connect, SidecarClient, Start, eventually
from fixtures.fix_sidecar_services import where


@pytest.fixture
def store() -> Iterator[EngineServer]:
    """A store that is one process, so that it can be stopped in its tracks."""
    with run(make_redis()) as server:
        yield server
        wake(server)


def as_store(server: EngineServer) -> dict[str, str]:
    return {name.replace("REDIS", "DRAGONFLY"): text for name, text in where(server).items()}


def hang(server: EngineServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)


def wake(server: EngineServer) -> None:
    if server.process is not None:
        server.process.send_signal(signal.SIGCONT)


@pytest.fixture
def clients(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer, store: EngineServer
) -> list[SidecarClient]:
    """Of two sidecars."""
    variables = where(postgresql) | as_store(store)
    return [connect(start_sidecar(**variables)) for _ in range(2)]


async def test_what_was_ended_or_changed_meanwhile_stays_so(
    clients: list[SidecarClient], store: EngineServer
) -> None:
    one, other = clients
    name = secrets.token_hex(6)
    ended, changed = f"/api/v2/sessions/{name}-ended", f"/api/v2/sessions/{name}-changed"
    config = f"/api/v2/config/{name}/theme"
    service = f"/api/v2/registry/services/{name}"
    for path, body in (
        (ended, {"data": "old"}),
        (changed, {"data": "old"}),
        (config, {"value": "old"}),
        (f"{service}/leaves", {"url": "http://leaves", "ttl": 600}),
        (f"{service}/moves", {"url": "http://old", "ttl": 600}),
    ):
        assert (await one.call("PUT", path, json=body)).status < 300
    for path in (ended, changed, config, service):
        assert [(await client.get(path)).status for client in clients] == [200, 200]
    hang(store)

    meanwhile = [
        await one.call("DELETE", ended),
        await one.call("PUT", changed, json={"data": "new"}),
        await one.call("PUT", config, json={"value": "new"}),
        await one.call("DELETE", f"{service}/leaves"),
        await one.call("PUT", f"{service}/moves", json={"url": "http://new", "ttl": 600}),
    ]
    assert [reply.status for reply in meanwhile] == [204, 204, 200, 204, 204]
    assert {reply.headers.get("Plan2-Degraded") for reply in meanwhile} == {"true"}

    async def right(client: SidecarClient) -> bool:
        replies = [await client.get(path) for path in (ended, changed, config, service)]
        found = [reply.body for reply in replies]
        return (
            [reply.status for reply in replies] == [404, 200, 200, 200]
            and (found[1]["data"], found[2]["value"]) == ("new", "new")
            and [each["url"] for each in found[3]["instances"]] == ["http://new"]
        )

    async def right_everywhere() -> bool:
        return await right(one) and await right(other)

    await eventually(right_everywhere, seconds=10)
    wake(store)

    async def well() -> bool:
        assert await right_everywhere()
        replies = [await client.get(changed) for client in clients]
        return not any("Plan2-Degraded" in reply.headers for reply in replies)

    await eventually(well, seconds=30)
    for _ in range(20):
        assert await right_everywhere()


async def test_a_reply_that_comes_too_late_is_nobody_elses(
    clients: list[SidecarClient], store: EngineServer
) -> None:
    one, _ = clients
    name = secrets.token_hex(6)
    late, next_one = f"/api/v2/cache/{name}-late", f"/api/v2/cache/{name}-next"
    for path, value in ((late, "late"), (next_one, "next")):
        assert (await one.call("PUT", path, json={"value": value})).status == 204

    hang(store)
    missed = await one.call("GET", late)
    wake(store)

    # It was given up after half a second, and the connection after a whole one.
    assert missed.status == 404
    assert missed.headers["Plan2-Degraded"] == "true"

    async def right(path: str, value: str) -> bool:
        answer = await one.call("GET", path)
        assert answer.status == 404 or answer.body["value"] == value
        return answer.status == 200

    await eventually(lambda: right(next_one, "next"))
    await eventually(lambda: right(late, "late"))


async def test_a_write_that_the_store_never_confirmed_is_kept_and_says_so(
    clients: list[SidecarClient], store: EngineServer
) -> None:
    one, other = clients
    path = f"/api/v2/cache/{secrets.token_hex(6)}"
    assert (await one.call("PUT", path, json={"value": "old"})).status == 204

    hang(store)
    written = await one.call("PUT", path, json={"value": "new"})
    read = await one.call("GET", path)
    wake(store)

    assert written.status == 204
    assert written.headers["Plan2-Degraded"] == "true"
    assert read.body["value"] == "new"

    async def not_old() -> bool:
        answer = await other.call("GET", path)
        return answer.status == 404 or answer.body["value"] == "new"

    await eventually(not_old)
