"""The main job on a real node: six engines from one resource, and a service that uses them all.

The tests share one installation and one resource (`fixtures.fix_installation`) and run in the
order they stand in; each leaves the platform Ready.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from e2e import steps
from e2e.steps import Kube
from fixtures.fix_installation import CR, NAMESPACE

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

OWNED_KINDS = "statefulsets,services,configmaps,poddisruptionbudgets,networkpolicies,secrets"
IN_NAMESPACE = f"--namespace={NAMESPACE}"
SELECTOR = f"--selector=app.kubernetes.io/managed-by=plan2-operator,app.kubernetes.io/instance={CR}"


def resource_versions(kube: Kube) -> dict[str, str]:
    items = kube.get(OWNED_KINDS, IN_NAMESPACE, SELECTOR)["items"]
    items += [kube.get("plan2database", CR, IN_NAMESPACE)]
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in items
    }


def test_all_six_engines_become_ready_and_kubectl_wait_works(platform: Kube) -> None:
    platform.kubectl("wait", "--for=condition=Ready", f"p2db/{CR}", IN_NAMESPACE, "--timeout=5s")

    row = platform.kubectl("get", "p2db", CR, IN_NAMESPACE, "--no-headers").split()
    seen = steps.status(platform, NAMESPACE, CR)

    assert row[:4] == [CR, "True", "Ready", "6/6"]
    assert {name: seen["engines"][name]["phase"] for name in steps.ENGINES} == dict.fromkeys(
        steps.ENGINES, "Ready"
    )
    assert seen["observedGeneration"] == 1


def test_a_service_with_one_label_uses_all_six_and_its_job_completes(platform: Kube) -> None:
    _database, config_map, job = steps.example(steps.SAMPLE_IMAGE)
    platform.kubectl("delete", "job", "trading-service", IN_NAMESPACE, "--ignore-not-found")

    platform.apply([config_map, job], IN_NAMESPACE)
    platform.kubectl(
        "wait", "--for=condition=Complete", "job/trading-service", IN_NAMESPACE, "--timeout=180s"
    )

    table = platform.kubectl("logs", "job/trading-service", "-c", "app", IN_NAMESPACE)
    assert "6 of 6 engines answered" in table
    (pod,) = platform.get("pods", IN_NAMESPACE, "-l", "job-name=trading-service")["items"]
    assert pod["status"]["phase"] == "Succeeded"
    assert "PASSWORD" not in str(pod["spec"]["containers"])


def test_nothing_is_written_while_nothing_changes(platform: Kube) -> None:
    time.sleep(5)
    before = resource_versions(platform)

    time.sleep(60)

    assert resource_versions(platform) == before


def test_applying_the_same_resource_again_changes_nothing(platform: Kube) -> None:
    before = resource_versions(platform)

    platform.apply(steps.example(steps.SAMPLE_IMAGE)[0], IN_NAMESPACE)
    time.sleep(5)

    assert resource_versions(platform) == before


@pytest.mark.parametrize(
    "name",
    [
        f"service/{CR}-weaviate",
        f"configmap/{CR}-postgresql",
        f"poddisruptionbudget/{CR}-mongodb",
        f"networkpolicy/{CR}-clickhouse",
        f"statefulset/{CR}-dragonflydb",
    ],
)
def test_a_deleted_object_is_back_within_ten_seconds(platform: Kube, name: str) -> None:
    uid = platform.get(name, IN_NAMESPACE)["metadata"]["uid"]

    platform.kubectl("delete", name, IN_NAMESPACE, "--wait=false")

    steps.wait_until(
        f"{name} is back",
        lambda: (
            (platform.find(name, IN_NAMESPACE) or {}).get("metadata", {}).get("uid", uid) != uid
        ),
        seconds=10,
        every=0.5,
    )


def test_a_deleted_secret_is_back_within_sixty_seconds_with_its_password(platform: Kube) -> None:
    name = f"secret/{CR}-postgresql-admin"
    password = platform.get(name, IN_NAMESPACE)["data"]["password"]

    platform.kubectl("delete", name, IN_NAMESPACE)

    back: dict[str, Any] = steps.wait_until(
        f"{name} is back", lambda: platform.find(name, IN_NAMESPACE), seconds=60
    )
    assert back["data"]["password"] == password


def test_drift_in_a_field_of_ours_is_undone_and_a_field_of_others_survives(platform: Kube) -> None:
    name = f"service/{CR}-clickhouse"
    wanted = platform.get(name, IN_NAMESPACE)["spec"]["ports"]
    platform.kubectl("annotate", name, IN_NAMESPACE, "--overwrite", "example.com/note=theirs")

    platform.kubectl(
        "patch",
        name,
        IN_NAMESPACE,
        "--type=json",
        '--patch=[{"op": "replace", "path": "/spec/ports/0/port", "value": 9999}]',
    )

    steps.wait_until(
        "the port is ours again",
        lambda: platform.get(name, IN_NAMESPACE)["spec"]["ports"] == wanted,
        seconds=10,
        every=0.5,
    )
    note = platform.get(name, IN_NAMESPACE)["metadata"]["annotations"]["example.com/note"]
    assert note == "theirs"


def test_a_killed_engine_comes_back_with_its_data(platform: Kube) -> None:
    platform.kubectl("wait", "--for=condition=Ready", f"p2db/{CR}", IN_NAMESPACE, "--timeout=120s")
    pod = f"pod/{CR}-postgresql-0"
    uid = platform.get(pod, IN_NAMESPACE)["metadata"]["uid"]
    platform.kubectl("delete", pod, IN_NAMESPACE, "--grace-period=1")
    steps.wait_until(
        "a new pod",
        lambda: (platform.find(pod, IN_NAMESPACE) or {}).get("metadata", {}).get("uid", uid) != uid,
        seconds=120,
    )
    platform.kubectl("wait", "--for=condition=Ready", pod, IN_NAMESPACE, "--timeout=180s")

    rows = platform.kubectl(
        "exec",
        f"{CR}-postgresql-0",
        IN_NAMESPACE,
        "-c",
        "postgresql",
        "--",
        "sh",
        "-c",
        "PGPASSWORD=$(cat /etc/plan2/admin/password) psql -h 127.0.0.1 -U postgres"
        " -d aitrading_operational -tAc 'SELECT count(*) FROM accounts'",
    )

    assert int(rows) >= 1


def test_the_demo_manifests_are_the_ones_in_the_example_folder() -> None:
    kinds = [manifest["kind"] for manifest in steps.example("image")]

    assert kinds == ["Plan2Database", "ConfigMap", "Job"]
    assert "plan2.io/inject: aitrading" in Path(steps.EXAMPLE / "service.yaml").read_text()
