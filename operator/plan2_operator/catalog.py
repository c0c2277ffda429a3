"""What the operator fills in where the user says nothing: images, identities, sizes.

The images are pinned; a release resolves them anew and says so in the changelog. Sizes fit a
small cluster. Nothing here is read from the cluster: `settings` makes a Catalog with the
overrides of its environment.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from plan2_contract.engines import Engine


@dataclass(frozen=True, kw_only=True)
class EngineDefaults:
    """One engine's image and identity, and its share of a small cluster."""

    image: str
    uid: int
    cpu_request: str
    memory_request: str
    memory_limit: str
    storage: str = "10Gi"
    enabled: bool = True


ENGINES: Final[Mapping[Engine, EngineDefaults]] = MappingProxyType(
    {
        Engine.POSTGRESQL: EngineDefaults(
            image="postgres:17.11",
            uid=999,
            cpu_request="100m",
            memory_request="256Mi",
            memory_limit="1Gi",
        ),
        Engine.DRAGONFLYDB: EngineDefaults(
            image="docker.dragonflydb.io/dragonflydb/dragonfly:v1.40.1",
            uid=999,
            cpu_request="100m",
            memory_request="384Mi",
            memory_limit="640Mi",
            storage="2Gi",
        ),
        Engine.CLICKHOUSE: EngineDefaults(
            image="clickhouse/clickhouse-server:26.3.20.7",
            uid=101,
            cpu_request="200m",
            memory_request="1Gi",
            memory_limit="2Gi",
        ),
        Engine.WEAVIATE: EngineDefaults(
            image="cr.weaviate.io/semitechnologies/weaviate:1.39.0",
            uid=1000,
            cpu_request="100m",
            memory_request="256Mi",
            memory_limit="1Gi",
        ),
        Engine.ARANGODB: EngineDefaults(
            image="arangodb:3.12.10.1",
            uid=1000,
            cpu_request="100m",
            memory_request="512Mi",
            memory_limit="1Gi",
        ),
        Engine.MONGODB: EngineDefaults(
            image="mongo:8.0.29",
            uid=999,
            cpu_request="100m",
            memory_request="512Mi",
            memory_limit="1Gi",
        ),
        Engine.REDIS: EngineDefaults(
            image="redis:7.4.11",
            uid=999,
            cpu_request="50m",
            memory_request="64Mi",
            memory_limit="256Mi",
            storage="2Gi",
            enabled=False,
        ),
    }
)

SIDECAR_REQUESTS: Final[Mapping[str, str]] = MappingProxyType({"cpu": "50m", "memory": "64Mi"})
SIDECAR_LIMITS: Final[Mapping[str, str]] = MappingProxyType({"memory": "192Mi"})
POOL_MAX: Final = 20


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The defaults of one installation: those above, but for what its operator was told."""

    operator_namespace: str = "plan2-system"
    images: Mapping[Engine, str] = field(default_factory=dict)
    image_pull_policy: str | None = None
    sidecar_image: str = "ghcr.io/plan2/sidecar:0.1.0"

    def image(self, engine: Engine) -> str:
        """The image of an engine whose resource names none."""
        return self.images.get(engine) or ENGINES[engine].image


BUILT_IN: Final = Catalog()
