"""Names in the cluster: the API group, labels, annotations, ports, and how objects are called.

Everything the operator makes for a resource is called `<cr>-<engine>…`.
"""

from typing import Final

from plan2_contract.engines import Engine

GROUP: Final = "plan2.io"
API_VERSION: Final = "v1alpha1"
KIND: Final = "Plan2Database"
PLURAL: Final = "plan2databases"
FIELD_MANAGER: Final = "plan2-operator"
MAX_NAME_LENGTH: Final = 38

MANAGED_BY: Final = "plan2-operator"
PART_OF: Final = "plan2"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"

LABEL_INJECT: Final = "plan2.io/inject"
ANNOTATION_INJECTED: Final = "plan2.io/injected"
ANNOTATION_ENV: Final = "plan2.io/env"
ANNOTATION_V1: Final = "plan2.io/v1"
ANNOTATION_PORT: Final = "plan2.io/port"
ANNOTATION_SIDECAR_RESOURCES: Final = "plan2.io/sidecar-resources"

SIDECAR_CONTAINER: Final = "plan2-sidecar"
SIDECAR_PORT: Final = 7420
METRICS_PORT: Final = 7421
SOCKET_DIRECTORY: Final = "/run/plan2"
SOCKET_PATH: Final = f"{SOCKET_DIRECTORY}/api.sock"
CONNECTION_DIRECTORY: Final = "/etc/plan2/connection"
TOKEN_DIRECTORY: Final = "/etc/plan2/token"
TOKEN_KEY: Final = "token"


def labels(cr: str, engine: Engine) -> dict[str, str]:
    """The recommended labels of every object of an engine."""
    return {**selector(cr, engine), LABEL_MANAGED_BY: MANAGED_BY, LABEL_PART_OF: PART_OF}


def shared_labels(cr: str) -> dict[str, str]:
    """The labels of an object that belongs to no single engine."""
    return {LABEL_NAME: PART_OF, LABEL_INSTANCE: cr, LABEL_MANAGED_BY: MANAGED_BY}


def selector(cr: str, engine: Engine) -> dict[str, str]:
    """The labels that select the pods of one engine of one resource; they never change."""
    return {LABEL_NAME: engine.value, LABEL_INSTANCE: cr, LABEL_COMPONENT: "database"}


def engine_object(cr: str, engine: Engine) -> str:
    """The StatefulSet, client Service, ConfigMap, PodDisruptionBudget and NetworkPolicy."""
    return f"{cr}-{engine.value}"


def headless_service(cr: str, engine: Engine) -> str:
    return f"{cr}-{engine.value}-headless"


def admin_secret(cr: str, engine: Engine) -> str:
    return f"{cr}-{engine.value}-admin"


def app_secret(cr: str, engine: Engine) -> str:
    return f"{cr}-{engine.value}-app"


def volume_claim(cr: str, engine: Engine) -> str:
    """The claim that the StatefulSet's template `data` makes for its only pod."""
    return f"data-{cr}-{engine.value}-0"


def connection_secret(cr: str) -> str:
    return f"{cr}-connection"


def api_token_secret(cr: str) -> str:
    return f"{cr}-api-token"


def recovery_secret(cr: str) -> str:
    return f"{cr}-recovery"


def service_host(cr: str, engine: Engine, namespace: str) -> str:
    """The client Service's name inside the cluster, whole, so that no search path is walked."""
    return f"{engine_object(cr, engine)}.{namespace}.svc.cluster.local"


def pod_host(cr: str, engine: Engine, namespace: str) -> str:
    """The only pod's own name, which answers before the pod is ready."""
    name = engine_object(cr, engine)
    return f"{name}-0.{headless_service(cr, engine)}.{namespace}.svc.cluster.local"
