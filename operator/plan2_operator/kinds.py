"""The Kubernetes kinds the operator handles, and where their API is served.

A literal table instead of discovery: discovery reads every API of the cluster (20 MB here) and
writes a cache file, which a read-only root filesystem refuses.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from plan2_contract import names


@dataclass(frozen=True)
class Kind:
    """One kind: `group` is empty for the core API."""

    name: str
    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


PLATFORM: Final = Kind(names.KIND, names.GROUP, names.API_VERSION, names.PLURAL)
STATEFUL_SET: Final = Kind("StatefulSet", "apps", "v1", "statefulsets")
SERVICE: Final = Kind("Service", "", "v1", "services")
CONFIG_MAP: Final = Kind("ConfigMap", "", "v1", "configmaps")
DISRUPTION_BUDGET: Final = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
SECRET: Final = Kind("Secret", "", "v1", "secrets")
POD: Final = Kind("Pod", "", "v1", "pods")
VOLUME_CLAIM: Final = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
EVENT: Final = Kind("Event", "", "v1", "events")
SERVICE_MONITOR: Final = Kind("ServiceMonitor", "monitoring.coreos.com", "v1", "servicemonitors")
PROMETHEUS_RULE: Final = Kind("PrometheusRule", "monitoring.coreos.com", "v1", "prometheusrules")

OWNED: Final = (STATEFUL_SET, SERVICE, CONFIG_MAP, DISRUPTION_BUDGET, NETWORK_POLICY)
"""The kinds that are watched, repaired and pruned."""

OPTIONAL: Final = (SERVICE_MONITOR, PROMETHEUS_RULE)
"""The kinds that are applied and pruned where the cluster has them."""

BY_NAME: Final = MappingProxyType(
    {kind.name: kind for kind in (PLATFORM, SECRET, POD, VOLUME_CLAIM, EVENT, *OWNED, *OPTIONAL)}
)
