"""What the labelled pods and the engines' pods say, read from plain objects."""

from typing import Any

import pytest

from plan2_contract import names
from plan2_contract.engines import Engine
from plan2_operator import observe

CURRENT = "abc"


def pod(
    *containers: str,
    namespace: str = "trading",
    phase: str = "Running",
    stamp: str = CURRENT,
    native: bool = False,
    **spec: Any,
) -> dict[str, Any]:
    listed = [{"name": name} for name in containers]
    sidecar = [{"name": names.SIDECAR_CONTAINER}]
    return {
        "metadata": {
            "name": "app",
            "namespace": namespace,
            "annotations": {names.ANNOTATION_INJECTED: stamp},
        },
        "spec": {"containers": listed, "initContainers": sidecar if native else [], **spec},
        "status": {"phase": phase},
    }


def count(*pods: dict[str, Any]) -> tuple[int, int, int]:
    seen = observe.sidecars(pods, fingerprint=CURRENT, operator_namespace="plan2-system")
    return seen.injected, seen.outdated, len(seen.missed)


def test_a_native_sidecar_counts_as_injected() -> None:
    assert count(pod("app", native=True)) == (1, 0, 0)


def test_a_labelled_pod_without_a_sidecar_was_missed() -> None:
    assert count(pod("app")) == (0, 0, 1)


def test_a_sidecar_of_another_hash_is_outdated() -> None:
    assert count(pod("app", native=True, stamp="older")) == (1, 1, 0)


@pytest.mark.parametrize(
    "left_alone",
    [
        pod("app", namespace="kube-system"),
        pod("app", namespace="plan2-system"),
        pod("app", hostNetwork=True),
        pod("app", phase="Succeeded"),
        pod("app", phase="Failed"),
    ],
    ids=["system namespace", "own namespace", "host network", "finished", "failed"],
)
def test_pods_that_are_never_injected_or_are_over_were_not_missed(
    left_alone: dict[str, Any],
) -> None:
    assert count(left_alone) == (0, 0, 0)


def test_a_pod_that_is_going_is_not_counted() -> None:
    going = pod("app", native=True)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert count(going) == (0, 0, 0)


def test_an_injected_pod_that_does_not_run_yet_shares_no_connections() -> None:
    assert count(pod("app", native=True, phase="Pending")) == (0, 0, 0)


def test_an_engine_is_up_when_its_container_runs_ready_or_not() -> None:
    running = {"state": {"running": {}}, "ready": False}
    live = {"status": {"phase": "Running", "containerStatuses": [running]}}

    assert observe.is_up(live)
    assert not observe.is_up(None)
    assert not observe.is_up({"status": {"phase": "Pending"}})
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    assert not observe.is_up({"status": {"phase": "Running", "containerStatuses": [waiting]}})


def test_an_objects_engine_is_read_off_its_label() -> None:
    labels = names.labels("prices", Engine.MONGODB)

    assert observe.engine_of({"metadata": {"labels": labels}}) is Engine.MONGODB
    assert observe.engine_of({"metadata": {"labels": names.shared_labels("prices")}}) is None
    assert observe.engine_of({"metadata": {}}) is None


def test_a_namespace_that_the_injector_was_told_to_leave_alone_misses_nothing() -> None:
    seen = observe.sidecars(
        (pod("app", namespace="secret-place"),),
        fingerprint=CURRENT,
        operator_namespace="plan2-system",
        excluded_namespaces=("secret-place",),
    )

    assert seen.missed == ()
