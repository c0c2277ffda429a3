"""`spec` of a Plan2Database exactly as a user may write it, nothing filled in.

A test holds these Structs and `crds/plan2databases.yaml` to the same fields. `spec` turns
them into what the engines are built from. Unknown fields are the API server's business: it
has dropped or refused them before anything arrives here.
"""

from typing import Any, Literal

import msgspec

Quantity = int | float | str
Setting = int | str
PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Reference(_Fields, frozen=True, kw_only=True):
    """An object of the resource's own namespace."""

    name: str


class Storage(_Fields, frozen=True, kw_only=True):
    size: str | None = None
    storage_class_name: str | None = None


class Resources(_Fields, frozen=True, kw_only=True):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Pool(_Fields, frozen=True, kw_only=True):
    max: int | None = None


class External(_Fields, frozen=True, kw_only=True):
    """An engine that someone else runs; used as given, nothing is provisioned."""

    host: str
    port: int | None = None
    tls: bool = False
    credentials_secret_ref: Reference | None = None


class WeaviateExternal(External, frozen=True, kw_only=True):
    grpc_port: int | None = None


class Scheduling(_Fields, frozen=True, kw_only=True):
    """Copied into the pod as it stands."""

    node_selector: dict[str, str] | None = None
    tolerations: list[dict[str, Any]] | None = None
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: list[dict[str, Any]] | None = None
    priority_class_name: str | None = None


class SqlBootstrap(_Fields, frozen=True, kw_only=True):
    sql: list[str] | None = None
    config_map_ref: Reference | None = None


class Collection(_Fields, frozen=True, kw_only=True):
    name: str
    type: Literal["document", "edge"] = "document"


class EngineBlock(_Fields, frozen=True, kw_only=True):
    """What every engine's block has."""

    enabled: bool = True
    image: str | None = None
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: list[Reference] | None = None
    storage: Storage | None = None
    resources: Resources | None = None
    configuration: dict[str, Setting] | None = None
    credentials_secret_ref: Reference | None = None
    external: External | None = None
    pool: Pool | None = None
    scheduling: Scheduling | None = None


class PostgreSQL(EngineBlock, frozen=True, kw_only=True):
    database: str | None = None
    bootstrap: SqlBootstrap | None = None


class DragonflyDB(EngineBlock, frozen=True, kw_only=True):
    pass


class ClickHouse(EngineBlock, frozen=True, kw_only=True):
    database: str | None = None
    bootstrap: SqlBootstrap | None = None


class Weaviate(EngineBlock, frozen=True, kw_only=True):
    collections: list[dict[str, Any]] | None = None
    external: WeaviateExternal | None = None


class ArangoDB(EngineBlock, frozen=True, kw_only=True):
    database: str | None = None
    collections: list[Collection] | None = None


class MongoDB(EngineBlock, frozen=True, kw_only=True):
    database: str | None = None


class Redis(EngineBlock, frozen=True, kw_only=True):
    enabled: bool = False
    port: int | None = None


class SidecarLimits(_Fields, frozen=True, kw_only=True):
    max_body_bytes: int | None = None


class SidecarCache(_Fields, frozen=True, kw_only=True):
    max_bytes: int | None = None


class SidecarRouting(_Fields, frozen=True, kw_only=True):
    tables: dict[str, str] | None = None


class Sidecar(_Fields, frozen=True, kw_only=True):
    image: str | None = None
    resources: Resources | None = None
    required_engines: list[str] = []
    limits: SidecarLimits | None = None
    cache: SidecarCache | None = None
    routing: SidecarRouting | None = None


class NetworkPolicy(_Fields, frozen=True, kw_only=True):
    """`from` is a keyword of Python, hence the name on the wire given by hand."""

    mode: Literal["namespace", "labelled", "off"] = "namespace"
    allow_from: list[dict[str, Any]] = msgspec.field(default_factory=list, name="from")


class Monitoring(_Fields, frozen=True, kw_only=True):
    service_monitor: bool = False
    prometheus_rule: bool = False


class Spec(_Fields, frozen=True, kw_only=True):
    """The whole of `spec`."""

    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    paused: bool = False
    hibernate: bool = False
    postgresql: PostgreSQL = PostgreSQL()
    dragonflydb: DragonflyDB = DragonflyDB()
    clickhouse: ClickHouse = ClickHouse()
    weaviate: Weaviate = Weaviate()
    arangodb: ArangoDB = ArangoDB()
    mongodb: MongoDB = MongoDB()
    redis: Redis = Redis()
    sidecar: Sidecar = Sidecar()
    network_policy: NetworkPolicy = NetworkPolicy()
    monitoring: Monitoring = Monitoring()
