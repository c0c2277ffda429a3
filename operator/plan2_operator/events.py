"""Kubernetes Events for what a person wants to hear about, each told once.

Transitions are read off the status that was written last, so neither a tick nor a restart of
the operator repeats one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NORMAL: Final = "Normal"
WARNING: Final = "Warning"
_TOLD_CONDITIONS: Final = {"Stalled": WARNING, "SidecarMissed": WARNING}


@dataclass(frozen=True)
class Event:
    """`reason` is CamelCase, `message` a sentence."""

    type: str
    reason: str
    message: str


def transitions(previous: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Event]:
    """What has happened between two statuses of one resource."""
    yield from _engines(previous.get("engines") or {}, current.get("engines") or {})
    yield from _conditions(_by_type(previous), _by_type(current))
    phase = current.get("phase")
    if phase != previous.get("phase") and phase in ("Ready", "Paused", "Hibernated"):
        yield Event(NORMAL, str(phase), f"The resource is {str(phase).lower()}.")


def _engines(
    previous: Mapping[str, Mapping[str, Any]], current: Mapping[str, Mapping[str, Any]]
) -> Iterator[Event]:
    for engine, block in current.items():
        before, phase = previous.get(engine, {}).get("phase"), block.get("phase")
        if phase == before:
            continue
        if phase == "Ready":
            yield Event(NORMAL, "EngineReady", f"{engine} is ready.")
        elif phase == "Failed":
            yield Event(WARNING, "EngineFailed", f"{engine}: {block.get('message', 'failed')}")


def _conditions(
    previous: Mapping[str, Mapping[str, Any]], current: Mapping[str, Mapping[str, Any]]
) -> Iterator[Event]:
    for name, kind in _TOLD_CONDITIONS.items():
        now, before = current.get(name, {}), previous.get(name, {})
        if now.get("status") != "True":
            continue
        if (before.get("status"), before.get("reason")) != ("True", now.get("reason")):
            yield Event(kind, str(now.get("reason")), str(now.get("message")))


def _by_type(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or ()}
