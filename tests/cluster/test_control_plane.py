"""The control plane alone: it starts, answers, stands beside others, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import processes
from cluster.control_plane import ControlPlane, control_plane_binaries

pytestmark = pytest.mark.cluster


def kubectl(kubeconfig: Path, *arguments: str, text: str | None = None) -> str:
    return subprocess.run(
        [control_plane_binaries()["kubectl"], f"--kubeconfig={kubeconfig}", *arguments],
        check=True,
        capture_output=True,
        text=True,
        input=text,
    ).stdout


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def test_answers_with_the_version_that_was_built(control_plane: ControlPlane) -> None:
    version = json.loads(kubectl(control_plane.kubeconfig, "version", "--output=json"))

    assert version["serverVersion"]["gitVersion"] == "v1.37.2"


def test_a_second_one_beside_it_has_its_own_objects(control_plane: ControlPlane) -> None:
    with ControlPlane() as other:
        kubectl(other.kubeconfig, "create", "configmap", "only-there")

        listed = kubectl(control_plane.kubeconfig, "get", "configmaps", "--output=name")

    assert "only-there" not in listed


def test_leaves_neither_process_nor_file() -> None:
    with ControlPlane() as running:
        folder = running.folder
        assert len(processes.marked(folder)) == 2

    assert processes.marked(folder) == []
    assert not folder.exists()


def test_what_a_killed_test_run_left_is_ended_by_the_next() -> None:
    script = (
        "import os, signal\n"
        "from cluster.control_plane import ControlPlane\n"
        "with ControlPlane() as running:\n"
        "    print(running.folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    folder = Path(killed.stdout.strip())
    assert killed.returncode == -signal.SIGKILL
    assert len(processes.marked(folder)) == 2

    with ControlPlane():
        pass

    assert processes.marked(folder) == []
    assert not folder.exists()


def test_controllers_collect_what_lost_its_owner(
    control_plane_with_controllers: ControlPlane,
) -> None:
    kubeconfig = control_plane_with_controllers.kubeconfig
    kubectl(kubeconfig, "create", "configmap", "owner")
    uid = kubectl(kubeconfig, "get", "configmap", "owner", "--output=jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = config_map("owned", ownerReferences=[reference])
    kubectl(kubeconfig, "create", "--filename=-", text=json.dumps(owned))

    kubectl(kubeconfig, "delete", "configmap", "owner")

    kubectl(kubeconfig, "wait", "--for=delete", "configmap/owned", "--timeout=60s")
