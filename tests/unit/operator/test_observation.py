"""What a live StatefulSet and pod say of an engine."""

from typing import Any

import pytest

from plan2_contract.engines import Engine
from plan2_operator import spec
from plan2_operator.model import EngineSpec
from plan2_operator.observation import EngineFacts, Phase, engine_facts

STATEFUL_SET: dict[str, Any] = {
    "metadata": {"generation": 2},
    "spec": {"replicas": 1},
    "status": {"observedGeneration": 2, "updateRevision": "r2"},
}


def wanted(block: dict[str, Any] | None = None) -> EngineSpec:
    body = {"metadata": {"name": "demo", "namespace": "team"}, "spec": {"mongodb": block or {}}}
    return spec.decode(body).engines[Engine.MONGODB]


def pod(
    *,
    ready: bool = False,
    scheduled: str = "True",
    revision: str = "r2",
    **status: Any,
) -> dict[str, Any]:
    conditions = [
        {"type": "PodScheduled", "status": scheduled, "message": "0/1 nodes are available"},
        {"type": "Ready", "status": "True" if ready else "False"},
    ]
    return {
        "metadata": {"labels": {"controller-revision-hash": revision}},
        "status": {"conditions": conditions, **status},
    }


def waiting(reason: str, message: str = "", **more: Any) -> list[dict[str, Any]]:
    return [{"state": {"waiting": {"reason": reason, "message": message}}, **more}]


def seen(
    live: dict[str, Any] | None, *, provisioned: bool = True, message: str = ""
) -> EngineFacts:
    return engine_facts(wanted(), STATEFUL_SET, live, provisioned, message)


def test_storage_and_resources_are_shown_with_their_defaults() -> None:
    facts = engine_facts(
        wanted({"storage": {"storageClassName": "fast"}}), STATEFUL_SET, pod(ready=True), True
    )

    default = wanted()
    assert facts.storage == {"size": default.storage.size, "storageClassName": "fast"}
    assert facts.resources["limits"]["memory"] == default.resources.limits["memory"]
    assert facts.resources["requests"] == default.resources.requests


def test_a_disabled_engine_says_nothing_else() -> None:
    facts = engine_facts(wanted({"enabled": False}), STATEFUL_SET, pod(ready=True), True, "")

    assert facts == EngineFacts(engine=Engine.MONGODB, phase=Phase.DISABLED)


def test_an_external_engine_is_where_the_spec_says() -> None:
    facts = engine_facts(wanted({"external": {"host": "db"}}), None, None, False, "")

    assert (facts.phase, facts.endpoint) == (Phase.EXTERNAL, "db:27017")
    assert facts.secret_name == "demo-mongodb-app"


def test_a_ready_pod_that_is_provisioned_is_a_ready_engine() -> None:
    facts = seen(pod(ready=True))

    assert (facts.phase, facts.message) == (Phase.READY, "")
    assert facts.endpoint == "demo-mongodb.team.svc.cluster.local:27017"
    assert facts.image == "mongo:8.0.29"


def test_a_ready_pod_whose_roles_are_missing_is_provisioning() -> None:
    facts = seen(pod(ready=True), provisioned=False, message="the login was refused")

    assert (facts.phase, facts.message) == (Phase.PROVISIONING, "the login was refused")


@pytest.mark.parametrize(
    ("stateful_set", "live"),
    [
        (None, None),
        (STATEFUL_SET, None),
        ({**STATEFUL_SET, "spec": {"replicas": 0}}, None),
        (STATEFUL_SET, pod(scheduled="False")),
        (STATEFUL_SET, pod(scheduled="Unknown")),
    ],
    ids=["no-set", "no-pod", "hibernated", "unschedulable", "unscheduled"],
)
def test_without_a_pod_on_a_node_it_is_pending(
    stateful_set: dict[str, Any] | None, live: dict[str, Any] | None
) -> None:
    facts = engine_facts(wanted(), stateful_set, live, False, "")

    assert facts.phase is Phase.PENDING
    assert facts.message


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        (pod(), "Starting"),
        (pod(ready=True, revision="r1"), "RollingOut"),
        (pod(containerStatuses=waiting("ContainerCreating")), "Starting"),
        (
            pod(containerStatuses=waiting("CreateContainerConfigError", "no secret")),
            "CreateContainerConfigError",
        ),
    ],
    ids=["starting", "old-revision", "creating", "config-error"],
)
def test_a_pod_on_its_way_is_provisioning(live: dict[str, Any], reason: str) -> None:
    facts = seen(live)

    assert (facts.phase, facts.reason) == (Phase.PROVISIONING, reason)


def test_a_stateful_set_that_its_controller_has_not_seen_is_rolling_out() -> None:
    ahead = {**STATEFUL_SET, "metadata": {"generation": 3}}

    facts = engine_facts(wanted(), ahead, pod(ready=True), True, "")

    assert facts.reason == "RollingOut"


@pytest.mark.parametrize("place", ["containerStatuses", "initContainerStatuses"])
def test_the_kubelets_two_words_for_a_missing_image_read_the_same(place: str) -> None:
    facts = {seen(pod(**{place: waiting(word)})) for word in ("ErrImagePull", "ImagePullBackOff")}

    (found,) = facts
    assert (found.phase, found.reason, found.stalled) == (Phase.FAILED, "ImagePullFailed", False)
    assert found.message == "the image mongo:8.0.29 cannot be pulled"


def test_an_impossible_image_name_waits_for_the_user() -> None:
    facts = seen(pod(containerStatuses=waiting("InvalidImageName")))

    assert (facts.phase, facts.stalled) == (Phase.FAILED, True)


def test_a_crash_loop_names_the_exit_code() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}

    facts = seen(pod(containerStatuses=waiting("CrashLoopBackOff", lastState=ended)))

    assert (facts.phase, facts.reason) == (Phase.FAILED, "CrashLoopBackOff")
    assert facts.message == "the container keeps ending, last with exit code 137 (OOMKilled)"


@pytest.mark.parametrize(
    ("restarts", "finished", "started", "phase"),
    [
        (3, "2026-01-01T00:00:05Z", False, Phase.FAILED),
        (2, "2026-01-01T00:00:05Z", False, Phase.PROVISIONING),
        (3, "2026-01-01T01:00:00Z", False, Phase.PROVISIONING),
        (3, "2026-01-01T00:00:05Z", True, Phase.PROVISIONING),
    ],
    ids=["crashes-at-once", "has-crashed-twice", "ran-for-an-hour", "is-through-its-start"],
)
def test_between_two_crashes_it_is_still_crashing(
    restarts: int, finished: str, started: bool, phase: Phase
) -> None:
    ended = {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": finished}
    container = {
        "state": {"running": {}},
        "ready": False,
        "started": started,
        "restartCount": restarts,
        "lastState": {"terminated": ended},
    }

    assert seen(pod(containerStatuses=[container])).phase is phase
