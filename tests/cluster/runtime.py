"""The node's container runtime: a containerd of its own, its pod network, its first images.

Its sockets, images and containers lie below the node's folder, so that it never meets a
containerd which the machine runs already.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster import host, oci, processes
from cluster.kinds import ClusterFailed
from cluster.layout import CNI_NETWORK, PAUSE_IMAGE, POD_BRIDGE, POD_NETWORK, SHELL_IMAGE, Layout
from cluster.oci import Link
from cluster.programs import Programs
from tools import build

CNI_PLUGINS = "/usr/lib/cni"
# Nothing listens there: a pull fails at once, with a network or without.
NO_REGISTRY = "http://127.0.0.1:9"
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "chmod", "chown", "ls", "mkdir", "nslookup", "rm", "sleep", "stat", "wget")


def start(programs: Programs, layout: Layout) -> None:
    """Write the configuration, start containerd, wait for its socket, import the first images."""
    config = _configure(layout)
    containerd = programs.program("containerd", f"--config={config}")
    processes.start(containerd)
    processes.wait_until(containerd, lambda: _listens(layout.socket), timeout_seconds=30)
    import_images(layout, _first_images(layout))


def import_images(layout: Layout, archives: Sequence[Path]) -> None:
    """Bring the images of OCI archives to where kubelet finds them."""
    ctr = [program("ctr"), f"--address={layout.socket}", "--namespace=k8s.io"]
    for archive in archives:
        imported = subprocess.run(
            [*ctr, "images", "import", archive],
            capture_output=True,
            text=True,
            check=False,
        )
        if imported.returncode != 0:
            raise ClusterFailed(f"{archive} was not imported: {imported.stderr.strip()}")


def program(name: str) -> str:
    """The path of a program that a Debian package brought."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        raise ClusterFailed(f"{name} is not there: make system-packages")
    return found


def _configure(layout: Layout) -> Path:
    networks = layout.state / "cni" / "net.d"
    networks.mkdir(parents=True, exist_ok=True)
    (networks / "10-plan2.conflist").write_text(json.dumps(_pod_network(layout), indent=1))
    registries = layout.state / "containerd" / "registries"
    (registries / "_default").mkdir(parents=True, exist_ok=True)
    # containerd 1.6 ignores a file without a host table.
    hosts = f'server = "{NO_REGISTRY}"\n[host."{NO_REGISTRY}"]\n'
    (registries / "_default" / "hosts.toml").write_text(hosts)
    config = layout.state / "containerd.toml"
    config.write_text(_containerd(layout, networks, registries))
    return config


def _containerd(layout: Layout, networks: Path, registries: Path) -> str:
    # An overlay cannot lie on an overlay, which is what a container's own files are.
    overlaid = host.file_system(layout.state) == "overlay"
    snapshotter = "native" if overlaid else "overlayfs"
    home = layout.state / "containerd"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{home / "root"}"
state = "{layout.containerd_state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{layout.socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{home / "opt"}"

[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
netns_mounts_under_state_dir = true
# Where a negative oom_score_adj is refused, every sandbox would die at its start.
restrict_oom_score_adj = true

[{cri}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{networks}"

[{cri}.registry]
config_path = "{registries}"

[{cri}.containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
Root = "{home / "runc"}"
"""


def _pod_network(layout: Layout) -> dict[str, object]:
    # The controller manager gives the one node the first /24 of the pods' network.
    subnet = POD_NETWORK.replace("/16", "/24")
    return {
        "cniVersion": "0.4.0",
        "name": CNI_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": POD_BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(layout.state / "cni" / "addresses"),
                    "ranges": [[{"subnet": subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _first_images(layout: Layout) -> list[Path]:
    machine = subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True).stdout
    folder = layout.state / "images"
    folder.mkdir(exist_ok=True)
    pause = oci.write_archive(
        folder / "pause.tar",
        PAUSE_IMAGE,
        files={"pause": build.program("pause")},
        command=["/pause"],
        machine=machine.strip(),
    )
    shell = oci.write_archive(
        folder / "shell.tar",
        SHELL_IMAGE,
        files={
            "bin/busybox": BUSYBOX,
            **{f"bin/{applet}": Link("/bin/busybox") for applet in APPLETS},
        },
        command=["/bin/sh"],
        machine=machine.strip(),
    )
    return [pause, shell]


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
