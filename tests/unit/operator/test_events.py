"""Events are read off two statuses: what has changed between them is told, and nothing else."""

from typing import Any

from plan2_operator import events


def status(phase: str = "Provisioning", *, stalled: str = "", **engines: str) -> dict[str, Any]:
    condition = {
        "type": "Stalled",
        "status": "True" if stalled else "False",
        "reason": stalled or "Fine",
        "message": f"because of {stalled}",
    }
    return {
        "phase": phase,
        "conditions": [condition],
        "engines": {name: {"phase": of, "message": f"{name} {of}"} for name, of in engines.items()},
    }


def told(previous: dict[str, Any], current: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in events.transitions(previous, current)]


def test_nothing_is_told_twice() -> None:
    seen = status("Ready", stalled="StorageShrinkRefused", postgresql="Ready", mongodb="Failed")

    assert told(seen, seen) == []


def test_an_engine_that_becomes_ready_or_fails_is_told() -> None:
    before = status(postgresql="Provisioning", mongodb="Pending", redis="Pending")
    after = status(postgresql="Ready", mongodb="Failed", redis="Provisioning")

    assert told(before, after) == [("Normal", "EngineReady"), ("Warning", "EngineFailed")]


def test_the_event_of_a_failed_engine_names_it_and_says_why() -> None:
    [event] = events.transitions({}, status(mongodb="Failed"))

    assert event.message == "mongodb: mongodb Failed"


def test_a_stall_is_told_once_for_each_reason() -> None:
    shrunk, lost = status(stalled="StorageShrinkRefused"), status(stalled="CredentialsLost")

    assert told({}, shrunk) == [("Warning", "StorageShrinkRefused")]
    assert told(shrunk, lost) == [("Warning", "CredentialsLost")]
    assert told(lost, status()) == []


def test_a_resource_that_becomes_ready_is_told() -> None:
    assert told(status("Provisioning"), status("Ready")) == [("Normal", "Ready")]
