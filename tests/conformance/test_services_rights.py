"""What services give the sidecar needs no more rights than the operator gives the application."""

import secrets
from pathlib import Path

import pytest

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, Start, eventually
from fixtures.provisioning import admin_secret, provision
from plan2_contract import connection
from plan2_contract.connection import Document, Engines, KeyValue, Login, Sql


def provisioned(server: EngineServer, admin: dict[str, str], database: str) -> Sql:
    return Sql(
        host=server.host,
        port=server.port,
        database=database,
        rw=Login(username="plan2_app", password=admin["app-password"]),
        ro=Login(username="plan2_ro", password=admin["ro-password"]),
    )


@pytest.fixture
async def client(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    clickhouse: EngineServer,
    dragonflydb: EngineServer,
    tmp_path: Path,
) -> SidecarClient:
    """Of a sidecar as the operator sets one up."""
    database = f"services_{secrets.token_hex(4)}"
    known = []
    for server in (postgresql, clickhouse):
        admin = admin_secret(server)
        await provision(server, admin, database=database)
        known.append(provisioned(server, admin, database))
    store = KeyValue(
        host=dragonflydb.host,
        port=dragonflydb.port,
        rw=Login(username=dragonflydb.admin_user, password=dragonflydb.admin_password),
    )
    engines = Engines(postgresql=known[0], clickhouse=known[1], dragonflydb=store)
    file = tmp_path / "connection.json"
    file.write_bytes(connection.encode(Document(version=1, engines=engines)))
    return connect(start_sidecar(PLAN2_CONNECTION_FILE=str(file), PLAN2_SERVICE_ACCOUNT="shop"))


async def test_the_applications_role_is_enough(client: SidecarClient) -> None:
    name = secrets.token_hex(6)
    config, session = f"/api/v2/config/{name}/theme", f"/api/v2/sessions/{name}"
    service = f"/api/v2/registry/services/{name}"
    requests = "/api/v2/analytics/requests"

    written = [
        await client.call("PUT", config, json={"value": 1}),
        await client.call("PUT", session, json={"data": 1}),
        await client.call("PUT", f"{service}/a", json={"url": "http://a"}),
        await client.call("DELETE", f"{service}/b"),
        await client.call("POST", requests, json={"method": "GET", "path": "/", "status": 200}),
    ]
    read = [await client.get(path) for path in (config, session, service, requests)]

    assert [reply.status for reply in written] == [200, 204, 204, 204, 202]
    assert [reply.status for reply in read] == [200] * 4
    assert read[3].body["items"][0]["count"] == 1

    async def copied() -> bool:
        query = "SELECT actor FROM plan2_config_changes"
        reply = await client.query(query, "clickhouse", options={"readOnly": True})
        return reply.status == 200 and reply.body["data"] == [{"actor": "shop"}]

    await eventually(copied, seconds=20, every=0.3)


async def test_the_first_call_of_a_sidecar_by_hand_makes_the_schema_and_a_look_does_not(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    database = f"by_hand_{secrets.token_hex(4)}"
    admin = {
        "POSTGRES_HOST": postgresql.host,
        "POSTGRES_PORT": str(postgresql.port),
        "POSTGRES_USER": postgresql.admin_user,
        "POSTGRES_PASSWORD": postgresql.admin_password,
    }
    maker = connect(start_sidecar(**admin, POSTGRES_DB="app"))
    made = await maker.query(f"CREATE DATABASE {database}", "postgresql")
    client = connect(start_sidecar(**admin, POSTGRES_DB=database))
    tables = "SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'plan2'"
    before = await client.query(tables, "postgresql")

    kept = await client.call("PUT", "/api/v2/sessions/a", json={"data": 1})
    after = await client.query(tables, "postgresql")

    assert (made.status, kept.status) == (200, 204)
    assert before.body["data"] == [{"n": 0}]
    assert after.body["data"][0]["n"] > 0
