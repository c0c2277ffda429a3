"""The CRD on a real API server, and the manifests of every engine as that server takes them."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, control_plane_binaries
from fixtures.refused_specs import REFUSED, Refused
from plan2_contract.engines import Engine
from plan2_operator import desired, spec

pytestmark = pytest.mark.cluster

CRD = Path(__file__).parents[2] / "crds" / "plan2databases.yaml"
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
ESTABLISHED = ("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRD}")


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    def run(*arguments: str, given: object = None) -> "subprocess.CompletedProcess[str]":
        program = control_plane_binaries()["kubectl"]
        return subprocess.run(
            [program, f"--kubeconfig={control_plane.kubeconfig}", *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=None if given is None else json.dumps(given),
            timeout=60,
        )

    applied = run("apply", "--server-side", "--filename", str(CRD))
    assert applied.returncode == 0, applied.stderr
    # kubectl wait fails on a definition that has no conditions yet, so it is asked again.
    waited = run(*ESTABLISHED)
    for _ in range(30):
        if waited.returncode == 0:
            break
        time.sleep(1)
        waited = run(*ESTABLISHED)
    assert waited.returncode == 0, waited.stderr
    return run


@pytest.fixture
def apply(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Server-side apply of a resource's spec; the resource is gone after the test."""

    def run(
        written: dict[str, Any] | None, name: str = "demo"
    ) -> "subprocess.CompletedProcess[str]":
        body = {
            "apiVersion": "plan2.io/v1alpha1",
            "kind": "Plan2Database",
            "metadata": {"name": name, "namespace": "default"},
        }
        if written is not None:
            body["spec"] = written
        return kubectl("apply", "--server-side", "--filename=-", given=body)

    yield run
    kubectl("delete", "plan2databases", "--all", "--namespace=default", "--wait=false")


def live(kubectl: Kubectl, name: str = "demo") -> dict[str, Any]:
    answer = kubectl("get", "p2db", name, "--namespace=default", "--output=json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize("written", [{}, None], ids=["empty-spec", "no-spec"])
def test_an_empty_spec_is_the_six_engines(
    kubectl: Kubectl, apply: Kubectl, written: dict[str, Any] | None
) -> None:
    assert apply(written).returncode == 0

    stored = live(kubectl)

    assert {name for name, block in stored["spec"].items() if block == {"enabled": True}} == {
        engine.value for engine in Engine if engine is not Engine.REDIS
    }
    assert stored["spec"]["redis"] == {"enabled": False}
    assert stored["spec"]["deletionPolicy"] == "Retain"
    assert (stored["spec"]["paused"], stored["spec"]["hibernate"]) == (False, False)
    assert len(spec.decode(stored).enabled()) == 6


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_what_breaks_a_rule_is_refused_with_its_field_named(apply: Kubectl, case: Refused) -> None:
    answer = apply(case.spec, case.name)

    assert answer.returncode != 0
    assert f"{case.field}" in answer.stderr
    assert case.message is None or case.message in answer.stderr


@pytest.mark.parametrize(
    "written",
    [{"postgres": {}}, {"postgresql": {"replicas": 3}}, {"redis": {"external": {"grpcPort": 1}}}],
    ids=["unknown-engine", "unknown-field", "field-of-another-engine"],
)
def test_an_unknown_field_is_refused(apply: Kubectl, written: dict[str, Any]) -> None:
    answer = apply(written)

    assert answer.returncode != 0
    assert "field not declared in schema" in answer.stderr


@pytest.mark.parametrize(
    ("before", "after", "field", "message"),
    [
        (
            {"postgresql": {"storage": {"size": "20Gi"}}},
            {"postgresql": {"storage": {"size": "19Gi"}}},
            "spec.postgresql.storage.size",
            "cannot shrink: a volume only grows",
        ),
        (
            {},
            {"mongodb": {"storage": {"size": "9.5Gi"}}},
            "spec.mongodb.storage.size",
            "cannot shrink: a volume only grows",
        ),
        (
            {"redis": {"storage": {"size": "3Gi"}}},
            {"redis": {}},
            "spec.redis.storage.size",
            "cannot shrink: a volume only grows",
        ),
        (
            {},
            {"clickhouse": {"database": "other"}},
            "spec.clickhouse.database",
            "is immutable",
        ),
        (
            {"arangodb": {"storage": {"storageClassName": "fast"}}},
            {"arangodb": {"storage": {"storageClassName": "slow"}}},
            "spec.arangodb.storage.storageClassName",
            "is immutable",
        ),
    ],
    ids=["shrink", "shrink-below-default", "shrink-to-default", "database", "storage-class"],
)
def test_what_cannot_change_is_refused_with_its_field_named(
    apply: Kubectl, before: dict[str, Any], after: dict[str, Any], field: str, message: str
) -> None:
    assert apply(before).returncode == 0

    answer = apply(after)

    assert answer.returncode != 0
    assert field in answer.stderr
    assert message in answer.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"postgresql": {"storage": {"size": "11Gi"}}}),
        ({}, {"clickhouse": {"database": "aitrading_analytics"}}),
        ({}, {"mongodb": {"external": {"host": "db.example.com"}, "database": "other"}}),
        ({"redis": {}}, {"redis": {"enabled": True, "storage": {"storageClassName": "fast"}}}),
    ],
    ids=["growth", "the-default-by-name", "to-external", "class-before-first-use"],
)
def test_what_may_change_is_taken(
    apply: Kubectl, before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert apply(before).returncode == 0

    answer = apply(after)

    assert answer.returncode == 0, answer.stderr


def test_status_is_a_subresource_that_the_columns_show(kubectl: Kubectl, apply: Kubectl) -> None:
    assert apply({}).returncode == 0
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "EnginesReady",
        "message": "all 6 engines are ready",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"phase": "Ready", "enginesReady": "6/6", "conditions": [condition]}

    patch = json.dumps({"spec": {"paused": True}, "status": status})
    kubectl("patch", "p2db", "demo", "--type=merge", "--subresource=status", f"--patch={patch}")
    shown = kubectl("get", "p2db", "demo", "--no-headers").stdout.split()

    assert shown[:4] == ["demo", "True", "Ready", "6/6"]
    assert live(kubectl)["spec"]["paused"] is False


@pytest.mark.parametrize("engine", list(Engine), ids=lambda engine: engine.value)
def test_applying_an_engine_twice_changes_nothing(
    kubectl: Kubectl, apply: Kubectl, engine: Engine
) -> None:
    assert apply({"redis": {"enabled": True}}).returncode == 0
    objects = desired.objects(spec.decode(live(kubectl)))[engine]
    bundle = {"apiVersion": "v1", "kind": "List", "items": objects}
    command = (
        "apply",
        "--server-side",
        "--field-manager=plan2-operator",
        "--validate=strict",
        "--filename=-",
        "--output=json",
    )

    versions = []
    for _ in range(2):
        answer = kubectl(*command, given=bundle)
        assert answer.returncode == 0, answer.stderr
        applied = json.loads(answer.stdout)["items"]
        versions.append({each["kind"]: each["metadata"]["resourceVersion"] for each in applied})

    assert versions[0] == versions[1]
    assert len(versions[0]) >= 4


def test_the_pods_pass_the_restricted_profile(kubectl: Kubectl, apply: Kubectl) -> None:
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "restricted",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    assert kubectl("apply", "--filename=-", given=namespace).returncode == 0
    assert apply({"redis": {"enabled": True}}).returncode == 0
    platform = spec.decode(live(kubectl))
    templates = [
        made["spec"]["template"]
        for objects in desired.objects(platform).values()
        for made in objects
        if made["kind"] == "StatefulSet"
    ]

    for number, template in enumerate(templates):
        volume = {"name": "data", "emptyDir": {}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": f"pod-{number}",
                "namespace": "restricted",
            },
            "spec": {
                **template["spec"],
                "volumes": [*template["spec"]["volumes"], volume],
            },
        }
        answer = kubectl("create", "--dry-run=server", "--filename=-", given=pod)
        assert answer.returncode == 0, answer.stderr

    assert len(templates) == 7


def test_the_definition_is_small_enough_for_a_client_side_apply() -> None:
    assert len(json.dumps(yaml.safe_load(CRD.read_text()))) < 200_000
