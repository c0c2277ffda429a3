"""What goes wrong on a real node: a broken image, a deleted platform, an operator that is away.

Each test has a namespace and a small platform of its own (one or two engines), so that none
waits for another's.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e import steps
from e2e.steps import ENGINES, Kube

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


def resource(name: str, *engines: str, **spec: Any) -> dict[str, Any]:
    """A Plan2Database with only those engines enabled."""
    off = {engine: {"enabled": False} for engine in ENGINES if engine not in engines}
    blocks = {engine: spec.pop(engine, {}) for engine in engines}
    return {
        "apiVersion": "plan2.io/v1alpha1",
        "kind": "Plan2Database",
        "metadata": {"name": name},
        "spec": {**off, **blocks, **spec},
    }


@pytest.fixture
def namespace(installed: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "e2e-" + request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    installed.namespace(name)
    yield name
    installed.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")


def wait_ready(kube: Kube, namespace: str, name: str, seconds: int = 180) -> None:
    kube.kubectl(
        "wait",
        "--for=condition=Ready",
        f"p2db/{name}",
        f"--namespace={namespace}",
        f"--timeout={seconds}s",
        timeout=seconds + 20,
    )


def password(kube: Kube, namespace: str, name: str, engine: str) -> str:
    secret = kube.get(f"secret/{name}-{engine}-admin", f"--namespace={namespace}")
    return str(secret["data"]["password"])


def test_an_engine_with_a_broken_image_is_named_and_the_others_are_ready(
    installed: Kube, namespace: str
) -> None:
    broken = {"image": "localhost/plan2-test/nowhere:dev", "imagePullPolicy": "Never"}
    installed.apply(
        resource("broken", "postgresql", "dragonflydb", dragonflydb=broken),
        f"--namespace={namespace}",
    )

    def degraded() -> dict[str, Any] | None:
        seen = steps.status(installed, namespace, "broken")
        settled = seen.get("engines", {}).get("postgresql", {}).get("phase") == "Ready"
        return seen if settled and seen.get("phase") == "Degraded" else None

    seen = steps.wait_until("Degraded with the other Ready", degraded, seconds=180)

    ready = steps.condition(seen, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "EnginesNotReady")
    assert "dragonflydb" in ready["message"]
    assert "postgresql" not in ready["message"]


def test_retain_leaves_the_volume_and_a_new_resource_adopts_it(
    installed: Kube, namespace: str
) -> None:
    in_namespace = f"--namespace={namespace}"
    installed.apply(resource("kept", "dragonflydb"), in_namespace)
    wait_ready(installed, namespace, "kept")
    before = password(installed, namespace, "kept", "dragonflydb")
    installed.kubectl("delete", "p2db", "kept", in_namespace, "--timeout=60s")
    steps.wait_until(
        "the StatefulSet is gone",
        lambda: installed.find("statefulset", "kept-dragonflydb", in_namespace) is None,
        seconds=90,
    )

    claim = installed.find("pvc", "data-kept-dragonflydb-0", in_namespace)
    installed.apply(resource("kept", "dragonflydb"), in_namespace)
    wait_ready(installed, namespace, "kept")

    assert claim is not None
    again = installed.get("pvc", "data-kept-dragonflydb-0", in_namespace)
    assert again["metadata"]["uid"] == claim["metadata"]["uid"]
    assert password(installed, namespace, "kept", "dragonflydb") == before


def test_delete_removes_the_volume_and_the_passwords(installed: Kube, namespace: str) -> None:
    in_namespace = f"--namespace={namespace}"
    installed.apply(resource("gone", "dragonflydb", deletionPolicy="Delete"), in_namespace)
    wait_ready(installed, namespace, "gone")

    installed.kubectl("delete", "p2db", "gone", in_namespace, "--timeout=60s")

    steps.wait_until(
        "the volume and the Secrets are gone",
        lambda: (
            not installed.get("pvc,secrets", in_namespace, "-l", "app.kubernetes.io/instance=gone")[
                "items"
            ]
            and installed.find("pvc", "data-gone-dragonflydb-0", in_namespace) is None
        ),
        seconds=120,
    )


def test_a_namespace_is_deleted_while_the_operator_is_down(installed: Kube, namespace: str) -> None:
    installed.apply(resource("left", "dragonflydb"), f"--namespace={namespace}")
    wait_ready(installed, namespace, "left")
    operator = ("deployment", "plan2-operator", f"--namespace={steps.OPERATOR_NAMESPACE}")
    installed.kubectl("scale", *operator, "--replicas=0")
    try:
        installed.kubectl("delete", "namespace", namespace, "--timeout=120s", timeout=150)
    finally:
        installed.kubectl("scale", *operator, "--replicas=1")
        installed.kubectl("rollout", "status", *operator, "--timeout=120s")

    assert installed.find("namespace", namespace) is None


def test_a_killed_operator_ends_at_ready_with_each_password_generated_once(
    installed: Kube, namespace: str
) -> None:
    in_namespace = f"--namespace={namespace}"
    operators = (
        f"--namespace={steps.OPERATOR_NAMESPACE}",
        "-l",
        "app.kubernetes.io/component=operator",
    )
    installed.apply(resource("killed", "postgresql", "dragonflydb"), in_namespace)
    seen: dict[str, set[str]] = {"postgresql": set(), "dragonflydb": set()}

    for _ in range(3):
        installed.kubectl("delete", "pods", *operators, "--grace-period=0", "--force")
        for engine, passwords in seen.items():
            secret = installed.find("secret", f"killed-{engine}-admin", in_namespace)
            if secret:
                passwords.add(secret["data"]["password"])
    wait_ready(installed, namespace, "killed", 240)

    for engine, passwords in seen.items():
        passwords.add(password(installed, namespace, "killed", engine))
        assert len(passwords) == 1, engine
