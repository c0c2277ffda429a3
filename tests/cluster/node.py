"""A real single node of Kubernetes on this machine, without a container engine or a registry.

The order in which a node comes up, and the lock that lets one command at a time change it.
What each program is told stands in `programs.py`, `runtime.py` and `node_programs.py`, how all
of it goes away in `cleanup.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster import cleanup, host, node_programs, processes, runtime
from cluster.control_plane import (
    answers,
    control_plane_binaries,
    fetch,
    free_ports,
    start_control_plane,
    trusted,
    wait_for_service_account,
)
from cluster.kinds import ClusterFailed
from cluster.layout import (
    ADDRESS,
    API_PORT,
    CGROUP,
    CONTROLLER_MANAGER_PORT,
    DNS_READY_PORT,
    NODE_BRIDGE,
    NODE_NAME,
    POD_NETWORK,
    PROGRAMS,
    PROXY_HEALTH_PORT,
    SERVICE_ADDRESS,
    SERVICE_NETWORK,
    Layout,
    layout,
)
from cluster.processes import Program
from cluster.programs import Addresses, Credentials, Programs, credentials, with_loopback
from tools import apt, build
from tools.progress import say

PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "conntrack",
    "iproute2",
    "busybox-static",
)
OTHER_NODES = ("kubelet", "kube-proxy", "k3s", "k0s", "microk8s")
READY_SECONDS = 90.0


class Node:
    """The node of this machine; see `kinds.Cluster` for what each method promises."""

    name = "node"

    def __init__(self) -> None:
        self._layout = layout()

    @property
    def kubeconfig(self) -> Path:
        return self._layout.kubeconfig

    def exists(self) -> bool:
        return self._layout.exists()

    def is_up(self) -> bool:
        return self.exists() and not self._ended() and self._answers()

    def up(self) -> None:
        _require_root()
        with _only_changer():
            if self.is_up():
                say(f"node: already up, kubeconfig {self.kubeconfig}")
                return
            started = time.monotonic()
            self._require_room()
            binaries = prepare()
            if self.exists():
                say("node: clearing away what an earlier run left")
                cleanup.reset(self._layout)
            _Start(self._layout, binaries).run()
            say(f"node: up in {time.monotonic() - started:.0f} s, kubeconfig {self.kubeconfig}")

    def down(self) -> None:
        _require_root()
        with _only_changer():
            if not self.exists():
                say("node: nothing to take down")
                return
            started = time.monotonic()
            say("node: ending its programs and pods, removing all they left")
            cleanup.reset(self._layout)
            say(f"node: gone in {time.monotonic() - started:.0f} s")

    def load_images(self, archives: Sequence[Path]) -> None:
        _require_root()
        for archive in archives:
            started = time.monotonic()
            runtime.import_images(self._layout, [archive])
            say(f"node: {archive.name} imported in {time.monotonic() - started:.1f} s")

    def status(self) -> list[str]:
        if not self.exists():
            return ["node: not there"]
        lines = []
        for name in PROGRAMS:
            identity = processes.running(processes.record_of(self._layout.state, name))
            lines.append(f"{name}: {f'process {identity.pid}' if identity else 'not running'}")
        answer = "answers" if self._answers() else "does not answer"
        return [*lines, f"API server {answer}", f"kubeconfig {self.kubeconfig}"]

    def _ended(self) -> list[str]:
        records = {name: processes.record_of(self._layout.state, name) for name in PROGRAMS}
        return [name for name, record in records.items() if processes.running(record) is None]

    def _answers(self) -> bool:
        """Whether the API server answers; all may ask it that, so no certificate is shown."""
        try:
            context = trusted(self._layout.state / "pki" / "ca.crt", None)
        except OSError:
            return False
        return answers(f"https://{ADDRESS}:{API_PORT}/readyz", context)

    def _require_room(self) -> None:
        state = self._layout.state
        if not self.exists() and state.is_dir() and any(state.iterdir()):
            raise ClusterFailed(f"{state} holds files that are not a node's: set PLAN2_STATE")
        ours = {identity.pid for identity in processes.marked(state)}
        for identity in processes.everybody():
            program = _program_name(identity.pid)
            if (
                program in OTHER_NODES
                and identity.pid not in ours
                and _is_of_this_network(identity)
            ):
                raise ClusterFailed(
                    f"{program} (process {identity.pid}) makes this machine a node already:"
                    " use PLAN2_CLUSTER=current with its kubeconfig, or kind"
                )


class _Start:
    """One start of a node from nothing, each step said as it is done."""

    def __init__(self, where: Layout, binaries: dict[str, Path]) -> None:
        self._layout = where
        host.remember(where)
        etcd, peers = free_ports(2)
        self._addresses = Addresses(
            ADDRESS,
            API_PORT,
            etcd,
            peers,
            service_network=SERVICE_NETWORK,
            service_address=SERVICE_ADDRESS,
            pod_network=POD_NETWORK,
        )
        environment = with_loopback(os.environ, [ADDRESS, SERVICE_NETWORK, POD_NETWORK])
        # kubelet and kube-proxy call iptables and mount, which a plain user's PATH lacks.
        environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
        self._programs = Programs(where.state, binaries, self._addresses, environment)
        self._last = time.monotonic()

    def run(self) -> None:
        _make_interface()
        _make_cgroup()
        runtime.start(self._programs, self._layout)
        self._say("containerd")
        made = credentials(self._layout.state, self._addresses)
        start_control_plane(
            self._programs,
            made,
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={made.api_client.certificate}",
            f"--kubelet-client-key={made.api_client.key}",
            f"--kubelet-certificate-authority={made.authority.pair.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            started=self._say,
        )
        self._start_controllers(made)
        self._start_node(made)

    def _start_controllers(self, made: Credentials) -> None:
        manager = self._programs.controller_manager(
            made,
            CONTROLLER_MANAGER_PORT,
            "--allocate-node-cidrs",
            f"--cluster-cidr={POD_NETWORK}",
        )
        kubelet = node_programs.kubelet(self._programs, made, self._layout)
        for program in (manager, kubelet, node_programs.scheduler(self._programs, made)):
            processes.start(program)
        wait_for_service_account(manager, self._addresses, made)
        self._say("kube-controller-manager, kube-scheduler")

    def _start_node(self, made: Credentials) -> None:
        proxy = node_programs.proxy(self._programs, made)
        dns = node_programs.coredns(self._programs, self._layout)
        for program in (proxy, dns):
            processes.start(program)
        self._kubectl("apply", "--filename=-", text=node_programs.volume_objects(self._layout))
        processes.start(node_programs.volume_provisioner(self._programs, self._layout))
        self._wait(proxy, lambda: answers(_url(PROXY_HEALTH_PORT, "healthz"), None))
        self._wait(dns, lambda: answers(_url(DNS_READY_PORT, "ready"), None))
        self._say("kube-proxy, coredns, local-path-provisioner")
        kubelet = node_programs.kubelet(self._programs, made, self._layout)
        self._wait(kubelet, lambda: self._node_is_ready(made))
        self._say("kubelet, and the node is Ready")

    def _wait(self, program: Program, ready: Callable[[], bool]) -> None:
        processes.wait_until(program, ready, timeout_seconds=READY_SECONDS)

    def _node_is_ready(self, made: Credentials) -> bool:
        context = trusted(made.authority.pair.certificate, made.api_client)
        answer = fetch(f"{self._addresses.server}/api/v1/nodes/{NODE_NAME}", context)
        if answer is None:
            return False
        node = json.loads(answer)
        conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
        # The taint goes a moment after the condition comes; pods wait for that.
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _kubectl(self, *arguments: str, text: object) -> None:
        kubectl = [
            str(self._programs.binaries["kubectl"]),
            f"--kubeconfig={self._layout.kubeconfig}",
        ]
        subprocess.run(
            [*kubectl, *arguments],
            input=json.dumps(text),
            text=True,
            check=True,
            capture_output=True,
            env=dict(self._programs.environment),
        )

    def _say(self, what: str) -> None:
        now = time.monotonic()
        say(f"  {what}: {now - self._last:.1f} s")
        self._last = now


def prepare() -> dict[str, Path]:
    """Install and build what a node needs and is missing; returns its programs by name."""
    apt.ensure(*PACKAGES)
    built = build.ensure("coredns", "local-path-provisioner", "pause")
    own = {path.name: path for folder in built.values() for path in folder.iterdir()}
    return {**control_plane_binaries(), **own, "containerd": Path(runtime.program("containerd"))}


def _make_interface() -> None:
    """A bridge without a port holds the node's address: not every kernel has dummy devices."""
    for arguments in (
        ["link", "add", NODE_BRIDGE, "type", "bridge"],
        ["address", "add", f"{ADDRESS}/32", "dev", NODE_BRIDGE],
        ["link", "set", NODE_BRIDGE, "up"],
    ):
        subprocess.run(["ip", *arguments], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _make_cgroup() -> None:
    """Make the group that holds all pods in every hierarchy; kubelet refuses to make its own."""
    root = cleanup.CGROUPS
    if (root / "cgroup.controllers").exists():
        available = (root / "cgroup.controllers").read_text().split()
        (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in available))
        (root / CGROUP).mkdir(exist_ok=True)
        return
    for hierarchy in {path.resolve() for path in root.iterdir() if path.is_dir()}:
        group = hierarchy / CGROUP
        if (hierarchy / "cgroup.procs").exists() and hierarchy.name != "unified":
            group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists():  # empty in a new group, and no process may enter then
                (group / setting).write_text((hierarchy / setting).read_text())


def _url(port: int, path: str) -> str:
    return f"http://{ADDRESS}:{port}/{path}"


def _program_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _is_of_this_network(identity: processes.Identity) -> bool:
    """Whether it shares our network namespace; a kind cluster's kubelet does not."""
    try:
        return (
            Path(f"/proc/{identity.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        )
    except OSError:
        return False


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterFailed(
            "A node needs root (containers, interfaces, firewall rules): run it with sudo, or"
            " use PLAN2_CLUSTER=kind with a Docker engine, or PLAN2_CLUSTER=current."
        )


@contextmanager
def _only_changer() -> Iterator[None]:
    """Hold the machine's lock: one command at a time brings the node up or takes it down."""
    build.cache_root().mkdir(parents=True, exist_ok=True)
    with (build.cache_root() / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("node: waiting for another command that changes it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
