"""The resource as the operator works with it, every default filled in; `spec` makes it.

Plain data: what an engine's module, the provisioning and the status are given to read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plan2_contract import names
from plan2_contract.engines import WEAVIATE_GRPC_PORT, Engine
from plan2_operator import quantities

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The volume an engine asks for."""

    size: str
    storage_class_name: str | None = None

    @property
    def size_bytes(self) -> int:
        return quantities.to_bytes(self.size)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """A container's requests and limits, quantities as text."""

    requests: Mapping[str, str]
    limits: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class External:
    """An engine run by someone else."""

    host: str
    port: int
    tls: bool = False
    credentials_secret: str | None = None
    grpc_port: int = WEAVIATE_GRPC_PORT


@dataclass(frozen=True, kw_only=True)
class Collection:
    """An ArangoDB collection that must exist; `type` is document or edge."""

    name: str
    type: str = "document"


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """What an engine is to hold once it runs.

    `config_map` names a ConfigMap whose values are SQL scripts; `with_scripts` reads them in.
    """

    sql: tuple[str, ...] = ()
    collections: tuple[Collection, ...] = ()
    classes: tuple[Mapping[str, Any], ...] = ()
    config_map: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """Members of a pod spec, under their own names."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One engine of one resource. `cr` and `namespace` are the resource's."""

    engine: Engine
    cr: str
    namespace: str
    enabled: bool
    image: str
    image_pull_policy: str | None
    image_pull_secrets: tuple[str, ...]
    database: str
    port: int
    storage: Storage
    resources: Resources
    configuration: Mapping[str, str]
    bootstrap: Bootstrap
    credentials_secret: str | None
    external: External | None
    pool_max: int
    scheduling: Scheduling

    @property
    def managed(self) -> bool:
        """Deployed by the operator."""
        return self.enabled and self.external is None

    @property
    def path(self) -> str:
        """Where a user finds it: the beginning of every field in an error."""
        return f"spec.{self.engine.value}"

    @property
    def memory_limit_bytes(self) -> int:
        return quantities.to_bytes(self.resources.limits["memory"])

    @property
    def cpu_limit(self) -> float | None:
        """In cores; None is no limit."""
        limit = self.resources.limits.get("cpu")
        return None if limit is None else float(quantities.parse(limit))

    @property
    def cpu_threads(self) -> int:
        """Whole cores it may count on: those of its limit, else of its request."""
        request = float(quantities.parse(self.resources.requests.get("cpu", "1")))
        return max(1, math.ceil(self.cpu_limit or request))


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What the injector puts beside an app."""

    image: str
    resources: Resources
    required_engines: tuple[Engine, ...] = ()
    max_body_bytes: int | None = None
    cache_max_bytes: int | None = None
    tables: Mapping[str, Engine]


@dataclass(frozen=True, kw_only=True)
class NetworkPolicy:
    """Who may reach the engines; `allow_from` holds NetworkPolicyPeers."""

    mode: str
    allow_from: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    service_monitor: bool = False
    prometheus_rule: bool = False


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One Plan2Database. `engines` has all seven, disabled ones too."""

    name: str
    namespace: str
    uid: str
    generation: int
    deletion_policy: str
    paused: bool
    hibernate: bool
    engines: Mapping[Engine, EngineSpec]
    sidecar: Sidecar
    network_policy: NetworkPolicy
    monitoring: Monitoring
    operator_namespace: str
    deleting: bool
    raw: Mapping[str, Any]

    def enabled(self) -> list[EngineSpec]:
        return [spec for spec in self.engines.values() if spec.enabled]

    def managed(self) -> list[EngineSpec]:
        return [spec for spec in self.engines.values() if spec.managed]

    @property
    def owner_reference(self) -> dict[str, Any]:
        """For the metadata of what must go when the resource goes."""
        return {
            "apiVersion": f"{names.GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
