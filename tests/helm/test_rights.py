"""The operator's own process with the rights the chart gives it and no others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, free_ports
from fixtures.fix_helm import Helm, Kubectl
from plan2_contract import names
from plan2_contract.engines import SIX

pytestmark = pytest.mark.cluster

SECONDS = 180
NAMESPACE = "team-a"


@pytest.mark.parametrize("watched", [[], [NAMESPACE]], ids=["the cluster", "one namespace"])
def test_the_operator_makes_everything_with_the_charts_rights_alone(
    helm: Helm, tmp_path: Path, watched: list[str]
) -> None:
    with ControlPlane() as running:
        kubectl = Kubectl(running.kubeconfig)
        install(kubectl, helm.objects({"watchNamespaces": watched}))
        log = tmp_path / "operator.log"
        kubeconfig = kubectl.as_service_account(
            "plan2-operator", "plan2-system", tmp_path / "kubeconfig"
        )
        process = start(kubeconfig, watched, log)
        try:
            made = wait_for_platform(kubectl, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)

    assert made == {names.engine_object("aitrading", engine) for engine in SIX}
    assert "forbidden" not in log.read_text().lower()


def install(kubectl: Kubectl, objects: list[dict[str, Any]]) -> None:
    """The chart but for its Deployments, and a resource to work on."""
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in ("plan2-system", NAMESPACE)
    ]
    kept = [one for one in objects if one["kind"] not in ("Deployment", "PodDisruptionBudget")]
    text = yaml.safe_dump_all([*spaces, *kept])
    kubectl("apply", "--server-side", "--filename=-", stdin=text)
    kubectl.wait_for_definitions()
    resource = {
        "apiVersion": "plan2.io/v1alpha1",
        "kind": "Plan2Database",
        "metadata": {"name": "aitrading", "namespace": NAMESPACE},
        "spec": {},
    }
    kubectl("apply", "--filename=-", stdin=json.dumps(resource))


def start(kubeconfig: Path, watched: list[str], log: Path) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "NO_PROXY": "127.0.0.1,localhost",
        "PLAN2_WATCH_NAMESPACES": ",".join(watched),
        "PLAN2_OPERATOR_NAMESPACE": "plan2-system",
        "PLAN2_HEALTH_HOST": "127.0.0.1",
        "PLAN2_HEALTH_PORT": str(free_ports(1)[0]),
    }
    command = [sys.executable, "-m", "plan2_operator"]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.STDOUT)


def wait_for_platform(kubectl: Kubectl, log: Path) -> set[str]:
    """The StatefulSets, once the connection Secret and a status stand beside them."""
    here = f"--namespace={NAMESPACE}"
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        sets = json.loads(kubectl("get", "statefulsets", here, "--output=json"))["items"]
        found = {one["metadata"]["name"] for one in sets}
        secret = kubectl.run("get", "secret", "aitrading-connection", here, check=False)
        status = kubectl("get", "p2db", "aitrading", here, "--output=jsonpath={.status.phase}")
        if len(found) == len(SIX) and secret.returncode == 0 and status:
            return found
        time.sleep(0.5)
    pytest.fail(f"not made in {SECONDS} s\n{log.read_text()[-4000:]}")
