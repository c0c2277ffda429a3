"""The examples' manifests, as an API server takes them."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, control_plane_binaries
from plan2_contract import names
from plan2_operator import spec
from plan2_operator.cluster import Cluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/kustomization.yaml"))
NAMESPACE = "examples"

Kubectl = Callable[..., str]
each = pytest.mark.parametrize("example", EXAMPLES, ids=[path.name for path in EXAMPLES])


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, api: Cluster) -> Kubectl:
    """What it printed, warnings too; `api` has brought the definition."""

    def run(*arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [
                control_plane_binaries()["kubectl"],
                f"--kubeconfig={control_plane.kubeconfig}",
                *arguments,
            ],
            check=False,
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    warned = "pod-security.kubernetes.io/warn"
    metadata = {"name": NAMESPACE, "labels": {warned: "restricted"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    run("apply", "--server-side", "--filename=-", given=yaml.safe_dump(namespace))
    return run


def rendered(kubectl: Kubectl, example: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kubectl("kustomize", str(example))))


@each
def test_an_api_server_takes_the_example_without_a_warning(example: Path, kubectl: Kubectl) -> None:
    text = kubectl("kustomize", str(example))

    said = kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        f"--namespace={NAMESPACE}",
        "--filename=-",
        "--output=name",
        given=text,
    )

    assert "Warning" not in said
    assert len(said.splitlines()) == len(list(yaml.safe_load_all(text)))


@each
def test_the_operator_takes_the_resource_and_every_pod_asks_for_its_sidecar(
    example: Path, kubectl: Kubectl
) -> None:
    objects = rendered(kubectl, example)
    (resource,) = [one for one in objects if one["kind"] == "Plan2Database"]
    metadata = {**resource["metadata"], "namespace": NAMESPACE, "uid": "u", "generation": 1}
    pods = [one["spec"]["template"] for one in objects if one["kind"] in ("Deployment", "Job")]

    decoded = spec.decode({**resource, "metadata": metadata})

    assert decoded.name == resource["metadata"]["name"]
    assert pods
    for pod in pods:
        assert pod["metadata"]["labels"][names.LABEL_INJECT] == decoded.name


@pytest.mark.parametrize(
    "file", sorted((ROOT / "examples").glob("*/Dockerfile")), ids=lambda file: file.parent.name
)
def test_what_a_dockerfile_copies_is_there(file: Path) -> None:
    copied = [line.split()[1] for line in file.read_text().splitlines() if line[:5] == "COPY "]

    assert copied
    assert not [source for source in copied if not list(ROOT.glob(source))]
