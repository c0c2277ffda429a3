"""From what was seen to what the user is told: `status` of the resource, whole. Pure.

The conditions follow kstatus: `Ready`, `Reconciling`, `Stalled`, so that kubectl wait, Argo CD
and Flux need no plugin. Times move only when something flips; an equal status is not written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator.errors import InvalidSpec
from plan2_operator.observation import HIBERNATED, EngineFacts, Phase, engine_facts

__all__ = ["EngineFacts", "Facts", "Phase", "engine_facts", "of"]

PATIENCE_SECONDS: Final = 600
_COMING_UP: Final = frozenset({Phase.PENDING, Phase.PROVISIONING})
_WORKING: Final = frozenset({Phase.READY, Phase.EXTERNAL})
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_LONGEST_MESSAGE: Final = 2048


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one reconcile came to. `error`: the spec as a whole could not be read.

    `sidecars` counts injected, outdated and missed pods; `low_budgets` are the engines with
    too few connections for all of them.
    """

    engines: Mapping[Engine, EngineFacts]
    sidecars: Mapping[str, int]
    error: InvalidSpec | None = None
    low_budgets: tuple[Engine, ...] = ()


@dataclass(frozen=True)
class _Verdict:
    phase: str
    ready: bool
    reason: str
    message: str


def of(
    body: Mapping[str, Any], facts: Facts, previous: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The status to write for the resource in `body`."""
    generation = body["metadata"].get("generation", 0)
    blocks = _blocks(facts, previous, now) or dict(previous.get("engines") or {})
    verdict = _verdict(body.get("spec") or {}, facts, blocks, now)
    conditions = [
        _condition("Ready", verdict.ready, verdict.reason, verdict.message),
        _reconciling(verdict, facts),
        _stalled(facts),
        _missed(facts),
        _budget(facts),
    ]
    enabled = [block for block in blocks.values() if block["phase"] != Phase.DISABLED]
    working = [block for block in enabled if block["ready"]]
    return {
        "observedGeneration": generation,
        "phase": verdict.phase,
        "conditions": _dated(conditions, previous, generation, now),
        "connectionSecret": names.connection_secret(body["metadata"]["name"]),
        "enginesReady": f"{len(working)}/{len(enabled)}",
        "engines": blocks,
        "sidecars": dict(facts.sidecars),
    }


def _blocks(facts: Facts, previous: Mapping[str, Any], now: datetime) -> dict[str, dict[str, Any]]:
    before = previous.get("engines") or {}
    return {
        engine.value: _block(facts.engines[engine], before.get(engine.value) or {}, now)
        for engine in Engine
        if engine in facts.engines
    }


def _block(facts: EngineFacts, before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    made = {
        "phase": facts.phase.value,
        "ready": facts.phase in _WORKING,
        "reason": facts.reason,
        "message": facts.message[:_LONGEST_MESSAGE],
        "endpoint": facts.endpoint,
        "image": facts.image,
        "storage": dict(facts.storage),
        "resources": dict(facts.resources),
        "secretName": facts.secret_name,
        "lastTransitionTime": _since(facts, before, now),
    }
    return {key: value for key, value in made.items() if value not in ("", {})}


def _since(facts: EngineFacts, before: Mapping[str, Any], now: datetime) -> str:
    """Coming up is one state, whether the pod is there yet or not; a sleep is none of it."""
    last, time = before.get("phase"), before.get("lastTransitionTime")
    same = last == facts.phase or (last in _COMING_UP and facts.phase in _COMING_UP)
    same = same and (before.get("reason") == HIBERNATED) == (facts.reason == HIBERNATED)
    return time if time and same else now.astimezone(UTC).strftime(_TIME)


def _verdict(
    spec: Mapping[str, Any], facts: Facts, blocks: Mapping[str, Mapping[str, Any]], now: datetime
) -> _Verdict:
    if facts.error is not None:
        return _Verdict("Degraded", False, facts.error.reason, str(facts.error))
    if spec.get("paused"):
        return _Verdict("Paused", False, "Paused", "nothing is touched while spec.paused is true")
    if spec.get("hibernate"):
        return _Verdict("Hibernated", False, HIBERNATED, "no pod runs; the data is kept")
    enabled = {name: each for name, each in blocks.items() if each["phase"] != Phase.DISABLED}
    waiting = {name: each for name, each in enabled.items() if not each["ready"]}
    if not waiting:
        return _Verdict("Ready", True, "EnginesReady", f"all {len(enabled)} engines are ready")
    message = f"not ready: {', '.join(_named(name, each) for name, each in waiting.items())}"
    if any(_gave_up(each, now) for each in waiting.values()):
        return _Verdict("Degraded", False, "EnginesNotReady", message)
    pending = all(each["phase"] == Phase.PENDING for each in enabled.values())
    phase = "Pending" if pending else "Provisioning"
    return _Verdict(phase, False, "Provisioning", message)


def _gave_up(block: Mapping[str, Any], now: datetime) -> bool:
    if block["phase"] == Phase.FAILED:
        return True
    since = datetime.strptime(block["lastTransitionTime"], _TIME).replace(tzinfo=UTC)
    return (now - since).total_seconds() >= PATIENCE_SECONDS


def _named(name: str, block: Mapping[str, Any]) -> str:
    text = block.get("message") or block.get("reason") or ""
    return f"{name} ({block['phase']}{': ' if text else ''}{text})"


def _reconciling(verdict: _Verdict, facts: Facts) -> dict[str, Any]:
    at_rest = verdict.ready or facts.error is not None or verdict.phase in ("Paused", "Hibernated")
    moving = [
        each
        for each in facts.engines.values()
        if each.phase not in (*_WORKING, Phase.DISABLED) and not each.stalled
    ]
    if at_rest or not moving:
        return _condition("Reconciling", False, verdict.reason, "nothing is left to do")
    named = ", ".join(each.engine.value for each in moving)
    return _condition("Reconciling", True, "Provisioning", f"working on {named}")


def _stalled(facts: Facts) -> dict[str, Any]:
    if facts.error is not None:
        return _condition("Stalled", True, facts.error.reason, str(facts.error))
    stalled = [each for each in facts.engines.values() if each.stalled]
    if not stalled:
        return _condition("Stalled", False, "NotStalled", "nothing waits for the user")
    message = "; ".join(f"{each.engine.value}: {each.message}" for each in stalled)
    return _condition("Stalled", True, stalled[0].reason or "Stalled", message)


def _missed(facts: Facts) -> dict[str, Any]:
    missed = facts.sidecars.get("missed", 0)
    if missed:
        message = f"{missed} labelled pods run without their sidecar; make them anew"
        return _condition("SidecarMissed", True, "SidecarMissed", message)
    return _condition("SidecarMissed", False, "NoneMissed", "every labelled pod has its sidecar")


def _budget(facts: Facts) -> dict[str, Any]:
    if facts.low_budgets:
        named = ", ".join(engine.value for engine in facts.low_budgets)
        message = f"{named}: too few connections for this many sidecars; raise max_connections"
        return _condition("ConnectionBudgetLow", True, "TooManySidecars", message)
    return _condition("ConnectionBudgetLow", False, "Enough", "connections suffice")


def _condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
    }


def _dated(
    conditions: list[dict[str, Any]], previous: Mapping[str, Any], generation: int, now: datetime
) -> list[dict[str, Any]]:
    before = {each["type"]: each for each in previous.get("conditions") or ()}
    time = now.astimezone(UTC).strftime(_TIME)
    for condition in conditions:
        last = before.get(condition["type"]) or {}
        kept = last.get("lastTransitionTime") if last.get("status") == condition["status"] else None
        condition["lastTransitionTime"] = kept or time
        condition["observedGeneration"] = generation
    return conditions
