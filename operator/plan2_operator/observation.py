"""What one engine's live StatefulSet and pod say of it. Pure: no cluster is asked here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator.model import EngineSpec

Live = Mapping[str, Any]

HIBERNATED: Final = "Hibernated"
"""The reason of an engine that has been sent to sleep."""


class Phase(StrEnum):
    """Of one engine."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    READY = "Ready"
    FAILED = "Failed"
    DISABLED = "Disabled"
    EXTERNAL = "External"


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """How one engine stands. `stalled`: nothing but the user's hand brings it on.

    `storage` and `resources` are those in force, in the spec's form, defaults filled in.
    """

    engine: Engine
    phase: Phase
    message: str = ""
    reason: str = ""
    image: str = ""
    secret_name: str = ""
    endpoint: str = ""
    storage: Mapping[str, str] = field(default_factory=dict, hash=False)
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    stalled: bool = False


@dataclass(frozen=True)
class _Seen:
    phase: Phase
    reason: str = ""
    message: str = ""
    stalled: bool = False


# The kubelet goes to and fro between these; each says that the image does not come.
_NO_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"}
)
_BAD_IMAGE: Final = frozenset({"InvalidImageName", "ImageInspectError"})
_NO_START: Final = frozenset({"RunContainerError", "CreateContainerError"})
_CRASH_LOOP: Final = "CrashLoopBackOff"
# Between two crashes it runs for a moment; by then it has earned the name for good.
_CRASHES: Final = 3
_SHORT_SECONDS: Final = 300
_REVISION: Final = "controller-revision-hash"


def engine_facts(
    spec: EngineSpec,
    stateful_set: Live | None,
    pod: Live | None,
    provisioned: bool,
    message: str = "",
) -> EngineFacts:
    """The engine's phase; `message` is what keeps its provisioning waiting."""
    if not spec.enabled:
        return EngineFacts(engine=spec.engine, phase=Phase.DISABLED)
    secret_name = names.app_secret(spec.cr, spec.engine)
    if spec.external is not None:
        return EngineFacts(
            engine=spec.engine,
            phase=Phase.EXTERNAL,
            secret_name=secret_name,
            endpoint=f"{spec.external.host}:{spec.external.port}",
        )
    seen = _managed(spec, stateful_set, pod)
    if seen.phase is Phase.READY and not provisioned:
        seen = _Seen(Phase.PROVISIONING, "Provisioning", message or "roles and databases are made")
    elif message and seen.phase is Phase.PROVISIONING:
        seen = _Seen(seen.phase, seen.reason, message)
    return EngineFacts(
        engine=spec.engine,
        phase=seen.phase,
        message=seen.message,
        reason=seen.reason,
        image=spec.image,
        secret_name=secret_name,
        endpoint=f"{names.service_host(spec.cr, spec.engine, spec.namespace)}:{spec.port}",
        storage=_storage(spec),
        resources=_resources(spec),
        stalled=seen.stalled,
    )


def _storage(spec: EngineSpec) -> Mapping[str, str]:
    name = spec.storage.storage_class_name
    return {"size": spec.storage.size, **({} if name is None else {"storageClassName": name})}


def _resources(spec: EngineSpec) -> Mapping[str, Mapping[str, str]]:
    asked = {"requests": dict(spec.resources.requests), "limits": dict(spec.resources.limits)}
    return {kind: amounts for kind, amounts in asked.items() if amounts}


def _managed(spec: EngineSpec, stateful_set: Live | None, pod: Live | None) -> _Seen:
    if stateful_set is None:
        return _Seen(Phase.PENDING, "NotCreated", "its StatefulSet is not there yet")
    if stateful_set["spec"].get("replicas") == 0:
        return _Seen(Phase.PENDING, HIBERNATED, "scaled to no pod")
    if pod is None:
        return _Seen(Phase.PENDING, "NoPod", "its pod is not there yet")
    trouble = _trouble(spec, pod)
    if trouble is not None:
        return trouble
    if _rolling(stateful_set, pod):
        return _Seen(Phase.PROVISIONING, "RollingOut", "its pod is being replaced")
    if _condition(pod, "Ready") == "True":
        return _Seen(Phase.READY)
    return _waiting(pod)


def _trouble(spec: EngineSpec, pod: Live) -> _Seen | None:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in _NO_IMAGE:
            text = f"the image {spec.image} cannot be pulled"
            return _Seen(Phase.FAILED, "ImagePullFailed", text)
        if reason in _BAD_IMAGE:
            text = f"{spec.image!r} is not an image that can be run"
            return _Seen(Phase.FAILED, reason, text, stalled=True)
        if reason in _NO_START:
            return _Seen(Phase.FAILED, reason, str(waiting.get("message", "")))
        if reason == _CRASH_LOOP or _crashing(container):
            return _Seen(Phase.FAILED, _CRASH_LOOP, f"the container {_last_end(container)}")
    return None


def _waiting(pod: Live) -> _Seen:
    if _condition(pod, "PodScheduled") == "False":
        return _Seen(Phase.PENDING, "Unschedulable", _condition_message(pod, "PodScheduled"))
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason not in ("", "ContainerCreating", "PodInitializing"):
            return _Seen(Phase.PROVISIONING, reason, str(waiting.get("message", "")))
    if _condition(pod, "PodScheduled") != "True":
        return _Seen(Phase.PENDING, "Unscheduled", "its pod has no node yet")
    return _Seen(Phase.PROVISIONING, "Starting", "its pod is starting")


def _rolling(stateful_set: Live, pod: Live) -> bool:
    status = stateful_set.get("status") or {}
    seen = status.get("observedGeneration", 0)
    if seen < stateful_set["metadata"].get("generation", 0):
        return True
    revision = status.get("updateRevision")
    labels = pod["metadata"].get("labels") or {}
    return revision is not None and labels.get(_REVISION, revision) != revision


def _containers(pod: Live) -> list[Live]:
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _crashing(container: Live) -> bool:
    """In the moment between two crashes: it has not got through its start several times."""
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if container.get("ready") or container.get("started") or not ended.get("startedAt"):
        return False
    lasted = datetime.fromisoformat(ended["finishedAt"]) - datetime.fromisoformat(
        ended["startedAt"]
    )
    return container.get("restartCount", 0) >= _CRASHES and lasted.total_seconds() < _SHORT_SECONDS


def _last_end(container: Live) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if not ended:
        return "keeps ending"
    reason = ended.get("reason", "")
    why = f" ({reason})" if reason and reason != "Error" else ""
    return f"keeps ending, last with exit code {ended.get('exitCode')}{why}"


def _condition(pod: Live, kind: str) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return str(condition["status"])
    return ""


def _condition_message(pod: Live, kind: str) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return str(condition.get("message", ""))
    return ""
