"""Whether a pod gets the sidecar, and the smallest JSON Patch that brings it there.

Pure: a pod comes in as the API server sent it, operations or a named reason to leave it alone
go out. A pod that was injected before is left alone, so a second admission changes nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from plan2_contract import names
from plan2_operator.injector import resources, sidecar
from plan2_operator.injector.resources import InvalidResources
from plan2_operator.injector.settings import Settings
from plan2_operator.injector.sidecar import V1_MODES, Options, Wishes

Operation = dict[str, Any]

MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PORT: Final = re.compile(r"0{0,5}[1-9][0-9]{0,4}")


class Skip(StrEnum):
    """Why a pod is left as it is; also the metric's `reason`."""

    NOT_LABELLED = "not_labelled"
    ALREADY_INJECTED = "already_injected"
    EXCLUDED_NAMESPACE = "excluded_namespace"
    NAMESPACE_NOT_WATCHED = "namespace_not_watched"
    HOST_NETWORK = "host_network"
    MIRROR_POD = "mirror_pod"
    WINDOWS = "windows"
    INVALID_NAME = "invalid_name"
    PORT_CLASH = "port_clash"


@dataclass(frozen=True)
class Skipped:
    """`message` is for the person who applied the pod; None when there is nothing to say."""

    reason: Skip
    message: str | None = None


@dataclass(frozen=True)
class Injection:
    """The patch, and what of the pod's annotations could not be used."""

    operations: list[Operation]
    warnings: tuple[str, ...] = ()


def inject(
    pod: Mapping[str, Any], *, namespace: str, settings: Settings, options: Options | None
) -> Injection | Skipped:
    """The patch for `pod`; `options` is None while its resource is unknown."""
    skipped = _skipped(pod, namespace, settings)
    if skipped is not None:
        return skipped
    warnings: list[str] = []
    wishes = _wishes(pod, options or sidecar.NO_OPTIONS, warnings)
    clash = _port_clash(pod, wishes.port)
    if clash is not None:
        return Skipped(Skip.PORT_CLASH, clash)
    return Injection(_operations(pod, settings, options, wishes), tuple(warnings))


def _skipped(pod: Mapping[str, Any], namespace: str, settings: Settings) -> Skipped | None:
    cr = _labels(pod).get(names.LABEL_INJECT)
    if not cr:
        return Skipped(Skip.NOT_LABELLED)
    spec = pod["spec"]
    if names.SIDECAR_CONTAINER in (container.get("name") for _, _, container in _containers(spec)):
        return Skipped(Skip.ALREADY_INJECTED)
    if namespace in settings.excluded_namespaces:
        return Skipped(Skip.EXCLUDED_NAMESPACE, f"namespace {namespace} is never injected")
    if settings.watch_namespaces and namespace not in settings.watch_namespaces:
        return Skipped(
            Skip.NAMESPACE_NOT_WATCHED, f"namespace {namespace} is not among watchNamespaces"
        )
    if spec.get("hostNetwork"):
        # Its loopback address is the node's: whoever runs there could call the databases.
        return Skipped(Skip.HOST_NETWORK, "a pod on the host network is never injected")
    if MIRROR_ANNOTATION in _annotations(pod):
        return Skipped(Skip.MIRROR_POD, "a static pod cannot be changed")
    if _is_windows(spec):
        return Skipped(Skip.WINDOWS, "the sidecar is a Linux container")
    if len(cr) > names.MAX_NAME_LENGTH or not _NAME.fullmatch(cr):
        return Skipped(
            Skip.INVALID_NAME, f"label {names.LABEL_INJECT}: {cr!r} is no {names.KIND}'s name"
        )
    return None


def _is_windows(spec: Mapping[str, Any]) -> bool:
    selected = (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    return "windows" in ((spec.get("os") or {}).get("name"), selected)


def _wishes(pod: Mapping[str, Any], options: Options, warnings: list[str]) -> Wishes:
    annotations = _annotations(pod)
    port = names.SIDECAR_PORT
    text = annotations.get(names.ANNOTATION_PORT)
    if text is not None:
        if _PORT.fullmatch(text) and int(text) <= 65535:
            port = int(text)
        else:
            warnings.append(f"{names.ANNOTATION_PORT}: {text!r} is no port; {port} is used")
    classic = annotations.get(names.ANNOTATION_ENV, "false")
    if classic not in ("true", "false"):
        warnings.append(
            f"{names.ANNOTATION_ENV}: {classic!r} is neither true nor false; no variable is added"
        )
    v1 = annotations.get(names.ANNOTATION_V1, V1_MODES[0])
    if v1 not in V1_MODES:
        warnings.append(f"{names.ANNOTATION_V1}: {v1!r} is neither token nor open; token is used")
        v1 = V1_MODES[0]
    return Wishes(
        port=port,
        v1=v1,
        classic=classic == "true",
        resources=_own_resources(annotations, options, warnings),
        shares_budget=bool(pod["spec"].get("resources")),
    )


def _own_resources(
    annotations: Mapping[str, str], options: Options, warnings: list[str]
) -> resources.Resources | None:
    text = annotations.get(names.ANNOTATION_SIDECAR_RESOURCES)
    if text is None:
        return None
    try:
        given = resources.parse(text)
        resources.merged(resources.DEFAULTS, options.resources or {}, given)
    except InvalidResources as error:
        warnings.append(f"{names.ANNOTATION_SIDECAR_RESOURCES}: {error}; the defaults are used")
        return None
    return given


def _port_clash(pod: Mapping[str, Any], port: int) -> str | None:
    if port == names.METRICS_PORT:
        return f"port {port} is the sidecar's own for probes and metrics"
    for _, _, container in _containers(pod["spec"]):
        for declared in container.get("ports") or ():
            number = declared.get("containerPort")
            # One network for all containers of a pod: whoever listens second cannot start.
            if number in (port, names.METRICS_PORT) and declared.get("protocol", "TCP") == "TCP":
                name = container.get("name")
                return f"container {name} declares port {number}, which the sidecar needs"
    return None


def _operations(
    pod: Mapping[str, Any], settings: Settings, options: Options | None, wishes: Wishes
) -> list[Operation]:
    spec, annotations = pod["spec"], _annotations(pod)
    cr = _labels(pod)[names.LABEL_INJECT]
    variables = sidecar.app_environment(cr, wishes.port, classic=wishes.classic)
    own = sidecar.container(settings, options or sidecar.NO_OPTIONS, wishes)

    result = _missing("/spec/volumes", spec.get("volumes"), sidecar.volumes(cr), key="name")
    for kind, index, container in _containers(spec):
        path = f"/spec/{kind}/{index}"
        result += _before(f"{path}/env", container.get("env"), variables)
        mounts = container.get("volumeMounts")
        result += _missing(f"{path}/volumeMounts", mounts, sidecar.shared_mounts(), key="mountPath")
    # After the paths above, which count the init containers as they came.
    if spec.get("initContainers"):
        result.append(_add("/spec/initContainers/0", own))
    else:
        result.append(_add("/spec/initContainers", [own]))
    stamp = sidecar.fingerprint(settings, options)
    if annotations:
        key = names.ANNOTATION_INJECTED.replace("~", "~0").replace("/", "~1")
        result.append(_add(f"/metadata/annotations/{key}", stamp))
    else:
        result.append(_add("/metadata/annotations", {names.ANNOTATION_INJECTED: stamp}))
    return result


def _missing(
    path: str, present: Any, wanted: Iterable[dict[str, Any]], *, key: str
) -> list[Operation]:
    """Adds what of `wanted` is not there by its `key`; whatever the user wrote stays."""
    if not present:
        return [_add(path, list(wanted))]
    return [_add(f"{path}/-", item) for item in _absent(present, wanted, key)]


def _before(path: str, present: Any, wanted: Iterable[dict[str, Any]]) -> list[Operation]:
    """As `_missing`, in front: only what stands before can be meant by a variable's $(NAME)."""
    if not present:
        return [_add(path, list(wanted))]
    absent = _absent(present, wanted, "name")
    return [_add(f"{path}/{place}", item) for place, item in enumerate(absent)]


def _absent(present: Any, wanted: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    taken = {item.get(key) for item in present}
    return [item for item in wanted if item[key] not in taken]


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _containers(spec: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield kind, index, container


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("labels") or {}


def _annotations(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("annotations") or {}
