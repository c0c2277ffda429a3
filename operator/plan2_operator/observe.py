"""Reads what is in the cluster for one resource; writes nothing."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator import kinds
from plan2_operator.cluster import Cluster, Manifest, Missing
from plan2_operator.injector.settings import SYSTEM_NAMESPACES
from plan2_operator.kinds import Kind

DATABASE: Final = "database"


@dataclass(frozen=True)
class Watched:
    """What the watches tell of: owned objects, the engines' pods, the pods that want a sidecar."""

    objects: list[Manifest]
    pods: list[Manifest]
    applications: list[Manifest]


@dataclass(frozen=True)
class Observed:
    """The owned objects by (kind, name), the engines' pods, and the pods that want a sidecar."""

    objects: Mapping[tuple[str, str], Manifest]
    pods: Mapping[Engine, Manifest]
    applications: tuple[Manifest, ...]


@dataclass(frozen=True)
class Sidecars:
    """How the labelled pods stand: `injected` run with a sidecar, `outdated` of them with an

    older one than a new pod would get; `missed` should have one and have none.
    """

    injected: int
    outdated: int
    missed: tuple[Manifest, ...]


async def watched(cluster: Cluster, namespace: str, cr: str) -> Watched:
    """What belongs to the resource and is watched; Secrets and volumes are read by name."""
    databases = {names.LABEL_INSTANCE: cr, names.LABEL_COMPONENT: DATABASE}
    *lists, pods, applications = await asyncio.gather(
        *(_listed(cluster, kind, namespace, _owned(cr)) for kind in kinds.OWNED),
        cluster.list(kinds.POD, namespace, databases),
        cluster.list(kinds.POD, namespace, {names.LABEL_INJECT: cr}),
    )
    return Watched([live for found in lists for live in found], pods, applications)


async def unwatched(cluster: Cluster, namespace: str, cr: str) -> list[Manifest]:
    """The owned objects of the optional kinds, where the cluster has them."""
    optional = [kind for kind in cluster.served() if kind in kinds.OPTIONAL]
    lists = await asyncio.gather(
        *(_listed(cluster, kind, namespace, _owned(cr)) for kind in optional)
    )
    return [live for found in lists for live in found]


def complete(seen: Watched, rest: list[Manifest]) -> Observed:
    """Both together."""
    return Observed(
        objects={(live["kind"], live["metadata"]["name"]): live for live in (*seen.objects, *rest)},
        pods={
            engine: pod
            for pod in seen.pods
            if (engine := engine_of(pod)) is not None and _current(pod)
        },
        applications=tuple(seen.applications),
    )


def _owned(cr: str) -> dict[str, str]:
    return {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_INSTANCE: cr}


async def _listed(
    cluster: Cluster, kind: Kind, namespace: str, labels: Mapping[str, str]
) -> list[Manifest]:
    try:
        return await cluster.list(kind, namespace, labels)
    except Missing:
        if kind not in kinds.OPTIONAL:
            raise
        cluster.retire(kind)
        return []


def sidecars(
    applications: tuple[Manifest, ...],
    *,
    fingerprint: str,
    operator_namespace: str,
    excluded_namespaces: tuple[str, ...] = (),
) -> Sidecars:
    """Count the labelled pods; those the injector never touches are none of its misses."""
    excluded = SYSTEM_NAMESPACES | {operator_namespace, *excluded_namespaces}
    alive = [
        pod
        for pod in applications
        if _current(pod)
        and not pod["spec"].get("hostNetwork")
        and pod["metadata"]["namespace"] not in excluded
    ]
    injected = [pod for pod in alive if _has_sidecar(pod)]
    running = [pod for pod in injected if _phase(pod) == "Running"]
    return Sidecars(
        injected=len(running),
        outdated=sum(
            _annotations(pod).get(names.ANNOTATION_INJECTED) != fingerprint for pod in running
        ),
        missed=tuple(pod for pod in alive if not _has_sidecar(pod)),
    )


def engine_of(live: Mapping[str, Any]) -> Engine | None:
    """The engine whose object this is, by its label."""
    name = (live["metadata"].get("labels") or {}).get(names.LABEL_NAME, "")
    return Engine(name) if name in Engine.__members__.values() else None


def is_up(pod: Manifest | None) -> bool:
    """Whether the engine's process runs, ready or not: provisioning may be what it waits for."""
    if pod is None or _phase(pod) != "Running":
        return False
    containers = pod["status"].get("containerStatuses") or []
    return bool(containers) and all(
        "running" in (container.get("state") or {}) for container in containers
    )


def _current(pod: Manifest) -> bool:
    finished = _phase(pod) in ("Succeeded", "Failed")
    return not finished and pod["metadata"].get("deletionTimestamp") is None


def _phase(pod: Manifest) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _annotations(pod: Manifest) -> Mapping[str, str]:
    return pod["metadata"].get("annotations") or {}


def _has_sidecar(pod: Manifest) -> bool:
    spec = pod["spec"]
    containers = [*spec.get("containers", ()), *(spec.get("initContainers") or ())]
    return any(container["name"] == names.SIDECAR_CONTAINER for container in containers)
