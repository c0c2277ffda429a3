"""Injection on a real node: who gets a sidecar, who does not, and what happens without one."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e import steps
from e2e.steps import Kube

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

NAMESPACE = "e2e-injection"
IN_NAMESPACE = f"--namespace={NAMESPACE}"
INJECTOR = ("deployment", "plan2-injector", f"--namespace={steps.OPERATOR_NAMESPACE}")


@pytest.fixture(scope="module")
def kube(installed: Kube) -> Iterator[Kube]:
    installed.namespace(NAMESPACE)
    yield installed
    installed.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


def pod(name: str, *, label: bool, **spec: Any) -> dict[str, Any]:
    """A pod that sleeps; labelled for a platform nobody has made."""
    container = {
        "name": "app",
        "image": steps.SAMPLE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
    }
    labels = {"plan2.io/inject": "nobody"} if label else {"app": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }


def sidecars(kube: Kube, name: str, namespace: str = NAMESPACE) -> list[str]:
    found = kube.get("pod", name, f"--namespace={namespace}")["spec"].get("initContainers", [])
    return [container["name"] for container in found]


def test_a_pod_without_the_label_is_untouched(kube: Kube) -> None:
    kube.apply(pod("plain", label=False), IN_NAMESPACE)

    assert sidecars(kube, "plain") == []


def test_a_labelled_pod_runs_with_its_sidecar_even_when_the_platform_is_unknown(
    kube: Kube,
) -> None:
    kube.apply(pod("early", label=True), IN_NAMESPACE)

    kube.kubectl("wait", "--for=condition=Ready", "pod/early", IN_NAMESPACE, "--timeout=90s")

    assert sidecars(kube, "early") == ["plan2-sidecar"]


def test_a_pod_on_the_host_network_is_untouched(kube: Kube) -> None:
    kube.apply(pod("hosted", label=True, hostNetwork=True), IN_NAMESPACE)

    assert sidecars(kube, "hosted") == []


def test_a_labelled_pod_in_a_system_namespace_is_untouched(kube: Kube) -> None:
    kube.apply(pod("system", label=True), "--namespace=kube-system")
    try:
        assert sidecars(kube, "system", "kube-system") == []
    finally:
        kube.kubectl("delete", "pod", "system", "--namespace=kube-system", "--wait=false")


def test_with_the_injector_down_a_labelled_pod_starts_and_is_reported(kube: Kube) -> None:
    from e2e.test_failures import resource

    kube.apply(resource("nobody", deletionPolicy="Delete"), IN_NAMESPACE)
    kube.kubectl("scale", *INJECTOR, "--replicas=0")
    injectors = (
        f"--namespace={steps.OPERATOR_NAMESPACE}",
        "-l",
        "app.kubernetes.io/component=injector",
    )
    steps.wait_until(
        "no injector answers any more",
        lambda: not kube.get("pods", *injectors)["items"],
        seconds=90,
    )
    try:
        kube.apply(pod("missed", label=True), IN_NAMESPACE)
        kube.kubectl("wait", "--for=condition=Ready", "pod/missed", IN_NAMESPACE, "--timeout=90s")

        reported = steps.wait_until(
            "the missed pod is reported",
            lambda: steps.status(kube, NAMESPACE, "nobody").get("sidecars", {}).get("missed"),
            seconds=90,
        )
    finally:
        kube.kubectl("scale", *INJECTOR, "--replicas=2")
        kube.kubectl("rollout", "status", *INJECTOR, "--timeout=120s")

    assert sidecars(kube, "missed") == []
    assert reported == 1
