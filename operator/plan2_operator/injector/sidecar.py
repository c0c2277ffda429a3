"""The sidecar's container and volumes, and what is added to the containers beside it.

Pure builders: whether a pod gets them is decided in `patch`. `fingerprint` is stamped on the
pod, so that the operator can tell an outdated sidecar from a current one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from plan2_contract import engines, environment, names
from plan2_contract.engines import Engine
from plan2_operator.injector import resources
from plan2_operator.injector.resources import InvalidResources, Resources
from plan2_operator.injector.settings import Settings

USER_ID: Final = 65532
PORT_NAME: Final = "plan2-metrics"

RUN_VOLUME: Final = "plan2-run"
CONNECTION_VOLUME: Final = "plan2-connection"
TOKEN_VOLUME: Final = "plan2-token"
NO_ACCOUNT_VOLUME: Final = "plan2-no-account"
ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_FILE: Final = f"{names.TOKEN_DIRECTORY}/{names.TOKEN_KEY}"
CONNECTION_FILE: Final = f"{names.CONNECTION_DIRECTORY}/connection.json"

V1_MODES: Final = ("token", "open")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a resource's `spec.sidecar` says; None where the injector's default holds."""

    image: str | None = None
    resources: Resources | None = None
    required_engines: tuple[Engine, ...] = ()
    max_body_bytes: int | None = None
    cache_max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a pod's own annotations say; `shares_budget`: the pod as a whole has resources."""

    port: int = names.SIDECAR_PORT
    v1: str = V1_MODES[0]
    classic: bool = False
    resources: Resources | None = None
    shares_budget: bool = False


NO_OPTIONS: Final = Options()
NO_WISHES: Final = Wishes()


def options(body: Mapping[str, Any]) -> Options:
    """`spec.sidecar` of a resource. What cannot be used is left out: the operator reports it."""
    spec = body.get("spec")
    given = spec.get("sidecar") if isinstance(spec, Mapping) else None
    if not isinstance(given, Mapping):
        return NO_OPTIONS
    image = given.get("image")
    required = given.get("requiredEngines")
    limits = given.get("limits")
    body_bytes = limits.get("maxBodyBytes") if isinstance(limits, Mapping) else None
    cache = given.get("cache")
    cache_bytes = cache.get("maxBytes") if isinstance(cache, Mapping) else None
    return Options(
        # An image with blanks around it would have the API server refuse the whole pod.
        image=image.strip() or None if isinstance(image, str) else None,
        resources=_usable(given.get("resources")),
        required_engines=_engines(required) if isinstance(required, list) else (),
        max_body_bytes=body_bytes if _is_body_size(body_bytes) else None,
        cache_max_bytes=cache_bytes if _is_cache_size(cache_bytes) else None,
    )


def container(settings: Settings, options: Options, wishes: Wishes) -> dict[str, Any]:
    """The native sidecar, an init container that stays: it starts first and stops last."""
    # Beside a budget of the pod's own, more than it holds would have the pod refused.
    inherited = [] if wishes.shares_budget else [resources.DEFAULTS, options.resources]
    layers = [*inherited, wishes.resources]
    result: dict[str, Any] = {
        "name": names.SIDECAR_CONTAINER,
        "image": options.image or settings.sidecar_image,
        "imagePullPolicy": settings.sidecar_pull_policy,
        "restartPolicy": "Always",
        "env": _sidecar_environment(options, wishes),
        "ports": [{"name": PORT_NAME, "containerPort": names.METRICS_PORT, "protocol": "TCP"}],
        "resources": resources.merged(*(layer for layer in layers if layer)),
        # The listener only: an engine that is down never holds up a rollout.
        "startupProbe": _probe("/livez", period=1, timeout=2, failures=120),
        "livenessProbe": _probe("/livez", period=10, timeout=5, failures=6),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {
                "name": CONNECTION_VOLUME,
                "mountPath": names.CONNECTION_DIRECTORY,
                "readOnly": True,
            },
            *shared_mounts(),
            # Holds the place where the API server would mount the pod's account token.
            {"name": NO_ACCOUNT_VOLUME, "mountPath": ACCOUNT_DIRECTORY, "readOnly": True},
        ],
    }
    if options.required_engines:
        result["readinessProbe"] = _probe("/readyz", period=2, timeout=2, failures=3)
    return result


def volumes(cr: str) -> list[dict[str, Any]]:
    """Optional Secrets: a pod may come before its resource, and finds the files later."""
    # In memory, because a volume on disk keeps the cluster autoscaler from moving the pod.
    memory = {"medium": "Memory", "sizeLimit": "1Mi"}
    return [
        {
            "name": CONNECTION_VOLUME,
            "secret": {"secretName": names.connection_secret(cr), "optional": True},
        },
        {
            "name": TOKEN_VOLUME,
            "secret": {"secretName": names.api_token_secret(cr), "optional": True},
        },
        {"name": RUN_VOLUME, "emptyDir": memory},
        {"name": NO_ACCOUNT_VOLUME, "emptyDir": memory},
    ]


def shared_mounts() -> list[dict[str, Any]]:
    """What the sidecar and the containers beside it both see: the socket and the API's token."""
    return [
        {"name": RUN_VOLUME, "mountPath": names.SOCKET_DIRECTORY},
        {"name": TOKEN_VOLUME, "mountPath": names.TOKEN_DIRECTORY, "readOnly": True},
    ]


def app_environment(cr: str, port: int, *, classic: bool) -> list[dict[str, Any]]:
    """Where the API is and, if `classic`, the variables services have used for years."""
    variables: list[dict[str, Any]] = [
        {"name": environment.URL, "value": f"http://127.0.0.1:{port}"},
        {"name": environment.SOCKET, "value": names.SOCKET_PATH},
        {"name": environment.API_TOKEN_FILE, "value": TOKEN_FILE},
    ]
    if classic:
        variables += [
            _from_secret(variable, names.app_secret(cr, engine), key)
            for engine, keys in environment.CLASSIC.items()
            for variable, key in keys.items()
        ]
    return variables


def fingerprint(settings: Settings, options: Options | None) -> str:
    """A hash of the sidecar that a pod without annotations of its own would get today."""
    made = [container(settings, options or NO_OPTIONS, NO_WISHES), volumes("cr")]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def _sidecar_environment(options: Options, wishes: Wishes) -> list[dict[str, Any]]:
    values = {
        environment.HOST: "127.0.0.1",
        environment.PORT: str(wishes.port),
        environment.SOCKET: names.SOCKET_PATH,
        environment.METRICS_HOST: "0.0.0.0",
        environment.METRICS_PORT: str(names.METRICS_PORT),
        environment.CONNECTION_FILE: CONNECTION_FILE,
        environment.API_TOKEN_FILE: TOKEN_FILE,
        environment.REQUIRED_ENGINES: ",".join(options.required_engines),
        environment.V1_MODE: wishes.v1,
    }
    if options.max_body_bytes is not None:
        values[environment.MAX_BODY_BYTES] = str(options.max_body_bytes)
    if options.cache_max_bytes is not None:
        values[environment.CACHE_MAX_BYTES] = str(options.cache_max_bytes)
    variables: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in values.items()
    ]
    # Known to the API server alone: admission may run before the account is filled in.
    account = {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.serviceAccountName"}}
    return [*variables, {"name": environment.SERVICE_ACCOUNT, "valueFrom": account}]


def _probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.METRICS_PORT},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _from_secret(variable: str, secret: str, key: str) -> dict[str, Any]:
    reference = {"name": secret, "key": key, "optional": True}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _usable(value: Any) -> Resources | None:
    if value is None:
        return None
    try:
        given = resources.read(value)
        resources.merged(resources.DEFAULTS, given)
    except InvalidResources:
        return None
    return given


def _is_body_size(value: Any) -> TypeGuard[int]:
    low, high = environment.SMALLEST_BODY_BYTES, environment.LARGEST_BODY_BYTES
    return isinstance(value, int) and low <= value <= high


def _is_cache_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= environment.LARGEST_CACHE_BYTES


def _engines(value: list[Any]) -> tuple[Engine, ...]:
    found = (engines.parse(name) for name in value if isinstance(name, str))
    return tuple(engine for engine in found if engine is not None)
