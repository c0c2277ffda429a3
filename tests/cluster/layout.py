"""Where the node keeps its files, and the names and networks that are its own.

One node a machine: its bridges, networks and control group have fixed names, so that what a
killed run left is recognised as ours and as nobody else's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NODE_NAME = "plan2-node"
NODE_BRIDGE = "plan2-node0"
POD_BRIDGE = "plan2-pods0"
CGROUP = "plan2-node"
CNI_NETWORK = "plan2-node"

ADDRESS = "10.123.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"

API_PORT = 6443
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
PROXY_HEALTH_PORT = 10256
PROXY_METRICS_PORT = 10249
DNS_READY_PORT = 8181

PAUSE_IMAGE = "plan2.local/pause:1"
SHELL_IMAGE = "plan2.local/shell:1"
VOLUME_NAMESPACE = "local-path-storage"

# In the order they are started; every one must run for the node to be up.
PROGRAMS = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
    "kubelet",
    "local-path-provisioner",
)


@dataclass(frozen=True)
class Layout:
    """The node's folder and what lies where in it."""

    state: Path

    @property
    def before(self) -> Path:
        """What the machine was like before the node; its presence marks the folder as ours."""
        return self.state / "before.json"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        return self.state / "containerd" / "state"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    def exists(self) -> bool:
        return self.before.exists()


def layout() -> Layout:
    """The node of this machine: its folder is $PLAN2_STATE or /var/lib/plan2-node."""
    return Layout(Path(os.environ.get("PLAN2_STATE") or "/var/lib/plan2-node").absolute())
