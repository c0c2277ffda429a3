"""What all calls of the services share: where an answer came from, names in paths, deadlines."""

import base64
import secrets

import pytest

from fixtures.engine_commands import make_redis
from fixtures.engine_server import run
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, SidecarProcess, starting
from fixtures.fix_sidecar_services import where

CHECK = "/api/v2/rate-limit/check"


@pytest.fixture
def client(services: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(services)


@pytest.fixture
def name() -> str:
    return f"n{secrets.token_hex(6)}"


async def test_a_degraded_answer_names_what_it_stands_in_for(
    postgresql: EngineServer, connect: Connect, name: str
) -> None:
    cache, session = f"/api/v2/cache/{name}", f"/api/v2/sessions/{name}"
    setting, registry = f"/api/v2/config/{name}/theme", f"/api/v2/registry/services/{name}/i"
    with run(make_redis()) as store, starting() as start:
        variables = {
            **where(postgresql),
            "DRAGONFLY_HOST": store.host,
            "DRAGONFLY_PORT": str(store.port),
            "DRAGONFLY_PASSWORD": store.admin_password,
        }
        client = connect(start(**variables))
        await client.call("PUT", f"{setting}/cache", json={"value": 1})
        store.stop()

        answers: dict[str, Reply] = {}
        for method, path, body in [
            ("GET", cache, None),
            ("PUT", cache, {"value": 1}),
            ("DELETE", cache, None),
            ("GET", session, None),
            ("PUT", session, {"data": 1}),
            ("DELETE", session, None),
            # Nothing is stored, and what the store still has can no more be read.
            ("DELETE", setting, None),
            ("PUT", setting, {"value": 2}),
            ("GET", setting, None),
            ("PUT", f"{setting}/cache", {"value": 3}),
            ("PUT", registry, {"url": "http://here"}),
            ("GET", registry.rpartition("/")[0], None),
            ("DELETE", registry, None),
            ("POST", CHECK, {"clientId": name}),
            ("POST", CHECK, {"clientId": name, "onStoreFailure": "closed"}),
        ]:
            options = {} if body is None else {"json": body}
            answers[f"{method} {path} {body}"] = await client.call(method, path, **options)

    for call, reply in answers.items():
        assert reply.status in (200, 204, 404), call
        assert reply.headers["Plan2-Degraded"] == "true", call
        assert reply.headers["Plan2-Fallback-From"] == "dragonflydb", call
        assert reply.headers["Plan2-Source"] != "dragonflydb", call


@pytest.mark.parametrize(
    "path",
    [
        "cache/{}",
        "sessions/{}",
        "config/{}/k",
        "config/u/{}/history",
        "registry/services/{}",
        "registry/routes/{}",
    ],
)
async def test_what_is_not_found_says_who_was_asked(
    client: SidecarClient, name: str, path: str
) -> None:
    reply = await client.get(f"/api/v2/{path.format(name)}")

    assert reply.status == (200 if path.endswith("history") else 404)
    assert reply.headers["Plan2-Source"] in ("dragonflydb", "postgresql")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "cache/%ff", {"value": 1}),
        ("GET", "cache/a%C3", None),
        ("DELETE", "cache/%ff", None),
        ("PUT", "sessions/%ff", {"data": 1}),
        ("PUT", "config/%ff/k", {"value": 1}),
        ("PUT", "config/u/%ff", {"value": 1}),
        ("PUT", "config/u/%ff/cache", {"value": 1}),
        ("PUT", "registry/services/%ff/i", {"url": "http://here"}),
        ("PUT", "registry/services/s/%ff", {"url": "http://here"}),
        ("PUT", "registry/routes/%ff", {"target": 1}),
        ("DELETE", "rate-limit/%ff", None),
    ],
)
async def test_a_name_that_is_not_utf_8_is_refused_and_taken_for_no_other(
    client: SidecarClient, method: str, path: str, body: object
) -> None:
    options = {} if body is None else {"json": body}

    reply = await client.call(method, f"/api/v2/{path}", **options)

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")
    assert "UTF-8" in reply.body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "cache/k", None),
        ("GET", "sessions/s", None),
        ("GET", "config/u/k", None),
        ("POST", "analytics/requests", []),
        ("GET", "analytics/requests", None),
        ("GET", "registry/services", None),
        ("POST", "rate-limit/check", {"clientId": "c"}),
        ("POST", "query", {"query": ["PING"], "targetDatabase": "dragonflydb"}),
        ("POST", "batch", {"queries": [{"query": ["PING"]}]}),
    ],
)
async def test_a_deadline_that_is_none_is_refused(
    client: SidecarClient, method: str, path: str, body: object
) -> None:
    options = {} if body is None else {"json": body}

    reply = await client.call(
        method, f"/api/v2/{path}", headers={"X-Deadline-Ms": "60001"}, **options
    )

    assert (reply.status, reply.body.get("code")) == (400, "invalid_request")


async def test_a_cursor_beyond_every_number_is_refused(client: SidecarClient, name: str) -> None:
    cursor = base64.urlsafe_b64encode(b"[99999999999999999999]").rstrip(b"=").decode()

    reply = await client.get(f"/api/v2/config/{name}/k/history?cursor={cursor}")

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_a_moment_may_be_written_in_small_letters(client: SidecarClient) -> None:
    reply = await client.get("/api/v2/analytics/requests?since=2026-01-01t00:00:00z")

    assert reply.status == 200
