"""The node: it comes up, runs pods, survives a kill of everything, and leaves nothing behind.

These tests end the machine's node, so a node that runs already is left alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import cleanup, host, kinds, processes
from cluster.control_plane import control_plane_binaries
from cluster.layout import CNI_NETWORK, NODE_BRIDGE, PROGRAMS, SHELL_IMAGE, layout
from cluster.node import Node

pytestmark = pytest.mark.node

CLI = Path(__file__).with_name("cli.py")
POD_SECONDS = 90


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[dict[str, Any]]:
    """What the machine is like without a node, which is how it is left."""
    if kinds.chosen().name != "node":
        pytest.skip("another kind of cluster is chosen: set PLAN2_CLUSTER=node")
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    if Node().exists():
        pytest.skip("a node is up already and would be ended: make cluster-down first")
    yield traces()
    Node().down()


def traces() -> dict[str, Any]:
    """Everything of a machine that a node changes."""
    links = json.loads(output("ip", "-json", "link", "show"))
    return {
        "interfaces": sorted(link["ifname"] for link in links),
        "firewall": [rule for command in ("iptables", "ip6tables") for rule in rules(command)],
        "mounts": [
            point
            for folder in (layout().state, *map(Path, host.SHARED_FOLDERS), Path("/run/netns"))
            for point in host.mount_points(folder)
        ],
        "settings": host.look().settings,
        "absent": host.look().absent,
        "cgroups": cleanup.cgroup_roots(),
        "pods": cleanup.contained(),
        "programs": processes.marked(layout().state),
        "state": layout().state.exists(),
    }


def rules(family: str) -> list[str]:
    """What a node's programs wrote; an image that is built meanwhile has rules of its own."""
    ours = re.compile(f"KUBE-|CNI-HOSTPORT-|{CNI_NETWORK}")
    return [
        line.split(" [")[0] for line in output(f"{family}-save").splitlines() if ours.search(line)
    ]


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kubectl(*arguments: str, text: str | None = None) -> str:
    return subprocess.run(
        [control_plane_binaries()["kubectl"], f"--kubeconfig={Node().kubeconfig}", *arguments],
        check=True,
        capture_output=True,
        text=True,
        input=text,
    ).stdout


def run_pod_with_volume(name: str) -> None:
    """Run a pod that writes to a dynamic volume, and wait until it is Ready."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    container = {
        "name": "app",
        "image": SHELL_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo written > /data/file; sleep 3600"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        },
    }
    items = {"apiVersion": "v1", "kind": "List", "items": [claim, pod]}
    kubectl("apply", "--filename=-", text=json.dumps(items))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={POD_SECONDS}s")


def up(until: str | None = None) -> int:
    """Run `cli.py up` and return its exit code; kill it once it has said `until`."""
    command = [sys.executable, str(CLI), "up"]
    environment = {**os.environ, "PLAN2_CLUSTER": "node"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr or ():
            if until is not None and until in line:
                process.kill()
    return process.returncode


def test_runs_a_pod_with_a_volume_a_name_and_a_shell() -> None:
    assert up() == 0

    run_pod_with_volume("first")

    inside = kubectl("exec", "first", "--", "cat", "/data/file")
    name = kubectl("exec", "first", "--", "nslookup", "kubernetes.default.svc.cluster.local")
    assert inside == "written\n"
    assert "10.96.0.1" in name


def test_an_image_that_was_not_loaded_is_not_pulled() -> None:
    kubectl("run", "pulling", "--image=docker.io/library/busybox:1")

    def warnings() -> str:
        return kubectl("events", "--for=pod/pulling", "--types=Warning")

    limit = time.monotonic() + POD_SECONDS
    while "Failed to pull image" not in warnings() and time.monotonic() < limit:
        time.sleep(0.5)
    assert "127.0.0.1:9: connect: connection refused" in warnings()


def test_up_over_a_running_node_changes_nothing() -> None:
    before = processes.marked(layout().state)

    assert up() == 0

    assert processes.marked(layout().state) == before


def test_starts_cleanly_after_everything_was_killed() -> None:
    killed = [*processes.marked(layout().state), *cleanup.contained()]
    assert len(killed) > len(PROGRAMS)
    for identity in killed:
        processes.send(identity, signal.SIGKILL)
    assert not Node().is_up()

    assert up() == 0

    run_pod_with_volume("second")
    assert "first" not in kubectl("get", "pods", "--output=name")


@pytest.mark.parametrize("step", ["containerd:", "kube-apiserver:", "coredns"])
def test_starts_cleanly_after_a_start_that_was_killed_half_way(step: str) -> None:
    Node().down()

    assert up(until=step) == -signal.SIGKILL

    assert up() == 0
    assert len(processes.marked(layout().state)) == len(PROGRAMS)


def test_one_dead_program_makes_the_next_up_start_anew() -> None:
    proxy = processes.running(processes.record_of(layout().state, "kube-proxy"))
    assert proxy is not None
    processes.stop([proxy])

    assert up() == 0

    assert Node().is_up()


def test_down_leaves_nothing_of_a_node_that_ran_pods(machine: dict[str, Any]) -> None:
    run_pod_with_volume("third")
    assert NODE_BRIDGE in traces()["interfaces"]

    Node().down()

    assert traces() == machine
    assert not Node().exists()


def test_down_leaves_nothing_of_a_node_that_was_killed(machine: dict[str, Any]) -> None:
    assert up() == 0
    run_pod_with_volume("fourth")
    for identity in [*processes.marked(layout().state), *cleanup.contained()]:
        processes.send(identity, signal.SIGKILL)

    Node().down()

    assert traces() == machine
