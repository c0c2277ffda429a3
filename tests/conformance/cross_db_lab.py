"""What the tests of cross-database operations share: a sidecar on engines, tables, asking."""

from collections.abc import Mapping
from typing import Any

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Reply, SidecarClient
from fixtures.fix_sidecar_services import where

PATH = "/api/v2/cross-db"
LEASE_MS = 5000


def environment(**servers: EngineServer) -> dict[str, str]:
    """The variables of a sidecar on these engines, with leases of five seconds."""
    variables = {"PLAN2_SAGA_LEASE_MS": str(LEASE_MS)}
    for server in servers.values():
        variables |= _of(server)
    return variables


def _of(server: EngineServer) -> dict[str, str]:
    host, port, password = server.host, str(server.port), server.admin_password
    match server.engine:
        case "arangodb":
            return {
                "ARANGO_URL": server.url,
                "ARANGO_DB": "_system",
                "ARANGO_USER": server.admin_user,
                "ARANGO_PASSWORD": password,
            }
        case "mongodb":
            return {"MONGODB_URL": server.url, "MONGODB_DB": "cases"}
        case "weaviate":
            return {
                "WEAVIATE_HOST": host,
                "WEAVIATE_PORT": port,
                "WEAVIATE_API_KEY": password,
            }
        case _:
            return where(server)


async def ask(client: SidecarClient, key: str | None = None, **body: Any) -> Reply:
    """POST /api/v2/cross-db."""
    headers: Mapping[str, str] = {} if key is None else {"Idempotency-Key": key}
    return await client.call("POST", PATH, json=body, headers=headers)


async def query(client: SidecarClient, target: str, text: Any, params: Any = None) -> Any:
    """The data of a query that must succeed."""
    members = {} if params is None else {"params": params}
    reply = await client.query(text, target, **members)
    assert reply.status == 200, reply.body
    return reply.body["data"]


def sql(identity: str, text: str, *params: Any, **members: Any) -> dict[str, Any]:
    """A PostgreSQL operation."""
    return {
        "id": identity,
        "targetDatabase": "postgresql",
        "query": text,
        "params": list(params),
        **members,
    }
